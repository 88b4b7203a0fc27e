"""Thresholds with a guarantee that holds for new patients, and how many patients they need."""
