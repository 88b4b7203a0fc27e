"""Everything that judges. Imports no torch."""
