"""What both models share: network registry, published weights, checkpoints."""
