"""The only room that runs an optimiser: what is trained, trainer, run folder, checkpoints."""
