"""Shares of images or lesions, by group and system, with intervals for groups and gaps alike.

Whatever is a count over a count is summed by patient once; every resample is then one product of
matrices, however many shares there are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from evaluation.statistics.bca import Jackknife, Resampled, left_out_weights
from evaluation.statistics.bootstrap import Resamples, cluster_bootstrap, over_chunks
from evaluation.statistics.ranking import Floats

WHERE_COLUMNS = (
    "topic", "group", "system", "policy", "metric", "estimate", "ci_low", "ci_high", "ci_method",
    "count", "of", "n_patients", "note",
)  # fmt: skip
NONE_OF_THEM = "there is none of them"


class ShareName(NamedTuple):
    """What a share is of: topic, group (such as ``F``), policy and metric."""

    topic: str
    group: str
    policy: str
    metric: str


Key = tuple[str, ShareName]
"""A system and what a share is of; a share without a topic only serves others."""


class Derived(NamedTuple):
    """A figure that follows from shares: its key, the shares, the function of them."""

    key: Key
    of: Sequence[Key]
    compute: Callable[..., Floats]


@dataclass
class Shares:
    """Counts over counts, by patient, of several systems.

    Attributes:
        n_patients: How many patients are resampled.
        gaps: Topics whose groups are also held against the rest, as ``not GROUP`` in the same
            topic.
        derived: Figures that follow from shares.
    """

    n_patients: int
    gaps: set[str] = field(default_factory=set)
    derived: list[Derived] = field(default_factory=list)
    _tops: dict[Key, Floats] = field(default_factory=dict)
    _bottoms: dict[Key, Floats] = field(default_factory=dict)

    def add(
        self,
        system: str,
        name: ShareName,
        counted: npt.ArrayLike,
        of: npt.ArrayLike,
        patients: npt.NDArray[np.integer[Any]],
    ) -> None:
        """Add a share of images or lesions.

        Args:
            system: Which system.
            name: What the share is of.
            counted: What counts, shape ``(N,)``: 0 or 1, a number, or a mean over seeds.
            of: Of what, shape ``(N,)``.
            patients: Patient of each, shape ``(N,)``.
        """
        for store, values in ((self._tops, counted), (self._bottoms, of)):
            weights = np.asarray(values, dtype=np.float64)
            sums = np.bincount(patients, weights, minlength=self.n_patients)
            store[system, name] = np.asarray(sums, dtype=np.float64)

    def table(self, systems: Sequence[str], resamples: Resamples) -> pd.DataFrame:
        """Estimate every share, its paired difference to the first system's, and its gap.

        Args:
            systems: Names, the reference first.
            resamples: As for the other figures.

        Returns:
            The columns of `WHERE_COLUMNS`. A difference between systems has system ``A - B``, a
            gap between a group and all others of its topic has group ``F - rest``.
        """
        keys = list(self._tops)
        if not keys:
            return pd.DataFrame(columns=list(WHERE_COLUMNS))
        tops = np.stack([self._tops[key] for key in keys], axis=1)
        # Many shares are of the same images: every distinct denominator is summed once.
        places: dict[bytes, int] = {}
        of = [places.setdefault(self._bottoms[key].tobytes(), len(places)) for key in keys]
        bottoms = np.stack([np.frombuffer(each) for each in places], axis=1)
        whole = _ratios(np.ones((1, self.n_patients)), tops, bottoms, of)[0]
        resampled = _resampled(tops, bottoms, of, resamples)
        values = {key: (float(whole[i]), resampled[i]) for i, key in enumerate(keys)}
        for derived in self.derived:
            parts = [values[key] for key in derived.of]
            estimate = float(derived.compute(*(part[0] for part in parts)))
            drawn = Resampled.derived(derived.compute, [part[1] for part in parts])
            values[derived.key] = estimate, drawn
        keys = [key for key in values if key[1].topic]
        rows = []
        for key in keys:
            counts = self._counts_of(key)
            rows.append(_row(*key, *values[key], resamples, counts))
        for first, name in keys:
            others = systems[1:] if first == systems[0] else ()
            rows += [
                _gap(values, first, second, name, name, resamples)
                for second in others
                if (second, name) in values
            ]
        for system, name in keys:
            rest = name._replace(group=f"not {name.group}")
            if name.topic in self.gaps and (system, rest) in values:
                rows.append(_gap(values, system, system, name, rest, resamples))
        return pd.DataFrame(rows, columns=list(WHERE_COLUMNS))

    def _counts_of(self, key: Key) -> tuple[float | None, float | None, int | None]:
        if key not in self._tops:
            return None, None, None
        of = self._bottoms[key]
        return float(self._tops[key].sum()), float(of.sum()), int((of > 0).sum())


def _resampled(
    tops: Floats, bottoms: Floats, of: Sequence[int], resamples: Resamples
) -> list[Resampled]:
    """Every share on every resample and, for BCa, without each group of patients."""
    # Percentiles need no more digits than single precision has, and come twice as fast.
    kind: type[np.floating[Any]] = np.float64 if resamples.interval == "bca" else np.float32
    table, whole = tops.astype(kind), bottoms.astype(kind)

    def statistic(weights: npt.NDArray[np.int16]) -> dict[str, Floats]:
        return {"share": _ratios(weights.astype(kind), table, whole, of)}  # (R, shares)

    drawn = cluster_bootstrap(statistic, resamples)["share"]
    if resamples.interval == "percentile":
        return [Resampled(column) for column in drawn.T]
    left = over_chunks(statistic, left_out_weights(resamples))["share"]  # (1 + groups, shares)
    return [
        Resampled(column, Jackknife(float(moved[0]), moved[1:]))
        for column, moved in zip(drawn.T, left.T, strict=True)
    ]


def _ratios(
    weights: npt.NDArray[np.floating[Any]],
    tops: npt.NDArray[np.floating[Any]],
    bottoms: npt.NDArray[np.floating[Any]],
    of: Sequence[int],
) -> Floats:
    """Weighted counts over weighted counts, shape ``(R, shares)``."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray((weights @ tops) / (weights @ bottoms)[:, of], dtype=np.float64)


def _row(
    system: str,
    name: ShareName,
    estimate: float,
    drawn: Resampled,
    resamples: Resamples,
    counts: tuple[float | None, float | None, int | None],
) -> dict[str, Any]:
    known = not np.isnan(estimate)
    interval = drawn.interval() if known else None
    low, high = (interval.low, interval.high) if interval else (None, None)
    return {
        **name._asdict(),
        "system": system,
        "estimate": estimate,
        "ci_low": np.nan if low is None else low,
        "ci_high": np.nan if high is None else high,
        "ci_method": resamples.method(interval) if interval and low is not None else "",
        "count": counts[0],
        "of": counts[1],
        "n_patients": counts[2],
        "note": (interval.note or "") if interval else NONE_OF_THEM,
    }


def _gap(
    values: Mapping[Key, tuple[float, Resampled]],
    first: str,
    second: str,
    name: ShareName,
    other: ShareName,
    resamples: Resamples,
) -> dict[str, Any]:
    """A paired difference: between systems on one group, or between groups of one system."""
    (one, drawn_one), (two, drawn_two) = values[first, name], values[second, other]
    system = first if first == second else f"{first} - {second}"
    named = name if name == other else name._replace(group=f"{name.group} - rest")
    return _row(system, named, one - two, drawn_one - drawn_two, resamples, (None, None, None))
