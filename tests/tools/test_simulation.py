"""The simulations run, and count what a report says."""

from __future__ import annotations

import numpy as np
import pytest

from tools.simulation.__main__ import (
    designs,
    kept,
    questions,
    run,
    summarise,
)
from tools.simulation.claims import CLAIMS, Truth, run_compare
from tools.simulation.designs import Design, Drawn, core_designs, in_group
from tools.simulation.draw import draw, skill_of

LARGE = Design("large differences", (), (0.97, 0.6), 150, 100, images="1-3")


@pytest.mark.parametrize(
    "part",
    [
        "AUROC, 60 patients, one image, 4",
        "label is noise, 142",
    ],
)
def test_a_design_counts_every_set_under_a_known_question(part: str) -> None:
    name = next(name for name in designs() if name.startswith(part))
    found = run(name, sets=2, seed=16)["found"]
    assert found
    for key, share in found.items():
        assert key.partition(" @ ")[0] in questions()
        assert 0 <= share["mean"] <= 1
        assert share["n"] <= 2


def test_every_design_counts_claims_that_exist() -> None:
    assert all(set(design.claims) <= set(CLAIMS) for design in core_designs())
    assert len({design.name for design in core_designs()}) == len(core_designs())


@pytest.fixture(scope="module")
def large():
    """The report of a true difference that no test can miss."""
    return run_compare(LARGE.drawn(np.random.default_rng(5)), {}, 200)


def test_claims_of_a_report_are_seen(large) -> None:
    right = CLAIMS["power"](large, Truth(LARGE))
    assert right["power headline"] == right["power mark"] == right["power dot"] == 1
    assert right["wrong direction"] == 0
    # Of systems that are equal in truth, the same report would be wrong.
    equal = Truth(Design("equal", (), (0.8, 0.8)))
    assert CLAIMS["headline"](large, equal) == {"headline": 1.0}
    assert CLAIMS["sentences"](large, equal) == {"sentence": 1.0}
    assert CLAIMS["box_findings"](large, equal) == {"finding of boxes": 1.0}
    assert CLAIMS["marks"](large, equal)["mark"] == 1
    assert 1 in CLAIMS["rate_differences"](large, equal).values()


def test_a_group_that_differs_is_seen() -> None:
    def guessed_in_group(rng: np.random.Generator, drawn: Drawn) -> None:
        in_group(rng, drawn, share=0.4, by_image=False)
        inside = drawn.truth["sex"].to_numpy() == "F"
        for name, scores in drawn.systems.items():
            drawn.systems[name] = scores.where(~inside, rng.random(len(scores)))

    design = Design("group", (), (0.97, 0.97), 600, 100, changes=(guessed_in_group,))
    report = run_compare(design.drawn(np.random.default_rng(2)), {}, 100)
    assert CLAIMS["groups"](report, Truth(design)) == {"group": 1.0}
    assert CLAIMS["groups_by_auroc"](report, Truth(design)) == {"group @ auroc": 1.0}


def test_a_system_that_guesses_is_told_from_one_that_does_not() -> None:
    for auroc, key, shown in ((0.97, "power chance", 1), (0.5, "better than chance", 0)):
        design = Design("one", (), (auroc,), 150)
        report = run_compare(design.drawn(np.random.default_rng(1)), {}, 100)
        assert CLAIMS["chance"](report, Truth(design)) == {key: shown}


def test_true_rates_at_a_threshold_are_those_of_the_binormal_model() -> None:
    rates = Truth(Design("binormal", (), (0.85,), 400)).rates(0.5)
    assert rates["specificity"] == pytest.approx(0.5, abs=0.01)
    assert rates["recall"] == pytest.approx(0.9286, abs=0.01)
    assert rates["accuracy"] == pytest.approx(0.3 * 0.9286 + 0.7 * 0.5, abs=0.01)
    assert rates["f1"] == pytest.approx(0.6 * 0.9286 / (0.3 + 0.3 * 0.9286 + 0.35), abs=0.01)


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


def test_sets_without_a_value_are_not_counted() -> None:
    found = summarise([{"dot": 1.0}, {"dot": np.nan}, {"dot": 0.0}, {}])
    assert found == {"dot": {"mean": 0.5, "n": 2}}


def test_a_new_result_replaces_that_of_its_design_and_what_names_it() -> None:
    name = "label is noise, 142 images"
    former = {"design": "old", "replaced_by": "is noise", "found": {}}
    other = {"design": "other", "replaced_by": "seeds", "found": {}}
    new = {"design": name, "command": "", "found": {}}
    assert kept([former, other, {**new, "sets": 1}], new) == [new, other]


LIMITS = {
    "AUROC, 150": ("headline", 0.05),
    "folds, 200": ("folds differ", 0.05),
}
"""What a false claim may be of, and how often it may be made, within three standard errors."""


@pytest.mark.long
@pytest.mark.parametrize("part", LIMITS)
def test_false_claims_stay_within_their_limit(part: str) -> None:
    question, limit = LIMITS[part]
    slack = 3 * np.sqrt(limit * (1 - limit) / 200)
    for name in (name for name in designs() if name.startswith(part)):
        for key, share in run(name, 200, seed=17)["found"].items():
            if key.partition(" @ ")[0] == question:
                assert share["mean"] <= limit + slack, (name, key, share)
