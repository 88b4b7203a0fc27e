"""AUROC in groups of images, and of systems combined, with the patients' variance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.compare.paired_tests import OBUCHOWSKI
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.shares import WHERE_COLUMNS
from evaluation.metrics.evaluation_set import JudgedImages
from evaluation.statistics.auroc_variance import (
    FEW_PATIENTS,
    AurocParts,
    ClusteredEstimate,
    SeedSpread,
    add_seeds,
    auroc_parts,
    mean_parts,
)
from evaluation.statistics.ranking import Floats


def auroc_of_groups(
    cards: Mapping[str, Sequence[Scorecard]],
    groups: Mapping[str, npt.NDArray[np.object_]],
    judged: JudgedImages,
) -> pd.DataFrame:
    """AUROC in every group, its paired difference between systems, and its gap to the rest.

    Args:
        cards: Per system one scorecard a training seed, the reference first.
        groups: By topic, each image's group.
        judged: The images.

    Returns:
        The columns of `WHERE_COLUMNS`.

    Source:
        Obuchowski 1997; the variance of a gap sums what a patient adds to either group. That
        between training seeds is added, as in `evaluation.statistics.auroc_variance.add_seeds`.
    """
    rows = []
    for topic, of_image in groups.items():
        for group in sorted(set(of_image) - {""}):
            inside = of_image == group
            outside = ~inside & (of_image != "")
            parts = {name: _parts(members, judged, inside) for name, members in cards.items()}
            rest = {name: _parts(members, judged, outside) for name, members in cards.items()}
            known = {name: part for name, part in parts.items() if part is not None}
            count = int((judged.y_true & inside).sum()), int(inside.sum())
            held = len(np.unique(judged.patients[inside]))
            of = {"topic": topic, "group": group}
            for name, part in known.items():
                rows.append(_estimated(part.estimate(), name, of, (*count, held)))
            first = next(iter(cards))
            for second in list(cards)[1:]:
                if first in known and second in known:
                    gap = known[first].minus(known[second])
                    rows.append(_estimated(gap, f"{first} - {second}", of, (*count, held)))
            for name, part in known.items():
                other = rest[name]
                if other is not None:
                    gap = _between_groups(part, other, judged.n_patients)
                    named = of | {"group": f"{group} - rest"}
                    rows.append(_estimated(gap, name, named, (None, None, None)))
    return pd.DataFrame(rows, columns=list(WHERE_COLUMNS))


@dataclass(frozen=True)
class _OfSeeds:
    """The mean over a system's training seeds, and the AUROC of each."""

    mean: AurocParts
    each: tuple[float, ...]

    def estimate(self) -> ClusteredEstimate:
        return self.mean.estimate(SeedSpread.of(self.each))

    def minus(self, other: _OfSeeds) -> ClusteredEstimate:
        """The difference from another system, whose seeds are others."""
        spread = SeedSpread.of(self.each) + SeedSpread.of(other.each)
        return (self.mean - other.mean).estimate(spread)


def _parts(
    members: Sequence[Scorecard], judged: JudgedImages, chosen: npt.NDArray[np.bool_]
) -> _OfSeeds | None:
    each = [
        auroc_parts(
            judged.y_true[chosen], card.scores[chosen], judged.patients[chosen], judged.n_patients
        )
        for card in members
    ]
    known = [part for part in each if part is not None]
    if not known or len(known) < len(each):
        return None
    return _OfSeeds(mean_parts(known), tuple(part.value for part in known))


def _between_groups(one: _OfSeeds, other: _OfSeeds, n_patients: int) -> ClusteredEstimate:
    """Difference of the AUROCs of two groups of images; a patient may be in both.

    A seed is one training in both groups, so it is the gap that differs between seeds.
    """
    value = one.mean.value - other.mean.value
    if one.mean.variance is None or other.mean.variance is None:
        return ClusteredEstimate(value, None, note=FEW_PATIENTS)
    sums = one.mean.sums - other.mean.sums
    variance = float((sums**2).sum()) * n_patients / max(n_patients - 1, 1)
    gaps = [inside - rest for inside, rest in zip(one.each, other.each, strict=True)]
    total, freedom = add_seeds(variance, n_patients - 1, SeedSpread.of(gaps))
    return ClusteredEstimate(value, float(np.sqrt(total)) if total > 0 else None, freedom)


def _estimated(
    estimate: ClusteredEstimate,
    system: str,
    of: Mapping[str, str],
    counts: tuple[int | None, int | None, int | None],
) -> dict[str, Any]:
    low, high = estimate.interval or (np.nan, np.nan)
    return {
        **of,
        "system": system,
        "policy": "",
        "metric": "auroc",
        "estimate": estimate.value,
        "ci_low": low,
        "ci_high": high,
        "ci_method": "" if np.isnan(low) else OBUCHOWSKI,
        "count": counts[0],
        "of": counts[1],
        "n_patients": counts[2],
        "note": estimate.note,
    }


def combined_auroc(
    cards: Mapping[str, Sequence[Scorecard]],
    probabilities: Mapping[str, Floats | None],
    judged: JudgedImages,
) -> pd.DataFrame:
    """AUROC of the mean probability of two systems, and what it gains over each of them.

    Args:
        cards: Per system one scorecard a training seed; the first counts.
        probabilities: Of the first seed of each, calibrated on validation.
        judged: The images.

    Returns:
        The columns of `WHERE_COLUMNS`, topic ``combined``, system ``mean of A and B``.
    """
    rows = []
    of = {"topic": "combined", "group": ""}
    counts = int(judged.y_true.sum()), len(judged.y_true), judged.n_patients
    for pair in combinations(cards, 2):
        one, two = (probabilities[name] for name in pair)
        if one is None or two is None:
            continue
        joined = auroc_parts(judged.y_true, (one + two) / 2, judged.patients, judged.n_patients)
        if joined is None:
            continue
        named = f"mean of {pair[0]} and {pair[1]}"
        rows.append(_estimated(joined.estimate(), named, of, counts))
        for name in pair:
            scores = cards[name][0].scores
            alone = auroc_parts(judged.y_true, scores, judged.patients, judged.n_patients)
            if alone is not None:
                gain = (joined - alone).estimate()
                rows.append(_estimated(gain, f"{named} - {name}", of, counts))
    return pd.DataFrame(rows, columns=list(WHERE_COLUMNS))
