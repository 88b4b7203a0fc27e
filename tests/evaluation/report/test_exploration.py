import json

import numpy as np
import pandas as pd
import pytest

from evaluation.metrics.image_metrics import confusion_counts
from evaluation.report.all_images import _explore_thresholds


def frame(n: int, seed: int = 0, systems=("A", "B")) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    label = rng.random(n) < 0.3
    parts = [
        pd.DataFrame(
            {"image_id": [f"i{k:05d}" for k in range(n)], "system": name, "label": label * 1.0,
             "score": np.round(rng.random(n) * 0.7 + 0.3 * label, 2 + position)}
        )
        for position, name in enumerate(systems)
    ]  # fmt: skip
    return pd.concat(parts, ignore_index=True)


def counts(told, system: int, step: int) -> dict[str, int]:
    steps = told["steps"][system]
    tp, fp = steps["tp"][step], steps["fp"][step]
    return {"tp": tp, "fp": fp, "tn": told["negatives"] - fp, "fn": told["positives"] - tp}


@pytest.mark.parametrize(
    "threshold", [0.31, 0.5, 0.505, 2.0], ids=["tie", "tie2", "between", "none"]
)
def test_frozen_threshold_gives_the_counts_of_the_tables(threshold):
    table = frame(300)
    told, _ = _explore_thresholds(table, ["A", "B"], {"A": {"max_f1": threshold}, "B": {}})
    mine = table[table["system"] == "A"]
    wanted = confusion_counts(mine["label"] == 1, mine["score"], threshold)
    assert counts(told, 0, told["steps"][0]["frozen"]["max_f1"]) == wanted
    assert told["steps"][1]["frozen"] == {}


def test_every_step_counts_what_lies_at_or_above_it():
    table = frame(200)
    told, _ = _explore_thresholds(table, ["A"], {})
    mine = table[table["system"] == "A"]
    for step, at in enumerate(told["steps"][0]["at"]):
        wanted = confusion_counts(mine["label"] == 1, mine["score"], at)
        assert counts(told, 0, step) == wanted


def test_places_of_the_images_give_the_same_counts_as_the_steps():
    table = frame(150)
    told, places = _explore_thresholds(table, ["A", "B"], {"A": {"p": 0.4}, "B": {"p": 0.6}})
    label = table.drop_duplicates("image_id").set_index("image_id")["label"]
    for system, name in enumerate(["A", "B"]):
        step = told["steps"][system]["frozen"]["p"]
        called = label[places[name] >= step]
        assert called.sum() == told["steps"][system]["tp"][step]
        assert (1 - called).sum() == told["steps"][system]["fp"][step]


def test_size_is_bounded_however_many_images():
    table = frame(30_000, systems=("A",))
    table["score"] = np.random.default_rng(1).random(30_000)
    told, _ = _explore_thresholds(table, ["A"], {"A": {"max_f1": 0.123456789}})
    assert len(told["steps"][0]["at"]) <= 401
    assert len(json.dumps(told)) < 20_000
    mine = confusion_counts(table["label"] == 1, table["score"], 0.123456789)
    assert counts(told, 0, told["steps"][0]["frozen"]["max_f1"]) == mine


def test_image_without_truth_or_score_is_counted_nowhere():
    table = frame(20)
    table.loc[table["image_id"] == "i00003", "label"] = np.nan
    table.loc[(table["image_id"] == "i00004") & (table["system"] == "B"), "score"] = np.nan
    told, places = _explore_thresholds(table, ["A", "B"], {})
    assert "i00003" not in places.index
    assert np.isnan(places.loc["i00004", "B"])
    assert told["positives"] + told["negatives"] == 19
    assert told["steps"][1]["tp"][0] + told["steps"][1]["fp"][0] == 18
