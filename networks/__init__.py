"""What both models stand on: the registry of networks, published weights, checkpoints."""
