"""Prediction with a trained run or its export, and the out-of-distribution check of its images."""
