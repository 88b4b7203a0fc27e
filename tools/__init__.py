"""Programs for development: documents, simulations, frozen outputs; not installed."""
