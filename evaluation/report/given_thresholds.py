"""Sentences on what systems reach at thresholds that were not chosen on validation images."""

from __future__ import annotations

from cxr_compare.evaluation.comparison import Comparison
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number, score_text
from cxr_compare.evaluation.thresholds import DECLARED

_GIVEN = "threshold="
_METRICS = {"recall": "sensitivity", "specificity": "specificity", "f1": "F1"}


def given_threshold_lines(comparison: Comparison) -> list[str]:
    """Return a sentence for each threshold that was given, and each that was declared for a system.

    The headline of a comparison says nothing about them.
    """
    lines = []
    for policy in comparison.policies:
        if policy.startswith(_GIVEN):
            reached = {name: _reached(comparison, name, policy) for name in comparison.names}
            parts = [f"{name} has {text}" for name, text in reached.items() if text]
            if not parts:
                continue
            lines.append(
                f"At the given threshold {policy.removeprefix(_GIVEN)}, which was not chosen on "
                f"validation images: {'; '.join(parts)}."
            )
    for model, declared in comparison.declared.items():
        system = model if model in comparison.systems else model.rpartition(" #")[0]
        lines.append(
            f"At its declared threshold {score_text(declared.threshold)} ({declared.name}; "
            f"{declared.source}), {model} has "
            f"{_reached(comparison, system, DECLARED) or 'no figures'}."
        )
    return lines


def _reached(comparison: Comparison, system: str, policy: str) -> str:
    """Return the known figures of a system with their words, such as "sensitivity 0.900"."""
    figures = {
        title: comparison.figures.get(system, metric, policy) for metric, title in _METRICS.items()
    }
    return listing(
        [f"{title} {number(each.estimate)}" for title, each in figures.items() if each.known]
    )
