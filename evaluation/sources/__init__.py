"""Imported predictions, ensembles, shortcut baselines, and checks that systems can be compared."""
