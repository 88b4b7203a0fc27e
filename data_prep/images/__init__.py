"""Decoding of an image file to one grey 8-bit image, with its facts and its fingerprint."""
