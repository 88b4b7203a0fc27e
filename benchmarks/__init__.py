"""Speed beside peers: `python -m benchmarks`; not installed."""
