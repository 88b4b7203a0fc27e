"""Failures of each system by groups of images, and by lesions."""
