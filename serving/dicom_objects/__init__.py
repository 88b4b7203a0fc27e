"""Answers as a Secondary Capture overlay and a structured report."""
