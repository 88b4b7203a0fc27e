"""``python -m benchmarks``."""

import typer

from benchmarks.bench import bench

typer.run(bench)
