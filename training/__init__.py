"""Training of both models: optimisation, run folders and checkpoints."""
