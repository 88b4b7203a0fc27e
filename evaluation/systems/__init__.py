"""Imported predictions, ensembles, shortcut baselines, and who may be judged on what."""
