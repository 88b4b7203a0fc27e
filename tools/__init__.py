"""Programs for development: documents, simulations, attacks, licences; not installed."""
