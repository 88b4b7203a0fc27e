"""Decision rules of systems: image scores, boxes, thresholds and calibration."""
