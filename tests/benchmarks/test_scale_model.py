"""The simulation of many workers agrees with what can be worked out on paper."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import scale_model
from benchmarks.scale_model import (
    Stage,
    Work,
    document,
    draw_growth,
    measured_table,
    read_stages,
    simulate,
)
from cxr_compare.data_prep.contracts.errors import InputError

pytestmark = pytest.mark.release

DECODE = Stage("decode", "worker", "image", 0.02)
SEND = Stage("dispatch", "driver", "chunk", 0.001)
GATHER = Stage("gather", "driver", "image", 0.0002)
FETCH = Stage("fetch", "store", "image", 0.0001, bytes=100_000, parallel=4)
WRITE = Stage("write", "worker", "chunk", 0.005)
TABLES = Stage("tables", "driver", "image", 0.0001, when="end")
ALL = Work("prepare", (DECODE, SEND, GATHER, FETCH, WRITE, TABLES), chunk=16)


def test_one_worker_takes_the_sum_of_its_stages():
    """Answers of one chunk are gathered while the next one is worked on."""
    outcome = simulate(ALL, 1, 16_000)
    a_trip = 0.02 + 0.001 + 0.0001 / 4 + 100_000 * 8 / 10e9 + 0.005 / 16
    flow = 16_000 * a_trip + 0.001 + 16 * 0.0002  # the first sending, the last gathering
    assert outcome.seconds == pytest.approx(flow + 1.6, rel=1e-9)
    assert outcome.bottleneck == "worker"
    assert outcome.busy["worker"] == pytest.approx(flow / (flow + 1.6), rel=1e-3)


@pytest.mark.parametrize(
    ("stages", "bandwidth", "shared_stage", "rate"),
    [
        ((SEND, GATHER), 1e12, "driver", 1 / (0.001 / 16 + 0.0002)),
        ((replace(FETCH, bytes=0.0),), 1e12, "store", 4 / 0.0001),
        ((FETCH,), 1e9, "down", 1e9 / 100_000),
        ((replace(FETCH, bytes_written=250_000),), 1e9, "up", 1e9 / 250_000),
        ((TABLES,), 1e12, "once", 1 / (0.0001 + 0.002 / 256)),  # after the flow, not beside it
    ],
)
def test_endless_workers_are_limited_by_the_one_stage_they_share(
    stages, bandwidth, shared_stage, rate
):
    quick = replace(DECODE, seconds=0.002)
    work = Work("predict", (quick, *stages), chunk=16, bandwidth=bandwidth)
    few, many = (simulate(work, 256, images) for images in (100_000, 400_000))
    assert few.bottleneck == many.bottleneck == shared_stage
    assert rate * 0.95 < few.rate < many.rate * (1 + 1e-9)  # what fills and drains weighs less
    assert rate * 0.97 < many.rate <= rate * (1 + 1e-9)


@pytest.mark.parametrize("workers", [1, 3, 16, 200])
def test_no_simulation_is_faster_than_its_busiest_stage_allows(workers):
    varied = Work("prepare", (replace(DECODE, cv=0.8), *ALL.stages[1:]), chunk=8)
    for work in (ALL, varied):
        outcome = simulate(work, workers, 40_000)
        assert outcome.rate <= work.bound(workers, 40_000) * 1.02  # 2 %: chance
        assert all(0 <= share <= 1 + 1e-9 for share in outcome.busy.values())


@pytest.mark.parametrize("workers", [2, 5, 12])
def test_random_times_wait_for_a_shared_stage_as_in_the_machine_repair_model(workers):
    """Exponential work (mean 1), one repairman of exponential service: the closed formula.

    Here the service is constant, which waits less, so the formula is a bound below, and the
    asymptotes are bounds above.
    """
    think, service = 1.0, 0.2
    stages = (
        Stage("decode", "worker", "image", think, cv=1.0),
        Stage("fetch", "store", "image", service, requests=0),
    )
    work = Work("predict", stages, chunk=1)
    rate = simulate(work, workers, 40_000, seed=1).rate
    weight, weights = 1.0, [1.0]
    for waiting in range(1, workers + 1):
        weight *= (workers - waiting + 1) * service / think
        weights.append(weight)
    exponential = (1 - weights[0] / sum(weights)) / service
    assert exponential * 0.99 < rate <= min(workers / (think + service), 1 / service) * 1.01
    assert rate < 1.12 * exponential  # and is near it


def test_the_same_seed_gives_the_same_and_chance_needs_it():
    work = Work("prepare", (replace(DECODE, cv=1.0), SEND), chunk=4)
    first, again, other = (simulate(work, 8, 4000, seed=seed).seconds for seed in (1, 1, 2))
    assert first == again != other


def test_the_last_chunk_holds_what_is_left():
    work = Work("prepare", (DECODE,), chunk=64)
    assert simulate(work, 1, 65).seconds == pytest.approx(65 * 0.02)
    assert simulate(work, 1, 3).seconds == pytest.approx(3 * 0.02)


def _file(folder: Path, **change: Any) -> Path:
    stages = [
        {"stage": "decode", "where": "worker", "seconds_per": "image", "seconds": 0.02},
        {"stage": "gather", "where": "driver", "seconds_per": "image", "seconds": 1e-4},
    ]
    measured = [{"work": "prepare", "workers": 2, "images": 1000, "images_per_second": 95.0}]
    stages[0] |= change
    content = {"work": {"prepare": {"stages": stages}}, "measured": measured, "machine": "a test"}
    (folder / "stages.json").write_text(json.dumps(content))
    return folder / "stages.json"


def test_chunks_are_as_large_as_the_engine_would_make_them(tmp_path):
    (work,), _ = read_stages(_file(tmp_path))
    assert work.chunk == 12  # a quarter of a second
    (work,), _ = read_stages(_file(tmp_path, seconds=1e-6))
    assert work.chunk == 1024


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"where": "moon"}, "decode: where must be one of driver, worker, store"),
        ({"seconds": -1}, "seconds must be at least 0"),
        ({"seconds_per": "job"}, "of a job the driver's"),
        ({"where": "store", "seconds_per": "chunk"}, "seconds of the store are of an image"),
    ],
)
def test_a_wrong_stage_is_named(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        read_stages(_file(tmp_path, **change))
    with pytest.raises(InputError, match="cannot be read as JSON"):
        read_stages(tmp_path / "none.json")


def test_page_contains_tables_a_figure_and_the_measurements(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_model, "WORKERS", (1, 2, 64))
    page = tmp_path / "scale.md"
    page.write_text("before\n<!-- growth model -->\nold\n<!-- end of growth model -->\nafter\n")
    scale_model.main(_file(tmp_path), page, images=20_000)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| prepare | 64 | " in text
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
    works, content = read_stages(_file(tmp_path))
    (row,) = measured_table(works, content["measured"])[2:]
    # One worker has 42 chunks of 12 images; the driver then gathers it and the last one, of four.
    assert row == f"| prepare | 2 | 1,000 | 95 | {1000 / (42 * 0.24 + 16e-4):.1f} | 1.04 |"
    assert row in document(works, content, [simulate(works[0], 1, 2000)])
    assert draw_growth(works, [simulate(works[0], n, 2000) for n in (1, 2)]).axes[0].lines


def test_page_states_the_measurements_and_where_scaling_stops():
    rows = [
        {"command": "prepare", "engine": engine, "images": images, "seconds": images / 500,
         "driver_seconds": images / 4000, "peak_mib": 300 + images / 1024}
        for engine in ("local", "ray")
        for images in (10_000, 100_000)
    ]  # fmt: skip
    slopes = [{"command": "prepare", "engine": "ray", "slope": 1.0}]
    measured = {"command": "python -m benchmarks.scale", "seed": 0,
                "hardware": {"cpus": 2, "processor": "a test"}}  # fmt: skip
    growth = {**measured, "rows": rows, "slopes": slopes, "slope_from": 10_000,
              "workers": 2, "side": 32}  # fmt: skip
    engines = {**measured, "rows": 100_000, "side": 256, "ratios": [1.1, 1.0, 1.05]}
    outcomes = [simulate(ALL, workers, 20_000) for workers in (1, 4, 256)]
    text = document([ALL], {}, outcomes, growth, engines)
    assert "| `prepare` | ray | 100,000 | 500 | 398 |" in text
    assert "took 1.05 times as long" in text
    # 1 / (0.001 / 16 + 0.0002) by the driver; 0.0001 * 20,000 s of tables after the flow.
    assert "Up to 4 workers" in text
    assert len(draw_growth([ALL], outcomes, growth).axes) == 2
