"""The metric registry, and the image set that a comparison evaluates."""
