"""Boxes to image scores, thresholds, calibration, and `tune`."""
