"""Sentences on what systems reach at a threshold that the user gave."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.metrics.prose import listing

_GIVEN = "threshold="
_SHOWN = {"recall": "sensitivity", "specificity": "specificity", "f1": "F1"}


def given_threshold_lines(figures: pd.DataFrame) -> list[str]:
    """Return a sentence for each threshold that was given beforehand.

    Such a threshold was not chosen on validation images. The headline of a comparison says nothing
    about it.

    Args:
        figures: Table with the columns ``system``, ``metric``, ``policy`` (rule by which the
            threshold was chosen, such as ``threshold=0.5``), ``subgroup`` and ``estimate``.

    Returns:
        One line for each given threshold, with the figures of all systems.

    Example:
        >>> row = {"system": "A", "policy": "threshold=0.5", "subgroup": "all"}
        >>> figures = [{**row, "metric": "recall", "estimate": 0.75}]
        >>> (line,) = given_threshold_lines(pd.DataFrame(figures))
        >>> line.partition(": ")[2]
        'A has sensitivity 0.750.'
    """
    rows = figures[(figures["subgroup"] == "all") & figures["metric"].isin(list(_SHOWN))]
    if "unit" in rows:
        rows = rows[rows["unit"] == "image"]
    lines = []
    for policy in rows["policy"].dropna().unique():
        if not str(policy).startswith(_GIVEN):
            continue
        of_systems = []
        at_policy = rows[rows["policy"] == policy]
        for system in at_policy["system"].unique():
            estimates = at_policy[at_policy["system"] == system].set_index("metric")["estimate"]
            known = estimates.dropna()
            parts = [f"{text} {known[name]:.3f}" for name, text in _SHOWN.items() if name in known]
            if parts:
                of_systems.append(f"{system} has {listing(parts)}")
        if of_systems:
            threshold = str(policy).removeprefix(_GIVEN)
            lines.append(
                f"At the given threshold {threshold}, which was not chosen on validation images: "
                f"{'; '.join(of_systems)}."
            )
    return lines
