"""Boxes to image scores, thresholds, calibration, referral, and `tune`."""
