"""Studies beside a comparison: learning curves, readers, sample size, monitoring."""
