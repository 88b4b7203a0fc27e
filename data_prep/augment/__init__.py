"""Augmentation, mosaic, and the views of test-time augmentation."""
