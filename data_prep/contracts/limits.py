"""Limits on the size of input from outside."""

MAX_FILE_BYTES = 1 << 29
"""Size in bytes of the largest image file, and the most that a deflated DICOM may inflate to."""
