"""Shares of images or lesions, and AUROC, by group and system, with intervals, gaps and tests.

Each figure has its closed interval by patient, at the printed threshold, and the contribution of
each patient to its error. From these follow the intervals of gaps between groups. The difference of
two systems at chosen thresholds is resampled instead: each resample chooses both thresholds again
on resampled validation patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.box_choice import BOX_CUT
from cxr_compare.evaluation.figure_intervals import EXACT_AUROC, EXACT_METHOD
from cxr_compare.evaluation.figures import choices_text
from cxr_compare.evaluation.groups.resampled_shares import Drawn
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import per_cluster
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, AurocParts
from cxr_compare.evaluation.statistics.clustered_counts import (
    CLUSTERED_COUNTS,
    ShareParts,
    share_over_seeds,
)
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.intervals import Interval

FAILURE_COLUMNS = (
    "topic",
    "group",
    "system",
    "policy",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_method",
    "count",
    "of",
    "n_patients",
    "note",
    "p_value",
    "p_holm",
)
"""Columns of the table of the failure analysis."""
NONE_OF_THEM = "there is none of them"
"""Note of a share whose denominator is 0."""
FEWEST = 5
"""Number of patients of a group below which its figures have no interval."""
FEW = 30
"""Number of patients of a class below which a group's gaps have no test."""
FEW_LESIONS = 10
"""Number of lesions of a group below which it has no figure."""
TOO_FEW_LESIONS = f"fewer than {FEW_LESIONS} lesions: too few"
"""Note of a group of lesions without a figure."""
LESION_TOPIC = "lesions by "
"""Prefix of the topics of groups of lesions."""
TOO_FEW = f"fewer than {FEWEST} patients: counts only"
"""Note of a figure without an interval in a group with few patients."""
MOVER = "MOVER (Newcombe 1998) of both intervals: "
"""Start of the method's name of a difference whose interval follows from two intervals."""


class ShareName(NamedTuple):
    """Name of a share or AUROC in the table of the failure analysis.

    Attributes:
        topic: Name of the grouping or subject of the figure, such as ``sex`` or ``errors``.
        group: Group of images within `topic`, such as ``F`` for ``sex``; empty for all images.
        policy: Rule that chose the threshold, such as ``max_f1``; empty for a figure without a
            threshold.
        metric: Short name, such as ``recall``.
    """

    topic: str
    group: str
    policy: str
    metric: str


_Key = tuple[str, ShareName]
"""Display name of a system, and name of a share."""


class _Counts(NamedTuple):
    """Numerator, denominator and number of patients of a share; `None` where they are unknown."""

    numerator: float | None = None
    denominator: float | None = None
    n_patients: int | None = None


class _Figure(NamedTuple):
    """Figure or difference of two figures, with its interval."""

    interval: Interval
    contributions: Floats  # (patients,), for the correlation of figures; empty if unknown
    method: str
    counts: _Counts = _Counts()
    drawn: Drawn | None = None  # values on resamples, for the difference of two systems

    def minus(self, other: _Figure) -> _Figure:
        """Return the difference of two figures, whose interval follows from both intervals.

        See `Interval.minus`.
        """
        gap = self.interval.minus(
            other.interval, _correlation(self.contributions, other.contributions)
        )
        contributions = self.contributions - other.contributions
        return _Figure(gap, contributions, MOVER + self.method.removeprefix(MOVER))

    def resampled_minus(self, other: _Figure) -> _Figure:
        """Return the paired difference of two systems, resampled if it rests on thresholds."""
        if self.drawn is None or other.drawn is None:
            return self.minus(other)
        estimate = self.interval.estimate - other.interval.estimate
        interval = self.drawn.minus(other.drawn, estimate)
        return _Figure(interval, np.zeros(0), self.drawn.method)


def _correlation(first: Floats, second: Floats) -> float:
    """Compute Pearson's correlation of the patients' contributions; 0 if either does not vary."""
    if min(np.ptp(first), np.ptp(second)) == 0:
        return 0.0
    return round(float(np.corrcoef(first, second)[0, 1]), 12)


