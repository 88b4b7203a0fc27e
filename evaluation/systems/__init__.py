"""Imported predictions, ensembles, shortcut baselines, and who may be evaluated on what."""
