"""Studies around a comparison: learning curves, transfer, readers, plans and sweeps."""
