"""Designs of sentences on scores, lesions and places: each is false of the systems drawn here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import expit, logit

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.groups.lesions import lesion_table
from tools.simulation import claims, designs
from tools.simulation.designs import Design, Drawn, Known
from tools.simulation.draw import Law
from tools.simulation.quick import scores_of, verdict_of

_TRUTH = 2028  # seed of the images that true shares of lesions are computed from
_MANY = 4000  # patients of these images


def other_prevalence(rng: np.random.Generator, law: Law, positive: float) -> Drawn:
    """Draw validation images with another share of positive ones than the test images have."""
    of_test = replace(law, validation=0)
    validation = designs.scores(rng, replace(of_test, patients=law.validation, positive=positive))
    test = designs.scores(rng, of_test)
    roles = {"val": validation, "test": test}
    for role, drawn in roles.items():
        ids = role + "-" + drawn.truth["image_id"]
        patients = role + "-" + drawn.truth["patient_id"]
        drawn.truth = drawn.truth.assign(image_id=ids, patient_id=patients, role=role)
    truth = pd.concat([validation.truth, test.truth], ignore_index=True)
    systems = {
        name: pd.Series(
            np.concatenate([drawn.systems[name].to_numpy() for drawn in roles.values()]),
            truth["image_id"],
        )
        for name in test.systems
    }
    return Drawn(systems, truth, test.known)


def moved_on_test(rng: np.random.Generator, law: Law, step: float) -> Drawn:
    """Draw scores of which those on test images are moved by a step in log-odds."""
    drawn = designs.scores(rng, law)
    return _misread(drawn, "scale", "test", lambda scores: expit(logit(scores) + step))


def turned_on_validation(rng: np.random.Generator, law: Law) -> Drawn:
    """Draw scores of which those on validation images are turned round."""
    return _misread(designs.scores(rng, law), "turned", "val", lambda scores: 1 - scores)


def _misread(drawn: Drawn, name: str, role: str, change: Callable[[pd.Series], pd.Series]) -> Drawn:
    """Change the scores on images of a role, which a report is to notice."""
    is_changed = (drawn.truth["role"] == role).to_numpy()
    for system, scores in drawn.systems.items():
        drawn.systems[system] = scores.mask(is_changed, change(scores))
    drawn.known = replace(drawn.known, misread=name)
    return drawn


_CAUTIONS = {
    "turned": "are they turned round there?",
    "scale": "have another scale on test than on validation images",
}


def said_of_scale(result: Any, known: Known) -> claims.Counted:
    """Count cautions that scores have another scale on test than on validation images."""
    return _said("scale", result, known)


def said_turned(result: Any, known: Known) -> claims.Counted:
    """Count cautions that scores are turned round on validation images."""
    return _said("turned", result, known)


def _said(name: str, result: Any, known: Known) -> claims.Counted:
    kind = "power " if known.misread == name else ""
    return {f"{kind}{name}": any(_CAUTIONS[name] in line for line in result.cautions)}


def lesion_intervals(result: Any, known: Known) -> claims.Counted:
    """Count intervals of lesions found, by group, and of kinds of errors that miss the truth."""
    comparison = result.comparison
    cut = comparison.systems["A"].choices.thresholds[comparison.main_policy]
    true = _true_shares(known.law, round(cut, 2))  # which are smooth in the threshold
    return {
        f"interval lesions @ {name}": not row["ci_low"] <= true[name] <= row["ci_high"]
        for name, row in _shares(lesion_table(comparison))
        if row["ci_low"] == row["ci_low"]
    }


@cache
def _true_shares(law: Law, cut: float) -> dict[str, float]:
    """Return each share of the first system's lesions and errors on many images."""
    comparison = _many_lesions(law)
    system = copy(comparison.systems["A"])  # its boxes stay matched
    system.choices = replace(system.choices, thresholds={comparison.main_policy: cut})
    table = lesion_table(replace(comparison, systems={"A": system}))
    return {name: row["estimate"] for name, row in _shares(table)}


@cache
def _many_lesions(law: Law) -> Comparison:
    drawn = designs.detectors(np.random.default_rng(_TRUTH), replace(law, patients=_MANY))
    comparison: Comparison = verdict_of(drawn, designs.FEWEST).comparison
    return comparison


def _shares(table: pd.DataFrame) -> Iterator[tuple[str, Any]]:
    """Yield the rows of the first system by what they are a share of.

    Sizes, which are thirds of the drawn lesions, are named by their order.
    """
    own = table[table["system"] == "A"]
    order = own.groupby("topic").cumcount()
    for number, row in zip(order, own.to_dict("records"), strict=True):
        group = f"third {number + 1}" if row["topic"] == "lesion size" else row["group"]
        yield " ".join(filter(None, (row["metric"], row["topic"], group))), row


_CLASSES_ALIKE = Law((0.85,), 60, 40, positive=0.15)

DESIGNS: dict[str, Design] = {
    # Honest scores with another prevalence; scores that say nothing; scores that were misread.
    "scale": Design(
        partial(other_prevalence, law=_CLASSES_ALIKE, positive=0.4),
        (said_of_scale,),
        designs.FEWEST,
        report=scores_of,
    ),
    "scale-clusters": Design(
        partial(
            other_prevalence,
            law=replace(_CLASSES_ALIKE, images="1-60", labels_alike=0.8),
            positive=0.3,
        ),
        (said_of_scale,),
        designs.FEWEST,
        report=scores_of,
    ),
    "turned": Design(
        partial(designs.scores, law=Law((0.5,), 60, 30)),
        (said_of_scale, said_turned),
        designs.FEWEST,
        report=scores_of,
    ),
    "turned-clusters": Design(
        partial(designs.scores, law=Law((0.5,), 60, 40, "1-60", labels_alike=0.8)),
        (said_of_scale, said_turned),
        designs.FEWEST,
        report=scores_of,
    ),
    "moved": Design(
        partial(moved_on_test, law=replace(_CLASSES_ALIKE, positive=0.3), step=2.5),
        (said_of_scale,),
        designs.FEWEST,
        report=scores_of,
    ),
    "turned-round": Design(
        partial(turned_on_validation, law=replace(_CLASSES_ALIKE, positive=0.3)),
        (said_turned,),
        designs.FEWEST,
        report=scores_of,
    ),
    # Lesions found and kinds of errors; places that are as good as the best one.
    "lesions": Design(
        partial(designs.detectors, law=Law(patients=100, validation=60, images="1-3")),
        (lesion_intervals,),
        designs.FEWEST,
    ),
    "places-200": Design(
        partial(
            designs.constant_places,
            law=Law(patients=200, validation=300, in_lungs=True, lesion_side=90.0),
        ),
        (claims.localises, claims.points_less_often),
        designs.FEWEST,
    ),
}
