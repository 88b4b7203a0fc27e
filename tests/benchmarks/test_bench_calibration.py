"""The benchmark of the calibration: every row is measured, beside a busy process, too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.__main__ import bench
from scripts.machines import calibration


@pytest.mark.long
def test_a_quick_run_has_every_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "_DEADLINE", 600.0)
    bench(["calibration"], quick=True, out=tmp_path / "bench.json")
    rows = json.loads((tmp_path / "bench.json").read_text())["rows"]
    names = [" ".join([row["work"], *row["names"].values()]) for row in rows]
    assert len(set(names)) == len(names) == 14
    assert sum("beside a busy process" in name for name in names) == 8
    assert all(row["ratio"] > 0 for row in rows)
