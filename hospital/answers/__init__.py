"""Answers of systems for image files: the log that the monitor reads, and DICOM objects."""
