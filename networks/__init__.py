"""Code that both models share: the registry of networks, published weights, and checkpoints."""
