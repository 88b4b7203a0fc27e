"""The benchmark of evaluation: both sides give the same figures, a quick run has every row."""

import json

import numpy as np
import pytest

from benchmarks.__main__ import bench
from benchmarks.bench_evaluation import (
    Systems,
    as_coco,
    evaluate,
    image_figures,
    looped_figures,
    make_systems,
    plain_figures,
    vectorised_figures,
)
from cxr_compare.evaluation.boxes.average_precision import average_precision

pytestmark = pytest.mark.release


@pytest.fixture(scope="module")
def systems() -> Systems:
    return make_systems(150, seed=3)


def test_our_replicates_are_those_of_the_loop_over_scikit_learn(systems):
    ours = image_figures(systems, 12, seed=5)
    assert ours.shape == (12, 3 * 7)
    np.testing.assert_allclose(ours, looped_figures(systems, 12, seed=5), atol=1e-12)
    assert (ours.std(axis=0) > 0).all()  # else equal figures would prove nothing


def coco_average_precision(systems: Systems, program: str) -> dict[str, float]:
    boxes, evaluated = systems.boxes["A"], systems.evaluated
    return plain_figures(as_coco(boxes, evaluated.truth, evaluated.image_ids, program), program)


def test_faster_coco_eval_gives_the_same(systems):
    pytest.importorskip("faster_coco_eval", reason="of the extra 'bench'")
    precision = coco_average_precision(systems, "faster-coco-eval")
    assert precision == pytest.approx(coco_average_precision(systems, "pycocotools"), abs=1e-12)


def test_all_forms_give_the_average_precision_of_plain_pycocotools(systems):
    boxes, evaluated = systems.boxes["A"], systems.evaluated
    plain = coco_average_precision(systems, "pycocotools")
    assert 0.05 < plain["ap"] < plain["ap50"] < 0.95
    assert vectorised_figures(systems) == pytest.approx(plain, abs=1e-12)
    reported = average_precision(boxes, evaluated.truth, evaluated.image_ids)
    assert reported == pytest.approx(plain, abs=1e-12)


def test_evaluation_gives_intervals_of_every_system_and_pair(systems):
    table = evaluate(systems, 100, seed=0)
    for metric in ("auroc", "average_precision", "ap50", "ap", "froc_mean"):
        bounded = table[(table["metric"] == metric) & table["ci_low"].notna()]
        expected = {"A", "B", "A - B"} | (
            set() if metric[0] in "f" or metric[:2] == "ap" else {"C"}
        )
        assert expected <= set(bounded["system"]), metric


@pytest.mark.long
def test_a_quick_run_has_every_row(tmp_path):
    out = tmp_path / "bench.json"
    bench(["evaluation"], quick=True, out=out)
    rows = json.loads(out.read_text())["rows"]
    assert {row["unit"] for row in rows} == {"s", "replicates/s"}
    programs = {row["names"]["peer"] for row in rows if "AP50" in row["work"]}
    assert programs == {"pycocotools", "faster-coco-eval"}
    for row in rows:
        assert (row["group"], row["n"]) == ("evaluation", 1), row["failed"]
        assert row["ours"] > 0
    assert rows[0]["ratio"] is None, "nobody else makes a whole comparison"
    assert all(row["ratio"] > 0 for row in rows[1:])