@dataclass
class Shares:
    """Collection of shares and AUROCs of several systems, from which one table is made.

    A share is a count over another count, such as the found lesions over all lesions.

    Attributes:
        gaps: Names of groupings (topics), such as ``sex``, whose groups are also compared with the
            rest of the images. The rest of a group is added under the name ``not GROUP`` of the
            same topic.

    Example:
        >>> shares = Shares(n_patients=40)
        >>> patients = np.arange(40)
        >>> name = ShareName("sex", "F", "", "recall")
        >>> shares.add("A", name, patients % 2, np.ones(40), patients)
        >>> table = shares.table(["A"])
        >>> table.loc[0, ["estimate", "count", "of"]].tolist()
        [0.5, 20.0, 40.0]
    """

    n_patients: int
    gaps: set[str] = field(default_factory=set)
    _figures: dict[_Key, _Figure] = field(default_factory=dict)

    def add(
        self,
        system: str,
        name: ShareName,
        counted: npt.ArrayLike,
        of: npt.ArrayLike,
        patients: npt.NDArray[np.integer[Any]],
    ) -> None:
        """Add a share of images or lesions, such as the share of lesions that are found.

        Each image or lesion adds `counted` to the numerator and `of` to the denominator, shape
        ``(N,)`` each; `patients` numbers its patient from 0.
        """
        by_patient, total = (
            per_cluster(np.asarray(values, np.float64)[:, None], patients, self.n_patients)[:, 0]
            for values in (counted, of)
        )
        self.add_parts(system, name, [ShareParts.from_sums(by_patient, total)])

    def add_parts(
        self, system: str, name: ShareName, seeds: Sequence[ShareParts], drawn: Drawn | None = None
    ) -> None:
        """Add a share by its parts, one item for each training seed of the system."""
        estimate = share_over_seeds(seeds)
        counted = np.mean([seed.counted for seed in seeds], axis=0)
        counts = _Counts(float(counted.sum()), float(seeds[0].of.sum()), seeds[0].n_patients)
        interval = estimate.as_interval
        if not seeds[0].n_patients:
            interval = Interval(note=NONE_OF_THEM)
        elif name.topic.startswith(LESION_TOPIC) and seeds[0].of.sum() < FEW_LESIONS:
            interval = Interval(note=TOO_FEW_LESIONS)
        elif name.topic in self.gaps and seeds[0].n_patients < FEWEST:
            interval = Interval(estimate.estimate, note=TOO_FEW)
        elif interval.bounded and (counted >= 0).all():
            interval = replace(interval, ci_low=max(interval.ci_low, 0.0))
        method = CLUSTERED_COUNTS + choices_text(_choices(name))
        self._figures[system, name] = _Figure(
            interval,
            np.nan_to_num(np.mean([seed.contributions for seed in seeds], axis=0)),
            EXACT_METHOD if estimate.exact else method,
            counts,
            drawn,
        )

    def add_interval(
        self, system: str, name: ShareName, interval: Interval, drawn: Drawn | None = None
    ) -> None:
        """Add a figure that follows from several shares, with its interval."""
        self._figures[system, name] = _Figure(
            interval, np.zeros(self.n_patients), CLUSTERED_COUNTS, drawn=drawn
        )

    def add_auroc(
        self, system: str, name: ShareName, estimate: ClusteredEstimate, parts: AurocParts
    ) -> None:
        """Add an AUROC, or a difference of two AUROCs on the same images."""
        interval = estimate.as_interval
        images = parts.images
        if name.topic in self.gaps and np.count_nonzero(images, axis=0).min() < FEWEST:
            interval = Interval(estimate.estimate, note=TOO_FEW)
        added = parts.contributions
        self._figures[system, name] = _Figure(
            interval,
            np.zeros(len(images)) if added is None else added,
            EXACT_AUROC if estimate.exact else OBUCHOWSKI,
            _Counts(images[:, 0].sum(), images.sum(), int(images.any(axis=1).sum())),
        )

    def table(self, systems: Sequence[str]) -> pd.DataFrame:
        """Make the table of all figures, differences between systems and gaps between groups.

        It has the columns of `FAILURE_COLUMNS`. The first system is compared with each of the
        others: a difference has the system ``A - B``. The gap between a group and the rest has the
        group ``GROUP - rest`` and a p-value.
        """
        rows = [_row(key, figure) for key, figure in self._figures.items()]
        names = {name for _, name in self._figures}
        rests = {name._replace(group=f"not {name.group}") for name in names}
        with_differences = dict(self._figures)
        for (system, name), figure in self._figures.items():
            for other in systems[1:] if system == systems[0] else ():
                figure_of_other = self._figures.get((other, name))
                if figure_of_other is None:
                    continue
                key = (f"{system} - {other}", name)
                with_differences[key] = figure.minus(figure_of_other)
                if name not in rests or not name.policy:  # the rest of a group is not resampled
                    rows.append(_row(key, figure.resampled_minus(figure_of_other)))
        for (system, name), figure in with_differences.items():
            rest = with_differences.get((system, name._replace(group=f"not {name.group}")))
            if name.topic in self.gaps and rest is not None:
                gap = figure.minus(rest)
                key = (system, name._replace(group=f"{name.group} - rest"))
                rows.append(_row(key, gap) | {"p_value": gap.interval.normal_p_value})
        return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))


def _row(key: _Key, figure: _Figure) -> dict[str, Any]:
    """Return a figure as a row of the table of the failure analysis."""
    system, name = key
    interval = figure.interval
    return {
        **name._asdict(),
        "system": system,
        "estimate": interval.estimate,
        "ci_low": interval.ci_low,
        "ci_high": interval.ci_high,
        "ci_method": figure.method if interval.bounded else "",
        "count": figure.counts.numerator,
        "of": figure.counts.denominator,
        "n_patients": figure.counts.n_patients,
        "note": interval.note,
    }


def _choices(name: ShareName) -> dict[str, bool]:
    """Return the validation choices on which a share depends beside its threshold."""
    is_of_boxes = name.topic == "errors" or name.topic.startswith(LESION_TOPIC)
    return {BOX_CUT: False} if is_of_boxes else {}
