"""Answers as DICOM objects: a Secondary Capture with the overlay, and a structured report."""
