"""Augmentation of training images, and mosaics of four images."""
