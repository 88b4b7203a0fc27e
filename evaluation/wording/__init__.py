"""Sentences of choices and comparisons, which code fills in."""
