"""A function for each `cxr` command, and their runner."""
