"""Speed side by side with peers: `python -m benchmarks`; not installed, not a verb."""
