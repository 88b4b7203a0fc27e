"""Ranking, clustered variance, bootstrap, McNemar, calibration: numpy in, numbers out."""
