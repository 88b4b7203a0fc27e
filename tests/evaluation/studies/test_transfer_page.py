"""The page of systems on other data sets: what has no figure, and words by p-values."""

import json

import numpy as np
import pandas as pd
import pytest

from evaluation.decisions.decision import Decision
from evaluation.decisions.thresholds import ThresholdChoice
from evaluation.statistics.obuchowski_rockette import ClusteredEstimate
from evaluation.studies.transfer_analysis import (
    JudgedSet,
    Judging,
    Transfer,
    TransferCell,
    judge_cell,
    with_drops,
)
from evaluation.studies.transfer_page import drops, write_transfer
from evaluation.studies.transfer_pairs import UnseenScores

JUDGING = Judging("max_f1", [5], replicates=200, draws=20)
HOME = TransferCell("A", "rsna", home=True)
SHORTCUT = {"auroc": 0.8, "ci_low": 0.7, "ci_high": 0.88, "fact": "view"}


def scored(n, share):
    ids = pd.Index([f"i{place}" for place in range(n)])
    scores = np.random.default_rng(0).random(n)
    return UnseenScores(ids, np.arange(n) < share * n, scores, ids.to_numpy(str))


@pytest.mark.parametrize(
    ("share", "threshold", "unknown"),
    [
        (0.4, 5.0, "precision"),  # nobody is called positive
        (0.0, 0.5, "auroc"),  # one class
    ],
)
def test_a_figure_that_is_undefined_is_null_in_every_file(tmp_path, share, threshold, unknown):
    decision = Decision("opacity", {}, thresholds={"max_f1": ThresholdChoice("max_f1", threshold)})
    cell = judge_cell(HOME, scored(60, share), scored(60, 0.4), decision, JUDGING)
    sets = [JudgedSet("rsna", "Opacity", SHORTCUT)]
    page = write_transfer(Transfer(sets, [cell], "max_f1", []), tmp_path)
    rows = json.loads((tmp_path / "transfer.json").read_text())["figures"]
    (row,) = [r for r in rows if r["metric"] == unknown and r["threshold"] in ("", "home")]
    assert row["estimate"] is None
    assert pd.read_csv(tmp_path / "transfer.csv")["estimate"].isna().any()
    assert "0.800 (0.700 to 0.880) by view" in page.read_text()


def test_rows_say_what_their_interval_is_over(tmp_path):
    cell = judge_cell(HOME, scored(60, 0.4), scored(60, 0.4), None, JUDGING)
    write_transfer(Transfer([JudgedSet("rsna", "Opacity", None)], [cell], "max_f1", []), tmp_path)
    table = pd.read_csv(tmp_path / "transfer.csv").set_index("threshold")
    assert set(table.loc["local, 5 positive", "interval"]) == {"90 % of choices of local patients"}
    whole = table.loc["local, all"]
    assert set(whole["interval"]) == {"95 % over test patients"}
    recall = whole[whole["metric"] == "recall"].iloc[0]
    assert recall["low"] < recall["high"]


def test_a_drop_that_only_all_of_them_together_hide_is_not_called_nothing():
    def cell(data_set, value):
        return TransferCell("A", data_set, data_set == "home",
                    auroc=ClusteredEstimate(value, 0.015, 200, bounded=True))  # fmt: skip

    names = [f"set {place}" for place in range(3)]
    cells = with_drops([cell("home", 0.9), *(cell(name, 0.855) for name in names)])
    sets = [JudgedSet(name, "Opacity", None) for name in ("home", *names)]
    for drop in drops(Transfer(sets, cells, "max_f1", [])):
        assert not drop.shown
        assert "not shown over 3 drops (p = 0.1" in drop.text
        assert "equal AUROCs" not in drop.text
