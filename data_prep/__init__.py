"""Data sets. Imports no torch."""
