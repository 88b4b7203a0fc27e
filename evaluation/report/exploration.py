"""What the page's script needs to explore other thresholds: counts at some hundred of them."""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.metrics.words import policy_words
from evaluation.report.charts import policies_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluation.compare.comparison import Comparison


_MOST_STEPS = 400
"""Positions of a slider; a screen shows no finer curve."""


def exploration(comparison: Comparison) -> dict[str, Any]:
    """Return what the page's script reads: counts at every threshold."""
    counts, _ = explore_thresholds(comparison)
    return {
        **counts,
        "systems": comparison.names,
        "policies": {policy: policy_words(policy) for policy in policies_of(comparison)},
    }


def explore_thresholds(comparison: Comparison) -> tuple[dict[str, Any], pd.DataFrame]:
    """Return the counts at each step, and each image's place among each system's steps."""
    thresholds = {name: each.thresholds for name, each in comparison.systems.items()}
    return _explore_thresholds(comparison.decisions, comparison.names, thresholds)


def _explore_thresholds(
    decisions: pd.DataFrame,
    systems: list[str],
    thresholds: Mapping[str, Mapping[str, float | None]],
    *,
    most_steps: int = _MOST_STEPS,
) -> tuple[dict[str, Any], pd.DataFrame]:
    """Count, for each system, what is called positive at each of some hundred thresholds.

    A step is a threshold: images with ``score >= threshold`` are positive. An image's place among
    the steps says all about it: it is positive up to there. So the page needs no scores, and its
    counts are those of the tables at every frozen threshold. Places are -1 below the first step
    and NaN without a score; images of unknown truth are left out.

    Example:
        >>> frame = pd.DataFrame(
        ...     {"image_id": list("abc"), "system": "A", "label": [1, 0, 1],
        ...      "score": [0.9, 0.5, 0.2]})
        >>> found, places = _explore_thresholds(frame, ["A"], {"A": {"max_f1": 0.5}})
        >>> found["steps"][0]["at"], found["steps"][0]["tp"], found["steps"][0]["fp"]
        ([0.2, 0.5, 0.9], [2, 1, 1], [1, 1, 0])
        >>> found["steps"][0]["frozen"], places["A"].to_dict()
        ({'max_f1': 1}, {'a': 2.0, 'b': 1.0, 'c': 0.0})
    """
    known = decisions[decisions["label"].notna()].drop_duplicates(["image_id", "system"])
    labels = known.drop_duplicates("image_id").set_index("image_id")["label"].sort_index() >= 1
    wide = known.pivot(index="image_id", columns="system", values="score")
    scores = wide.reindex(index=labels.index, columns=systems).to_numpy(dtype=np.float64)
    truth = labels.to_numpy(dtype=bool)
    steps = []
    places = pd.DataFrame(index=labels.index.astype(str))
    for column, name in zip(scores.T, systems, strict=True):
        frozen = {
            key: value for key, value in thresholds.get(name, {}).items() if value is not None
        }
        at = _thresholds(column, list(frozen.values()), most_steps)
        place = np.searchsorted(at, column, side="right") - 1
        steps.append(_steps(at, place, truth, ~np.isnan(column), frozen))
        places[name] = np.where(np.isnan(column), np.nan, place)
    counts = {
        "positives": int(truth.sum()),
        "negatives": int((~truth).sum()),
        "steps": steps,
    }
    return counts, places


def _thresholds(
    scores: npt.NDArray[np.float64], frozen: list[float], most: int
) -> npt.NDArray[np.float64]:
    """Some of the scores, evenly by rank, and every frozen threshold; rising."""
    seen = np.unique(scores[~np.isnan(scores)])
    if len(seen) > most:
        seen = seen[np.unique(np.linspace(0, len(seen) - 1, most).round().astype(int))]
    return np.unique(np.concatenate([seen, np.asarray(frozen, dtype=np.float64)]))


def _steps(
    at: npt.NDArray[np.float64],
    place: npt.NDArray[np.intp],
    truth: npt.NDArray[np.bool_],
    scored: npt.NDArray[np.bool_],
    frozen: dict[str, float],
) -> dict[str, Any]:
    """Counts at each step: an image is positive at every step up to its place."""

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
