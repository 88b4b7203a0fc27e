"""Learning curves, transfer, readers, plans and sweeps."""
