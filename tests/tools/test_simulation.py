"""The simulations run, what they say is on the page, and claims stay within their limits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tools.simulation.__main__ import RESULTS, run
from tools.simulation.designs import DESIGNS, Case
from tools.simulation.makers import draw, skill_of
from tools.simulation.tables import every_row, with_tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "validity.md"
QUICK = {
    "several": "3 systems, 150 / 60 patients", "power": None, "chance": None,
    "risk_control": "sensitivity, rsna, 0.4",
}  # fmt: skip


def cases(design: str, name: str | None = None) -> list[Case]:
    """The cases of a design, or the one of a name."""
    return [case for case in DESIGNS[design]() if name in (None, case.name)]


@pytest.mark.parametrize("design", QUICK)
def test_a_small_run_gives_shares_with_their_errors(design: str) -> None:
    shares = run(cases(design, QUICK[design])[0], sets=2, seed=16)
    keys = {"several": "any", "power": "auroc right", "chance": "caution"}
    assert shares[keys.get(design, "patients|broken")]["n"] == 2
    assert all(0 <= share["mean"] <= 1 and share["n"] <= 2 for share in shares.values())


def test_simulated_scores_have_the_requested_auroc_and_correlation() -> None:
    sample = draw(np.random.default_rng(0), 20_000, [[skill_of(0.85)]] * 2, clusters="rsna")
    positive, negative = (
        sample.scores[0, selected] for selected in (sample.y_true, ~sample.y_true)
    )
    below = np.searchsorted(np.sort(negative), positive).mean() / len(negative)
    assert below == pytest.approx(0.85, abs=0.01)
    assert sample.y_true.mean() == pytest.approx(0.3, abs=0.02)
    noise = np.log(sample.scores / (1 - sample.scores)) - skill_of(0.85) * sample.y_true
    assert np.corrcoef(noise)[0, 1] == pytest.approx(0.5, abs=0.02)
    neighbours = np.flatnonzero(np.diff(sample.patients) == 0)
    alike = np.corrcoef(noise[0, neighbours], noise[0, neighbours + 1])[0, 1]
    assert alike == pytest.approx(0.4, abs=0.03)


@pytest.mark.parametrize("name", ["validity", "guarantees"])
def test_the_page_shows_the_stored_results(name: str) -> None:
    path, results = PAGE.with_stem(name), json.loads(RESULTS.read_text())
    page = path.read_text()
    written = with_tables(page, results, name), every_row(results)
    assert written == (page, PAGE.with_suffix(".csv").read_text()), (
        f"run python -m tools.simulation --only-write --out docs/{name}.md"
    )


LIMITS = {
    "thresholds": ({"headline", "recall", "specificity", "f1", "accuracy"}, 0.05),
    "auroc": ({"headline"}, 0.06),
    "seeds": ({"auroc", "recall", "specificity", "f1", "accuracy"}, 0.06),
    "several": ({"headline", "finding"}, 0.05),
    "readers": ({"auroc", "recall", "specificity"}, 0.06),
    "reader_model": ({"any claim"}, 0.06),
    "nested_readers": ({"any claim"}, 0.07),
    "risk_control": ({"patients|broken", "ppv|broken", "both|broken", "marks|broken"}, 0.10),
}
"""What a false claim may be of, and how often it may be made, within three standard errors."""


@pytest.mark.long
@pytest.mark.parametrize("design", LIMITS)
def test_false_claims_by_sampling_error_stay_within_their_limit(design: str) -> None:
    names, limit = LIMITS[design]
    sets = 200
    slack = 3 * np.sqrt(limit * (1 - limit) / sets)
    for case in cases(design):
        for key, result in run(case, sets, seed=17).items():
            if names & {key, key.split("|")[-1]}:
                assert result["mean"] <= limit + slack, (case.name, key, result)
