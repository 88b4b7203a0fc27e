"""Augmentation, mosaic, and the views of test-time augmentation."""

import os

# Here, before albumentations is imported anywhere: it would ask the network for a newer version.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
