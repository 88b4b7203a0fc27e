"""What both models need: the registry of networks, published weights, checkpoints."""
