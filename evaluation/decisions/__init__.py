"""Decision rules of systems: image scores, boxes, thresholds, calibration and guarantees."""
