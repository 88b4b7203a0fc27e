"""Parallel work in processes or a Ray cluster."""
