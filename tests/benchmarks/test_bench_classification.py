"""The classifier's benchmark: both sides are one network, and a quick run has every row."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from subprocess import PIPE

import pytest
import torch

from benchmarks.bench_classification import Size, as_floats, labelled, training_step, twins
from scripts import bench_allocator
from scripts.cli import build_app


def test_both_sides_are_one_network_with_the_same_output() -> None:
    ours, peer = twins(Size(64, 2), seed=0, device="cpu")
    images = torch.randint(256, (2, 1, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            ours.eval()(images), peer.eval()(as_floats(ours, images)), rtol=1e-4, atol=1e-5
        )
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in peer.parameters())


def test_our_step_moves_every_weight_and_says_how_many_pictures_it_took() -> None:
    ours, _ = twins(Size(64, 2), seed=0, device="cpu")
    before = [parameter.detach().clone() for parameter in ours.parameters()]
    images = torch.randint(256, (2, 1, 64, 64), dtype=torch.uint8)
    assert training_step(ours, labelled(images, 0), "cpu", "fp32")() == 2
    moved = [not torch.equal(a, b) for a, b in zip(before, ours.parameters(), strict=True)]
    assert all(moved)


def test_a_process_without_the_settings_leaves_malloc_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[bool] = []
    monkeypatch.setattr("scripts.runtime._keep_freed_memory", lambda: told.append(True))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    bench_allocator.tune_cpu(allocator=False)
    assert not told
    bench_allocator.tune_cpu()
    assert told


def test_a_process_that_ends_early_is_no_measurement() -> None:
    command = [sys.executable, "-c", "input()"]
    with (
        subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True) as child,
        pytest.raises(RuntimeError, match="it has ended"),
    ):
        bench_allocator._turn(child, "inference", "fp32")


@pytest.mark.slow
def test_a_quick_run_measures_training_inference_and_malloc(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    build_app()(["bench", "classification", "--quick", "--out", str(out)], standalone_mode=False)
    found = json.loads(out.read_text())["rows"]
    assert [row["name"].split(" on ")[0] for row in found] == [
        "training step", "training step", "training step",
        "inference", "inference", "inference",
        "inference", "inference", "training step",
    ]  # fmt: skip
    for row in found:
        assert (row["group"], row["unit"], row["n"]) == ("classification", "images/s", 1)
        assert row["ratio"] == pytest.approx(row["ours"] / row["peer"])
