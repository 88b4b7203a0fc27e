"""Registry of metrics, image-level figures, and texts about metrics."""
