"""Scores that are not what they are called: one caution each, none for an honest system."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import cxr_compare

N = 160
IDS = [f"img{number:03d}" for number in range(N)]
Y = (np.arange(N) % 2).astype(float)
IS_TEST = np.arange(N) >= N // 2
TRUTH = pd.DataFrame(
    {"image_id": IDS, "label": Y, "role": np.where(IS_TEST, "test", "val"), "patient_id": IDS}
)


def scores(distance: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(size=N)
    return 1 / (1 + np.exp(-(noise + distance * (Y - 0.5))))


A = scores(2.2, 1)
B = scores(1.5, 2)


def kinds_of_notes(**systems: np.ndarray) -> list[str]:
    given = {name: pd.Series(values, index=IDS) for name, values in systems.items()}
    report = cxr_compare.compare(given, truth=TRUTH, replicates=100)
    return [text for text in report.cautions if "scores" in text or "score " in text]


def test_honest_systems_have_no_caution_about_their_scores():
    assert kinds_of_notes(A=A, B=B) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        pytest.param(A, (A >= 0.5).astype(float), id="decisions"),
        pytest.param(np.where(IS_TEST, A / 20, A), B, id="other scale"),
        pytest.param(np.where(IS_TEST, A, 1 - A), B, id="turned"),
        pytest.param(A, A.copy(), id="identical"),
        pytest.param(Y, B, id="labels"),
        pytest.param(np.maximum(A, 1 - A), B, id="confidence of the predicted class"),
    ],
)
def test_scores_that_are_not_what_they_are_called_have_one_caution(first, second):
    assert len(kinds_of_notes(A=first, B=second)) == 1


@pytest.mark.parametrize(
    "only", [(A >= 0.5).astype(float), np.full(N, 0.3)], ids=["decisions", "one value"]
)
def test_a_single_system_of_decisions_or_of_one_value_has_a_caution(only):
    assert len(kinds_of_notes(A=only)) == 1


def test_logits_are_asked_about_and_give_the_figures_of_their_ranks_if_the_user_says_so():
    logits = pd.Series(np.log(A / (1 - A)), index=IDS)
    other = pd.Series(B, index=IDS)
    options = {"truth": TRUTH, "replicates": 100}
    with pytest.raises(cxr_compare.InputError, match="row 0"):
        cxr_compare.compare({"A": logits, "B": other}, **options)
    named = {**options, "columns": ["A.score=score"]}
    of_logits = cxr_compare.compare({"A": logits, "B": other}, **named)
    of_scores = cxr_compare.compare({"A": pd.Series(A, index=IDS), "B": other}, **options)
    pd.testing.assert_frame_equal(of_logits.table, of_scores.table)
    assert len([text for text in of_logits.cautions if "ranks" in text]) == 1
    with pytest.raises(cxr_compare.InputError, match="A"):
        cxr_compare.compare({"A": logits}, policy=["threshold=0.5"], **named)


def test_net_benefit_needs_probabilities():
    with pytest.raises(cxr_compare.InputError, match="row 1"):
        cxr_compare.metrics.net_benefit([0, 1], [0.2, 1.4], 0.5)
