"""Readers of public data sets and label formats, one module each, and their registry."""
