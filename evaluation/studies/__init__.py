"""Studies beside a comparison: learning curves, transfer, readers, sample size, monitoring."""
