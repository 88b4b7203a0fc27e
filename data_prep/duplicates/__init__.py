"""Near duplicates: one search for `check` and `split`."""
