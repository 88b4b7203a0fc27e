"""Decoding of one file to one grey 8-bit image, its facts and its fingerprint."""
