"""Counts at every threshold, for the slider of the images page."""

import json

import numpy as np
import pandas as pd
import pytest

from cxr_compare.evaluation.metrics.image_metrics import confusion_counts
from cxr_compare.evaluation.report.threshold_exploration import explore_thresholds
from tests.evaluation.report.written_images import write_images


@pytest.fixture
def page_data(comparison, image_set, report_folder):
    return write_images(comparison, image_set, report_folder, drawn={"p03": ["", "only-2-01"]})


def frame(n: int, seed: int = 0, systems=("A", "B")) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.3
    parts = [
        pd.DataFrame(
            {
                "image_id": [f"i{k:05d}" for k in range(n)],
                "system": name,
                "label": label * 1.0,
                "score": np.round(rng.random(n) * 0.7 + 0.3 * label, 2 + position),
            }
        )
        for position, name in enumerate(systems)
    ]
    return pd.concat(parts, ignore_index=True)


def counts(page_data, system: int, step: int) -> dict[str, int]:
    steps = page_data["steps"][system]
    tp = steps["tp"][step]
    fp = steps["fp"][step]
    return {
        "tp": tp,
        "fp": fp,
        "tn": page_data["negatives"] - fp,
        "fn": page_data["positives"] - tp,
    }


@pytest.mark.parametrize(
    "threshold", [0.31, 0.5, 0.505, 2.0], ids=["tie", "tie2", "between", "none"]
)
def test_frozen_threshold_gives_the_counts_of_the_tables(threshold):
    table = frame(300)
    page_data, _ = explore_thresholds(table, ["A", "B"], {"A": {"max_f1": threshold}, "B": {}})
    mine = table[table["system"] == "A"]
    wanted = confusion_counts(mine["label"] == 1, mine["score"], threshold)
    assert counts(page_data, 0, page_data["steps"][0]["frozen"]["max_f1"]) == wanted
    assert page_data["steps"][1]["frozen"] == {}


def test_every_step_counts_what_lies_at_or_above_it():
    table = frame(200)
    page_data, _ = explore_thresholds(table, ["A"], {})
    mine = table[table["system"] == "A"]
    for step, at in enumerate(page_data["steps"][0]["at"]):
        wanted = confusion_counts(mine["label"] == 1, mine["score"], at)
        assert counts(page_data, 0, step) == wanted


def test_places_of_the_images_give_the_same_counts_as_the_steps():
    table = frame(150)
    page_data, places = explore_thresholds(table, ["A", "B"], {"A": {"p": 0.4}, "B": {"p": 0.6}})
    label = table.drop_duplicates("image_id").set_index("image_id")["label"]
    for system, name in enumerate(["A", "B"]):
        step = page_data["steps"][system]["frozen"]["p"]
        called = label[places[name] >= step]
        assert called.sum() == page_data["steps"][system]["tp"][step]
        assert (1 - called).sum() == page_data["steps"][system]["fp"][step]


def test_size_is_bounded_however_many_images():
    table = frame(30_000, systems=("A",))
    table["score"] = np.random.default_rng(1).random(30_000)
    page_data, _ = explore_thresholds(table, ["A"], {"A": {"max_f1": 0.123456789}})
    assert len(page_data["steps"][0]["at"]) <= 401
    assert len(json.dumps(page_data)) < 20_000
    mine = confusion_counts(table["label"] == 1, table["score"], 0.123456789)
    assert counts(page_data, 0, page_data["steps"][0]["frozen"]["max_f1"]) == mine


def test_image_without_truth_or_score_is_counted_nowhere():
    table = frame(20)
    table.loc[table["image_id"] == "i00003", "label"] = np.nan
    table.loc[(table["image_id"] == "i00004") & (table["system"] == "B"), "score"] = np.nan
    page_data, places = explore_thresholds(table, ["A", "B"], {})
    assert "i00003" not in places.index
    assert np.isnan(places.loc["i00004", "B"])
    assert page_data["positives"] + page_data["negatives"] == 19
    assert page_data["steps"][1]["tp"][0] + page_data["steps"][1]["fp"][0] == 18
