"""Augmentation of training images, and mosaics."""
