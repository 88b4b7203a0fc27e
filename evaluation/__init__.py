"""Everything that evaluates. Imports no torch."""
