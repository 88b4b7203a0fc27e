"""Counts of decisions at many thresholds, for the sliders of the report page."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.compare.comparison import Comparison
from cxr_compare.evaluation.metrics.policy_text import policy_text

_MOST_STEPS = 400
"""Largest number of positions of a slider; a screen cannot show more."""


def exploration(comparison: Comparison) -> tuple[dict[str, Any], pd.DataFrame]:
    """Count decisions at many thresholds, for sliders on the page of a report.

    Args:
        comparison: Result of comparing systems (detectors or classifiers): metrics with intervals,
            tests, and the decision of each system on each test image.

    Returns:
        The data for the page's script, and a table with one row for each image and one column for
        each system. The data are the numbers of ``positives`` and ``negatives``, and for each
        system (``systems``) its thresholds with the counts at each (``steps``), and the rules for
        thresholds in words (``policies``). The table holds the number, from 0, of the highest
        threshold that the score of the image reaches; -1 if it reaches none, NaN without a score.
    """
    thresholds = {name: result.thresholds for name, result in comparison.systems.items()}
    counts, places = explore_thresholds(comparison.decisions, comparison.names, thresholds)
    policy_texts = {policy: policy_text(policy) for policy in comparison.policies}
    return counts | {"systems": comparison.names, "policies": policy_texts}, places


def explore_thresholds(
    decisions: pd.DataFrame,
    systems: list[str],
    thresholds: Mapping[str, Mapping[str, float | None]],
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Count true and false positives of each system at up to some hundred thresholds.

    The thresholds of a system are numbered in rising order from 0; a slider moves over these
    numbers. For each image, the table holds the number of the highest threshold that its score
    reaches, so the page needs no scores. The chosen thresholds are among them, so that the counts
    agree with the report's tables. Images with an unknown label are left out.

    Args:
        decisions: One row for each image and system, with ``image_id``, ``system``, ``label`` and
            ``score``.
        systems: Names of the systems (detectors and classifiers).
        thresholds: For each system, the chosen threshold by the rule that chose it, such as
            ``max_f1``; None where there is no threshold.

    Returns:
        The counts for the page's script (``positives``, ``negatives``, and ``steps`` with a
        dictionary for each system: thresholds ``at``, ``tp`` and ``fp`` at each, and numbers
        ``frozen`` of the chosen thresholds), and a table with one row for each image and one column
        for each system: the number of a threshold, -1 if the score is below all thresholds, NaN
        without a score.
    """
    rows = decisions[decisions["label"].notna()].drop_duplicates(["image_id", "system"])
    labels = rows.drop_duplicates("image_id").set_index("image_id")["label"].sort_index() >= 1
    wide = rows.pivot(index="image_id", columns="system", values="score")
    scores = wide.reindex(index=labels.index, columns=systems).to_numpy(dtype=np.float64)
    truth = labels.to_numpy(dtype=bool)
    steps = []
    places = pd.DataFrame(index=labels.index.astype(str))
    for column, name in zip(scores.T, systems, strict=True):
        frozen = {
            key: value for key, value in thresholds.get(name, {}).items() if value is not None
        }
        seen = np.unique(column[~np.isnan(column)])
        if len(seen) > _MOST_STEPS:  # only some are taken, evenly by rank
            ranks = np.linspace(0, len(seen) - 1, _MOST_STEPS).round().astype(int)
            seen = seen[np.unique(ranks)]
        at = np.union1d(seen, np.array([*frozen.values()], np.float64))
        place = np.searchsorted(at, column, side="right") - 1
        steps.append(_steps(at, place, truth, ~np.isnan(column), frozen))
        places[name] = np.where(np.isnan(column), np.nan, place)
    counts = {"positives": int(truth.sum()), "negatives": int((~truth).sum()), "steps": steps}
    return counts, places


def _steps(
    at: npt.NDArray[np.float64],
    place: npt.NDArray[np.intp],
    truth: npt.NDArray[np.bool_],
    scored: npt.NDArray[np.bool_],
    frozen: dict[str, float],
) -> dict[str, Any]:
    """Return the counts at each step; an image is positive at every step up to its own step."""

    def called(chosen: npt.NDArray[np.bool_]) -> list[int]:
        counts = np.bincount(place[chosen & scored & (place >= 0)], minlength=len(at))
        return [int(count) for count in counts[::-1].cumsum()[::-1]]

    rising = at.tolist()
    return {
        "at": [float(f"{value:.6g}") for value in rising],
        "tp": called(truth),
        "fp": called(~truth),
        "frozen": {policy: bisect.bisect_left(rising, value) for policy, value in frozen.items()},
    }
