"""Imported predictions, ensembles, and who may be judged on what."""
