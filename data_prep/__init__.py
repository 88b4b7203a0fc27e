"""Data sets and the synthetic phantom. Imports no torch."""
