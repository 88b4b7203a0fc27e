"""The only room that runs an optimiser: trainer, run folder, checkpoints."""
