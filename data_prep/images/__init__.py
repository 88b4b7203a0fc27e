"""One file to one grey 8-bit image; its facts and fingerprint."""
