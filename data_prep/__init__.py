"""Data sets: tables, pixels, splits, audit and the synthetic phantom. Imports no torch."""
