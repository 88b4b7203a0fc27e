"""Stored data: the pixel store, data sets and predictions."""
