"""Augmentation and mosaic."""
