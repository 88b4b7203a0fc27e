"""Answers as DICOM objects: a Secondary Capture overlay and a structured report."""
