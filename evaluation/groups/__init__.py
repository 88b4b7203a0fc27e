"""Figures by group of images and lesion, and baselines without the lungs: where systems fail."""
