"""Evaluation of boxes: matching, average precision, FROC, error types, and boxes from maps."""
