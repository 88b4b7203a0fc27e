"""Designs of a primary figure that the user chose (``--metric``), and of margins in it.

In designs `metric-...` two systems are equal in that figure. In all others the true difference is
known, and a margin is exactly as large.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np

from cxr_compare.evaluation.policies import is_given, parse, threshold_of
from tools.simulation import claims, designs
from tools.simulation.designs import Design, Drawn, Known
from tools.simulation.draw import Law, draw
from tools.simulation.quick import claim_of, verdict_of

_TRUTH = 2027  # seed of the images that true differences are computed from
_KEPT = 0.7
"""Share of its boxes that a detector keeps which is worse."""
_OF_BOXES = {"ap50": "ap50", "ap": "ap", "froc": "froc_mean", "pointing": "pointing_accuracy"}
"""Figures of boxes, by the end of the names of their designs."""


def in_figure(rng: np.random.Generator, law: Law, metric: str, policy: str = "") -> Drawn:
    """Draw scores of two systems whose true difference in a figure is the margin, if any."""
    gap = _true_gap(law, metric, policy)
    return _with_gap(designs.scores(rng, law), gap, metric, policy)


def equal_detectors(rng: np.random.Generator, law: Law, metric: str) -> Drawn:
    """Draw the boxes of two equal detectors, which one figure compares."""
    return _with_gap(designs.detectors(rng, law), 0.0, metric)


def weaker_detector(rng: np.random.Generator, law: Law, metric: str) -> Drawn:
    """Draw the boxes of two detectors, of which the second lost some, whatever their scores."""
    return _with_gap(_with_lost_boxes(rng, law), _box_gaps(law)[metric], metric)


def _with_gap(drawn: Drawn, gap: float, metric: str, policy: str = "") -> Drawn:
    margin = {"margin": abs(gap)} if gap else {}
    drawn.options |= {"metric": metric, **margin, **({"policy": policy} if policy else {})}
    return drawn


def _with_lost_boxes(rng: np.random.Generator, law: Law) -> Drawn:
    drawn = designs.detectors(rng, law)
    boxes = drawn.systems["B"]
    is_kept = rng.random(len(boxes)) < _KEPT
    drawn.systems["B"] = boxes[is_kept].reset_index(drop=True)
    drawn.known = replace(drawn.known, auroc={"A": 0.94, "B": 0.9})
    return drawn


@cache
def _true_gap(law: Law, metric: str, policy: str) -> float:
    """Return how much higher the figure of the first system is in all patients.

    At a policy it is the mean over the thresholds that validation images choose.
    """
    if law.auroc[0] == law.auroc[1]:
        return 0.0
    known = [Known({"A": auroc}, replace(law, auroc=(auroc,))) for auroc in law.auroc]
    if metric == "auroc":
        return law.auroc[0] - law.auroc[1]
    if metric == "average_precision":
        first, second = (each.average_precision() for each in known)
        return first - second
    rng = np.random.default_rng(_TRUTH)
    gaps = []
    for _ in range(1 if is_given(policy) else 1500):
        thresholds = _chosen(rng, law, policy)
        if not np.isnan(thresholds).any():
            first, second = (
                each.rates(threshold)[metric]
                for each, threshold in zip(known, thresholds, strict=True)
            )
            gaps.append(first - second)
    return float(np.mean(gaps))


def _chosen(rng: np.random.Generator, law: Law, policy: str) -> list[float]:
    """Return the threshold of each system that is stated, or that drawn images choose."""
    if is_given(policy):
        return [parse(policy).value] * len(law.auroc)
    sample = draw(rng, law, law.validation)
    chosen = [threshold_of(sample.positive, values, policy)[0] for values in sample.scores]
    return [np.nan if value is None else value for value in chosen]


@cache
def _box_gaps(law: Law, sets: int = 50) -> dict[str, float]:
    """Return how much higher each figure of boxes of the first detector is, on many images."""
    rng = np.random.default_rng(_TRUTH)
    seen = []
    for _ in range(sets):
        drawn = _with_lost_boxes(rng, replace(law, patients=800, validation=0))
        table = verdict_of(drawn, designs.FEWEST).figures
        rows = table[(table["first"] == "A") & (table["second"] == "B")].set_index("metric")
        seen.append(rows["estimate"])
    return {name: float(np.mean([each[name] for each in seen])) for name in _OF_BOXES.values()}


def headline(result: Any, known: Known) -> claims.Counted:
    """Count a headline that calls an equal or a worse system higher, by the primary figure."""
    (claim,) = (each for each in result.answer.claims if each.family == "answer")
    is_false = bool(claim.higher) and claim.higher != known.better("A", "B")
    return {f"metric answer @ {claim.metric}": is_false}


def decisions(result: Any, known: Known) -> claims.Counted:
    """Count false decisions by a margin that is the true difference in the primary figure."""
    figure = result.answer.margin
    metric = figure["metric"]
    of = figure["decisions"]
    return claims.margin(of, known, metric) | claims.worse(of, known, metric)


_POLICY_OF = {
    "f1": "max_f1",
    "accuracy": "threshold=0.7",
    "mcc": "specificity>=0.90",
}

DESIGNS: dict[str, Design] = {
    # Two equal systems, or detectors, and one figure that decides.
    **{
        f"metric-{name}": Design(
            partial(in_figure, law=law, metric=metric, policy=_POLICY_OF.get(metric, "")),
            (headline,),
            report=claim_of,
        )
        for name, metric, law in (
            ("f1", "f1", Law(patients=80, validation=60, images="1-3")),
            ("accuracy", "accuracy", Law(patients=60, images="rsna")),
            ("mcc", "mcc", Law(patients=100, validation=80)),
            ("precision", "average_precision", Law(patients=100, positive=0.1)),
        )
    },
    **{
        f"metric-{name}": Design(
            partial(equal_detectors, law=Law(patients=80, images="1-3"), metric=metric),
            (headline,),
            report=claim_of,
        )
        for name, metric in _OF_BOXES.items()
    },
    # The second system is worse by the margin in the figure that decides.
    **{
        f"margin-{name}": Design(
            partial(in_figure, law=law, metric=metric, policy=policy),
            (decisions,),
        )
        for name, metric, policy, law in (
            ("f1", "f1", "threshold=0.7", Law((0.85, 0.78), 150, images="1-3")),
            ("f1-chosen", "f1", "max_f1", Law((0.85, 0.78), 120, 100, "1-3")),
            ("accuracy", "accuracy", "threshold=0.7", Law((0.90, 0.80), 100, images="rsna")),
            ("balanced", "balanced_accuracy", "youden", Law((0.85, 0.78), 150, 100)),
            ("precision", "average_precision", "", Law((0.88, 0.80), 150, positive=0.2)),
        )
    },
    **{
        f"margin-{name}": Design(
            partial(weaker_detector, law=Law(patients=100), metric=metric),
            (decisions,),
        )
        for name, metric in _OF_BOXES.items()
    },
    # The reference is the worse one.
    "margin-better": Design(
        partial(designs.worse_by_the_margin, law=Law((0.80, 0.85), 150, images="rsna")),
        (claims.margin,),
        report=designs.margin_decisions,
    ),
}
