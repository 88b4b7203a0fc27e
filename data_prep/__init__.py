"""Preparation of data sets, from image files and labels to tables and pixels. Imports no torch."""
