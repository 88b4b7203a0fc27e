"""Sentences on what systems reach at a threshold that the user gave."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import score_text

_GIVEN = "threshold="
GIVEN_METRICS = {"recall": "sensitivity", "specificity": "specificity", "f1": "F1"}
"""Metrics that a sentence on a threshold names, with their words."""


def given_threshold_lines(figures: pd.DataFrame) -> list[str]:
    """Return a sentence for each threshold that was given beforehand.

    Such a threshold was not chosen on validation images. The headline of a comparison says nothing
    about it.

    Args:
        figures: Table with the columns ``first`` (a system), ``metric``, ``policy`` (rule by which
            the threshold was chosen, such as ``threshold=0.5``), ``subgroup`` and ``estimate``.

    Returns:
        One line for each given threshold, with the figures of all systems.

    Example:
        >>> row = {"first": "A", "second": "", "policy": "threshold=0.5", "subgroup": "all"}
        >>> figures = [{**row, "metric": "recall", "estimate": 0.75}]
        >>> (line,) = given_threshold_lines(pd.DataFrame(figures))
        >>> line.partition(": ")[2]
        'A has sensitivity 0.750.'
    """
    rows = figures[(figures["subgroup"] == "all") & figures["metric"].isin(list(GIVEN_METRICS))]
    if "unit" in rows:
        rows = rows[rows["unit"] == "image"]
    lines = []
    for policy in rows["policy"].dropna().unique():
        if not str(policy).startswith(_GIVEN):
            continue
        of_systems = []
        at_policy = rows[rows["policy"] == policy]
        for system in at_policy["first"].unique():
            estimates = at_policy[at_policy["first"] == system].set_index("metric")["estimate"]
            known = estimates.dropna()
            parts = _figure_texts(known.to_dict())
            if parts:
                of_systems.append(f"{system} has {listing(parts)}")
        if of_systems:
            threshold = str(policy).removeprefix(_GIVEN)
            lines.append(
                f"At the given threshold {threshold}, which was not chosen on validation images: "
                f"{'; '.join(of_systems)}."
            )
    return lines


def declared_threshold_line(
    system: str, threshold: float, aim: str, source: str, figures: Mapping[str, float | None]
) -> str:
    """Say what a system reaches at the threshold that was declared for it, and by which source."""
    reached = listing(_figure_texts(figures)) or "no figures"
    return (
        f"At its declared threshold {score_text(threshold)} ({aim}; {source}), {system} has "
        f"{reached}."
    )


def _figure_texts(figures: Mapping[str, float | None]) -> list[str]:
    """Return the known figures with their words, such as "sensitivity 0.900"."""
    values = {name: figures.get(name) for name in GIVEN_METRICS}
    return [
        f"{GIVEN_METRICS[name]} {value:.3f}"
        for name, value in values.items()
        if value is not None and value == value
    ]
