"""A function for each `cxr` verb, and their runner."""
