"""Optimisation: trainer, run folder, checkpoints."""
