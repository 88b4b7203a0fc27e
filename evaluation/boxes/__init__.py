"""Hits, average precision, FROC, error types, fusion, boxes from maps."""
