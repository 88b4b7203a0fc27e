"""A function for each `cxr` verb, and their runner. No room imports it."""
