"""Variance by patient and by reader, bootstrap, McNemar, calibration: numpy in and out."""
