"""A file for each public data set or label format, and their registry."""
