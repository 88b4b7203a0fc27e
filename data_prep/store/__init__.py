"""Stored data: the pixel store, data sets, predictions and the log of answers."""
