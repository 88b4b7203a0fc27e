"""Monitoring of a model in use: its logged answers beside those of a reference time."""
