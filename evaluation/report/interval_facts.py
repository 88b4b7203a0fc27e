"""Methods of the intervals and tests of a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.figure_intervals import BIAS_CORRECTED
from cxr_compare.evaluation.figures import Figure, Figures, IntervalKind
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.registry import METRICS


@dataclass(frozen=True)
class IntervalFacts:
    """Methods by which the intervals and tests of a report were computed, for its methods section.

    Attributes:
        single: Kinds of the intervals of single systems, as `Figure.kind` lists them.
        paired: Kinds of the intervals of differences between two systems.
        replicates: Number of bootstrap resamples; None if there was no bootstrap.
        refitted: True if, for at least one interval, thresholds were chosen again in each resample.
        fixed: Choices on validation images, such as a threshold, that are not repeated in each
            resample; the intervals do not include their uncertainty.
        tested: True if differences were tested.
        families: Number of comparisons that Holm's correction covers together, by name: ``answer``
            (the main conclusion), ``findings`` (sentences below it), ``joint`` (a joint system and
            all of its members in the primary figure), ``joint_findings`` (the same in further
            figures), ``margin`` (differences from the reference and the margin) and ``groups``
            (groups of images). Empty groups of comparisons are left out.
        has_thresholds: True if at least one system has a threshold.
        chosen: True if the threshold of at least one system was chosen on validation images.
        chance: True if an AUROC was tested against that of random scores.
        lowered: True if the lower end of an average precision allows for its bias.
        hits: Rules by which boxes and points hit lesions, as families of metrics: ``froc_iou``,
            ``froc_centre``, ``coco``, ``rsna``, ``vinbigdata`` and ``point``.
    """

    single: frozenset[IntervalKind]
    paired: frozenset[IntervalKind]
    replicates: int | None
    refitted: bool
    fixed: tuple[str, ...]
    tested: bool
    families: Mapping[str, int]
    has_thresholds: bool
    chosen: bool
    chance: bool
    lowered: bool
    hits: frozenset[str]

    @property
    def all(self) -> frozenset[IntervalKind]:
        """Kinds of all intervals, of single systems and of differences."""
        return self.single | self.paired

    @classmethod
    def from_comparison(cls, comparison: Comparison) -> IntervalFacts:
        """Collect the methods by which the intervals and tests of a comparison were computed.

        They are those of the metrics on all test images and of the tests.
        """
        figures = comparison.figures
        single = _bounded(figures, "system")
        paired = _bounded(figures, "difference")
        has_thresholds: dict[str, bool] = {}
        for system in comparison.systems.values():
            for policy, value in system.thresholds.items():
                has_thresholds[policy] = has_thresholds.get(policy, False) or value is not None
        figures_with_ends = [*single, *paired]
        return cls(
            single=frozenset(figure.kind for figure in single if figure.kind is not None),
            paired=frozenset(figure.kind for figure in paired if figure.kind is not None),
            replicates=comparison.replicates,
            refitted=any(figure.refitted for figure in figures_with_ends),
            fixed=_fixed_choices(comparison, figures_with_ends),
            tested=any(figure.p_value is not None for figure in paired),
            families=_families(comparison),
            has_thresholds=any(has_thresholds.values()),
            chosen=any(
                is_known and not policy.startswith("threshold=")
                for policy, is_known in has_thresholds.items()
            ),
            chance=any(figures.get(name, "auroc").p_value is not None for name in figures.systems),
            lowered=any(BIAS_CORRECTED in figure.method for figure in single),
            hits=frozenset(
                METRICS[key.metric].family.removesuffix("_decided")
                for _, _, key, figure in figures
                if figure.known and key.metric in METRICS and METRICS[key.metric].boxed
            ),
        )


def _fixed_choices(comparison: Comparison, figures: Sequence[Figure]) -> tuple[str, ...]:
    """Name the choices of validation that no resample made again."""
    choices = [choice for figure in figures for choice in figure.choices.items()]
    names = [name for name, made_again in choices if not made_again]
    for record in comparison.records.values():
        decision = record.get("decision") or {}
        if decision.get("reduction") and decision.get("tried"):
            names.append("rule from boxes to an image score")
    return tuple(dict.fromkeys(names))


def is_calibrated(record: Mapping[str, Any]) -> bool:
    """Return True if the scores of a system were calibrated on validation images, by its record.

    Example:
        >>> is_calibrated({"decision": {"calibration": {"method": "platt"}}})
        True
        >>> is_calibrated({"decision": {"calibration": {"method": "none"}}})
        False
    """
    calibration = (record.get("decision") or {}).get("calibration") or {"method": "none"}
    return str(calibration["method"]) != "none"


def _families(comparison: Comparison) -> dict[str, int]:
    """Count the comparisons of each family of claims, without families that have none."""
    answer = comparison.answer
    joint, joint_findings = answer.joint_families
    margins = [each.claims[0] for each in answer.conclusions if each.kind == "margin"]
    sizes = {
        "answer": sum(claim.difference.bounded for claim in answer.claims),
        "findings": sum(claim.difference.bounded for claim in answer.further_claims),
        "joint": len(joint),
        "joint_findings": len(joint_findings),
        "margin": sum(claim.difference.bounded for claim in margins),
        "groups": int(comparison.groups.get("p_holm", pd.Series(dtype=float)).notna().sum()),
    }
    return {name: size for name, size in sizes.items() if size}


def _bounded(figures: Figures, kind: str) -> list[Figure]:
    """Return the figures of systems, or the differences of two, that have an interval.

    They are those on all images together, without image-blind baselines.
    """
    names = set(figures.systems)
    return [
        figure
        for first, second, key, figure in figures
        if figures.kind(first, second) == kind
        and {first, second} - {""} <= names
        and key.subgroup == ALL
        and figure.kind is not None
    ]
