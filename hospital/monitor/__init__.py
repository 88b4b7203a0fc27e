"""Is a model still as good: its logged answers beside those of a reference time."""
