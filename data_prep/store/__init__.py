"""Preprocessing, the pixel store, and the folders `DataSet` and `Predictions`."""
