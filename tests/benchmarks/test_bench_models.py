"""The detector's benchmark: both sides are one network, and a quick run has every row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.bench_models import _QUICK, _as_floats, _twins
from scripts.cli import build_app


def test_both_sides_are_one_network_with_the_same_output() -> None:
    ours, peer = _twins(_QUICK[0], seed=0, device="cpu")
    assert ours.state_dict().keys() == peer.state_dict().keys()
    for model in (ours, peer):  # of two pictures, statistics would magnify what rounding does
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eval()
    images = torch.randint(256, (2, 1, 96, 96), dtype=torch.uint8)
    target = {"boxes": torch.tensor([[10.0, 10, 60, 60]]), "labels": torch.tensor([1])}
    pairs: list[Any] = [ours(images, [target] * 2), peer(_as_floats(images), [target] * 2)]
    for name in ("classification", "bbox_regression"):
        torch.testing.assert_close(pairs[0][name], pairs[1][name], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_quick_run_measures_training_and_inference(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    build_app()(["bench", "detection", "--quick", "--out", str(out)], standalone_mode=False)
    found = json.loads(out.read_text())["rows"]
    assert [row["name"].split(" on ")[0] for row in found] == [
        "training step", "inference", "inference",
    ]  # fmt: skip
    for row in found:
        assert (row["group"], row["unit"], row["n"]) == ("detection", "images/s", 1)
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
