"""Speed against other programs: `python -m benchmarks`; not installed."""
