"""Imported scores outside [0, 1], such as logits: only their ranks count."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cxr_compare
from tests.scripts.small_sets import table_set

N = 120
IDS = [f"img{number:03d}" for number in range(N)]
IS_PRESENT = np.arange(N) % 2 == 1
LOGITS = np.random.default_rng(1).normal(size=N) * 2 + 2 * IS_PRESENT - 1
ROLES = np.where(np.arange(N) < N // 2, "val", "test")
NAMED = {"columns": ["score=logit"]}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    states = {"opacity": np.where(IS_PRESENT, "present", "absent").tolist()}
    return table_set(tmp_path_factory.mktemp("set"), IDS, states, split=ROLES.tolist())


def imported(data: Path, folder: Path, name: str, scores: np.ndarray, **options):
    file = folder / f"{name}.csv"
    pd.DataFrame({"image_id": IDS, "logit": scores}).to_csv(file, index=False)
    options = NAMED | options
    return cxr_compare.import_predictions(file, data=data, out=folder / name, name=name, **options)


@pytest.fixture(scope="module")
def logits(data: Path, tmp_path_factory: pytest.TempPathFactory) -> cxr_compare.Predictions:
    folder = tmp_path_factory.mktemp("systems")
    return imported(data, folder, "A", LOGITS)


@pytest.fixture(scope="module")
def other(data: Path, tmp_path_factory: pytest.TempPathFactory) -> cxr_compare.Predictions:
    noise = np.random.default_rng(2).normal(size=N)
    folder = tmp_path_factory.mktemp("systems")
    return imported(data, folder, "B", 1 / (1 + np.exp(-LOGITS - 2 * noise)))


def test_import_asks_about_scores_outside_0_to_1_and_writes_nothing(data, tmp_path):
    table = pd.DataFrame({"image_id": IDS, "score": LOGITS})
    table.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(cxr_compare.InputError, match=r"a\.csv: row 2, .*score=score"):
        cxr_compare.import_predictions(
            tmp_path / "a.csv", data=data, out=tmp_path / "out", name="A"
        )
    assert not (tmp_path / "out").exists()
    table.loc[3, "score"] = np.inf
    with pytest.raises(cxr_compare.InputError, match="img003"):
        cxr_compare.import_predictions(
            table, data=data, out=tmp_path / "out", name="A", columns=["score=score"]
        )


def test_imported_logits_have_the_figures_of_the_same_values_in_memory(data, logits, other):
    options = {"replicates": 100}
    stored = cxr_compare.compare({"A": logits, "B": other}, data=data, **options)
    scores = other.scores.set_index("image_id")["score"]
    given = {"A": pd.Series(LOGITS, index=IDS), "B": scores}
    truth = pd.DataFrame({"image_id": IDS, "patient_id": IDS, "label": IS_PRESENT, "role": ROLES})
    named = {"columns": ["A.score=score"], **options}
    for in_memory in (
        cxr_compare.compare(given, truth=truth.astype({"label": int}), **named),
        cxr_compare.compare(given, data=data, **named),
    ):
        pd.testing.assert_frame_equal(stored.table, in_memory.table)


def test_thresholds_are_chosen_and_what_needs_probabilities_is_undefined_or_refused(
    data, logits, other
):
    decision = cxr_compare.tune(logits.folder, data=data, policy=["max_f1"])
    assert LOGITS.min() < decision.thresholds["max_f1"].threshold < LOGITS.max()
    assert decision.calibration is None
    report = cxr_compare.compare({"A": logits, "B": other}, data=data, replicates=100)
    figures = report.figures
    calibration = figures[
        (figures["first"] == "A") & (figures["second"] == "") & (figures["metric"] == "brier")
    ]
    assert calibration["estimate"].isna().all()
    assert calibration["note"].str.len().gt(0).all()
    worth = report.curves[report.curves["chart"] == "net-benefit"]
    assert set(worth.loc[worth["kind"] == "curve", "system"]) == {"B"}
    assert report.answer.charts["without_net_benefit"] == ["A"]
    for options in ({"calibration": "platt"}, {"policy": ["threshold=0.5"]}):
        with pytest.raises(cxr_compare.InputError, match="A"):
            cxr_compare.tune(logits.folder, data=data, **options)
    with pytest.raises(cxr_compare.InputError, match="probabilities"):
        cxr_compare.ensemble({"A": logits, "B": other}, data=data)


def test_a_set_of_scores_is_of_ranks_if_only_its_test_scores_leave_0_to_1(data, tmp_path):
    scores = 1 / (1 + np.exp(-LOGITS))
    scores[-1] = 1.02
    predictions = imported(data, tmp_path, "C", scores)
    assert cxr_compare.tune(predictions.folder, data=data).calibration is None
    report = cxr_compare.compare({"C": predictions}, data=data, replicates=100)
    assert len([text for text in report.cautions if "ranks" in text]) == 1
