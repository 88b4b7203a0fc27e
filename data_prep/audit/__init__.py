"""The audit of a data set: checks for faults that would make results wrong, and its page."""
