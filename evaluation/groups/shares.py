"""Shares of images or lesions, and AUROC, by group and system, with intervals, gaps and tests.

The counts of all shares are summed for each patient once, so that a product of two matrices gives
all shares on all bootstrap resamples. Shares that depend on a chosen threshold use the threshold
that each resample chooses again on resampled validation patients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.box_choice import BOX_CUT
from cxr_compare.evaluation.evaluated_model import THRESHOLDS, Models, images_of
from cxr_compare.evaluation.figure_intervals import EXACT_AUROC, EXACT_METHOD
from cxr_compare.evaluation.figures import choices_text
from cxr_compare.evaluation.replicates import ChosenAgain
from cxr_compare.evaluation.statistics.arrays import Floats, is_positive
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, AurocParts
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.intervals import (
    Interval,
    percentile_interval,
)
from cxr_compare.evaluation.thresholds import is_chosen

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
"""Number of patients of a class below which a group's gap has no test."""
TOO_FEW = f"fewer than {FEWEST} patients: counts only"
"""Note of a figure without an interval in a group with few patients."""
MOVER = "MOVER (Newcombe 1998) of both intervals: "
"""Start of the method's name of a difference whose interval follows from two intervals."""


class ShareName(NamedTuple):
    """Name of a share or AUROC in the table of the failure analysis.

    Attributes:
        topic: Name of the grouping or subject of the figure, such as ``sex`` or ``errors``; empty
            for a share that is only used to compute other figures.
        group: Group of images within `topic`, such as ``F`` for ``sex``; empty for all images.
        policy: Rule that chose the threshold, such as ``max_f1``; empty for a figure without a
            threshold.
        metric: Short name of the metric, such as ``recall``.
    """

    topic: str
    group: str
    policy: str
    metric: str


_Key = tuple[str, ShareName]
"""Display name of a system, and name of a share."""
_Values = Mapping[_Key, tuple[float, Floats]]
"""Estimate and replicates of each share; a replicate is its value on one bootstrap resample."""


class _Derived(NamedTuple):
    """Figure that is computed from shares."""

    key: _Key
    of: Sequence[_Key]  # the shares that are the arguments of the function
    compute: Callable[..., Floats]


class _Calls:
    """Images that systems call positive, at the fixed threshold and at those of the resamples.

    Each resample draws validation patients, and chooses the threshold again on them.

    Attributes:
        patients: Patient of each image, shape ``(N,)``.
        fixed: For each system whose threshold is chosen again, the share of its training seeds that
            call an image positive at the fixed threshold, shape ``(N,)``.
        unsure: Reason by system why resamples do not show how much its threshold varies; empty if
            they do.
        thresholds: Threshold that each resample chooses, shape ``(R, seeds)``, with one column for
            each training seed of these systems; `None` if no threshold is chosen again.
    """

    def __init__(self, models: Models, policy: str, again: ChosenAgain) -> None:
        self.patients = images_of(models).patients
        self.fixed: dict[str, Floats] = {}
        self.unsure: dict[str, str] = {}
        thresholds: dict[tuple[str, int], Floats] = {}
        self._scores: dict[str, list[Floats]] = {}
        for name, members in models.items():
            calls = [called for c in members if (called := c.called(policy)) is not None]
            made = [model for model in members if policy in model.chosen_policies]
            kept = [each for model in made if (each := model.choices.chosen_scores)]
            if len(calls) < len(members) or len(kept) < len(members):
                continue
            thresholds |= {(name, seed): again[name, seed][policy] for seed in range(len(members))}
            self._scores[name] = [model.scores for model in members]
            self.fixed[name] = np.mean(calls, axis=0)
            self.unsure[name] = next(filter(None, (v.too_few_for(policy) for v in kept)), "")
        self._columns = [name for name, _ in thresholds]
        self.thresholds = np.column_stack([*thresholds.values()]) if thresholds else None

    def called(self, system: str, thresholds: Floats) -> npt.NDArray[np.float32]:
        """Return the share of a system's training seeds that call each image positive.

        The shape is ``(R, N)``; rows without a threshold are NaN.
        """
        of_seeds = thresholds[:, [name == system for name in self._columns]]
        calls = [
            is_positive(scores, column[:, None])
            for scores, column in zip(self._scores[system], of_seeds.T, strict=True)
        ]
        called = np.asarray(np.mean(calls, axis=0, dtype=np.float32))
        called[np.isnan(of_seeds).any(axis=1)] = np.nan
        return called


class _Counts(NamedTuple):
    """Numerator, denominator and number of patients of a share; `None` where they are unknown."""

    numerator: float | None = None
    denominator: float | None = None
    n_patients: int | None = None


class _Share(NamedTuple):
    """Counts of a share by patient."""

    counted: Floats  # (patients,), numerator
    of: Floats  # (patients,), denominator
    per_call: Floats | None  # (N,), what each image adds to the numerator if called positive

    @property
    def counts(self) -> _Counts:
        """Numerator, denominator and number of patients of the share."""
        return _Counts(
            float(self.counted.sum()), float(self.of.sum()), int(np.count_nonzero(self.of))
        )

    @property
    def of_patients(self) -> int:
        """Number of patients with images or lesions in the denominator."""
        return int(np.count_nonzero(self.of))

    @property
    def is_proportion(self) -> bool:
        """True if the numerator of each patient lies between 0 and the denominator."""
        return bool(((self.counted >= 0) & (self.counted <= self.of)).all())


class _Figure(NamedTuple):
    """Figure or difference of two figures, with its interval."""

    interval: Interval
    varied: Floats  # replicates, or contributions of the patients, for the correlation of figures
    method: str
    counts: _Counts = _Counts()

    def minus(self, other: _Figure) -> _Figure:
        """Return the difference of two figures, whose interval follows from both intervals.

        See `Interval.minus`.
        """
        gap = self.interval.minus(other.interval, _correlation(self.varied, other.varied))
        return _Figure(gap, self.varied - other.varied, MOVER + self.method.removeprefix(MOVER))


def _correlation(first: Floats, second: Floats) -> float:
    """Compute Pearson's correlation over the known values; 0 if either does not vary."""
    known = ~(np.isnan(first) | np.isnan(second))
    if not known.any() or min(np.ptp(first[known]), np.ptp(second[known])) == 0:
        return 0.0
    return round(float(np.corrcoef(first[known], second[known])[0, 1]), 12)


@dataclass
class Shares:
    """Collection of shares and AUROCs of several systems, from which one table is made.

    A share is a count over another count, such as the found lesions over all lesions.

    Attributes:
        n_patients: Number of patients that the bootstrap resamples.
        calls: For each system, the images that it calls positive, at thresholds that the bootstrap
            resamples choose again; `None` fixes the thresholds.
        gaps: Names of groupings (topics), such as ``sex``, whose groups are also compared with the
            rest of the images. The rest of a group is added under the name ``not GROUP`` of the
            same topic.

    Example:
        >>> shares = Shares(n_patients=40)
        >>> patients = np.arange(40)
        >>> name = ShareName("sex", "F", "", "recall")
        >>> shares.add("A", name, patients % 2, np.ones(40), patients)
        >>> table = shares.table(["A"], Resamples(40, 200, 0))
        >>> table.loc[0, ["estimate", "count", "of"]].tolist()
        [0.5, 20.0, 40.0]
    """

    n_patients: int
    calls: _Calls | None = None
    gaps: set[str] = field(default_factory=set)
    _derived: list[_Derived] = field(default_factory=list)
    _shares: dict[_Key, _Share] = field(default_factory=dict)
    _aurocs: dict[_Key, _Figure] = field(default_factory=dict)

    @classmethod
    def from_models(cls, models: Models, policy: str, again: ChosenAgain, gaps: set[str]) -> Shares:
        """Make an empty collection for the decisions of systems at one threshold each.

        Args:
            models: Evaluated models of each system by its display name, one for each training seed.
            policy: Rule by which the threshold was chosen, such as ``max_f1``. Images with a score
                of at least this threshold are called positive.
            again: Choices that every bootstrap resample makes, as `choose_again` returns
                them.
            gaps: Names of groupings, such as ``{"sex"}``, whose groups are also compared with the
                rest of the images.

        Returns:
            The collection without any share.
        """
        return cls(images_of(models).n_patients, _Calls(models, policy, again), gaps)

    def add(
        self,
        system: str,
        name: ShareName,
        counted: npt.ArrayLike,
        of: npt.ArrayLike,
        patients: npt.NDArray[np.integer[Any]],
        per_call: npt.ArrayLike | None = None,
    ) -> None:
        """Add a share of images or lesions, such as the share of lesions that are found.

        Args:
            system: Display name of the system.
            name: Name of the share: grouping, group, rule for the threshold and metric.
            counted: Amount that each image or lesion adds to the numerator, shape ``(N,)``.
            of: Amount that each image or lesion adds to the denominator, shape ``(N,)``.
            patients: Patient of each image or lesion as a whole number from 0, shape ``(N,)``.
            per_call: Amount that each image adds to the numerator if it is called positive, shape
                ``(N,)``, so that the share can be computed again for another threshold; `None` for
                a share that does not depend on decisions.
        """
        if self.calls is None or system not in self.calls.fixed:
            per_call = None
        by_patient, total = (
            np.asarray(
                np.bincount(patients, np.asarray(values, np.float64), minlength=self.n_patients),
                np.float64,
            )
            for values in (counted, of)
        )
        added = None if per_call is None else np.asarray(per_call, dtype=np.float64)
        self._shares[system, name] = _Share(by_patient, total, added)

    def derive(self, key: _Key, of: Sequence[_Key], compute: Callable[..., Floats]) -> None:
        """Add a figure that is computed from shares which were added before.

        Args:
            key: Display name of the system, and name of the new figure.
            of: Keys (display name of the system, and name of the share) of the shares that are the
                arguments of `compute`, in this order.
            compute: Function of the shares, each as a number or as an array of bootstrap
                replicates, that returns the figure in the same shape.
        """
        self._derived.append(_Derived(key, of, compute))

    def add_auroc(
        self, system: str, name: ShareName, estimate: ClusteredEstimate, parts: AurocParts
    ) -> None:
        """Add an AUROC, or a difference of two AUROCs on the same images.

        Args:
            system: Display name of the system.
            name: Name of the figure: grouping, group, rule for the threshold (empty) and metric.
            estimate: The AUROC or the difference, with its standard error and interval.
            parts: Contribution of each patient to the AUROC or the difference.
        """
        interval = estimate.as_interval
        images = parts.images
        if name.topic in self.gaps and np.count_nonzero(images, axis=0).min() < FEWEST:
            interval = Interval(estimate.estimate, note=TOO_FEW)
        added = parts.contributions
        self._aurocs[system, name] = _Figure(
            interval,
            np.zeros(len(images)) if added is None else added,
            EXACT_AUROC if estimate.exact else OBUCHOWSKI,
            _Counts(images[:, 0].sum(), images.sum(), int(images.any(axis=1).sum())),
        )

    def table(self, systems: Sequence[str], resamples: Resamples) -> pd.DataFrame:
        """Make the table of all figures, differences between systems and gaps between groups.

        Args:
            systems: Display names of the systems. The first one is compared with each of the
                others.
            resamples: Bootstrap samples of the patients: number of patients, number of resamples
                and random seed.

        Returns:
            Table with the columns of `FAILURE_COLUMNS`, such as ``topic``, ``group``, ``system``,
            ``metric``, ``estimate``, ``ci_low`` and ``ci_high``. A difference has the system
            ``A - B``, and the gap between a group and the rest has the group ``GROUP - rest`` and a
            p-value.
        """
        values = self._values(resamples) if self._shares else {}
        figures = {key: self._figure(key, *of, resamples) for key, of in values.items()}
        figures |= self._aurocs
        figures = {key: figure for key, figure in figures.items() if key[1].topic}
        figures |= dict(_against_first(figures, systems))
        rows = [_row(key, figure) for key, figure in figures.items()]
        for (system, name), figure in figures.items():
            rest = figures.get((system, name._replace(group=f"not {name.group}")))
            if name.topic in self.gaps and rest is not None:
                gap = figure.minus(rest)
                p_value = {"p_value": gap.interval.normal_p_value}
                rows.append(
                    _row((system, name._replace(group=f"{name.group} - rest")), gap) | p_value
                )
        return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))

    def _values(self, resamples: Resamples) -> _Values:
        """Compute the estimate and the replicates of every share and of every derived figure."""
        shares = list(self._shares.values())
        counts = np.stack([share.counted for share in shares], axis=1)
        # Many shares have the same denominator, and each distinct denominator is summed once.
        columns: dict[bytes, int] = {}
        of = [columns.setdefault(share.of.tobytes(), len(columns)) for share in shares]
        totals = np.stack([np.frombuffer(column) for column in columns], axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            whole = counts.sum(axis=0) / totals.sum(axis=0)[of]
        drawn = self._replicates(counts, totals, of, resamples)
        values = {key: (float(whole[i]), drawn[:, i]) for i, key in enumerate(self._shares)}
        for derived in self._derived:
            parts = [values[key] for key in derived.of]
            estimate = float(derived.compute(*(part[0] for part in parts)))
            values[derived.key] = estimate, derived.compute(*(part[1] for part in parts))
        return values

    def _replicates(
        self, counts: Floats, totals: Floats, of: Sequence[int], resamples: Resamples
    ) -> Floats:
        """Compute every share on every bootstrap resample, shape ``(R, shares)``."""
        # Single precision has enough digits for percentiles, and is twice as fast.
        table = counts.astype(np.float32)
        whole = totals.astype(np.float32)
        calls = self.calls
        per_call = {}
        if calls is not None and calls.thresholds is not None:
            for system, fixed in calls.fixed.items():
                added = {
                    column: share.per_call
                    for column, ((name, _), share) in enumerate(self._shares.items())
                    if name == system and share.per_call is not None
                }
                if not added:
                    continue
                table_of_images = np.stack(list(added.values()), axis=1)  # (N, K)
                per_call[system] = list(added), table_of_images.astype(np.float32)
                for column, values in added.items():  # subtracts the part that decisions add
                    table[:, column] -= np.bincount(
                        calls.patients, values * fixed, minlength=self.n_patients
                    )

        def statistic(
            weights: npt.NDArray[np.int16], thresholds: Floats | None = None
        ) -> dict[str, Floats]:
            used = weights.astype(np.float32)
            counted = used @ table
            if calls is not None and thresholds is not None:
                of_image = np.take(used, calls.patients, axis=1)
                for system, (columns, added) in per_call.items():
                    counted[:, columns] += (of_image * calls.called(system, thresholds)) @ added
            with np.errstate(invalid="ignore", divide="ignore"):
                shares = counted / (used @ whole)[:, of]
            return {"share": np.asarray(shares, dtype=np.float64)}

        beside = calls.thresholds if calls is not None and per_call else None
        return cluster_bootstrap(statistic, resamples, beside=beside)["share"]

    def _refitted(self, key: _Key) -> bool:
        if key in self._shares:
            return self._shares[key].per_call is not None
        return any(d.key == key and all(map(self._refitted, d.of)) for d in self._derived)

    def _figure(self, key: _Key, estimate: float, drawn: Floats, resamples: Resamples) -> _Figure:
        """Compute the interval of a share; for few patients it contains the exact interval."""
        system, name = key
        share = self._shares.get(key)
        refitted = self._refitted(key)
        method = resamples.method + choices_text(_choices(name, refitted=refitted))
        interval = percentile_interval(drawn, estimate=estimate)
        unsure = self.calls.unsure.get(system) if refitted and self.calls is not None else None
        counts = _Counts() if share is None else share.counts
        if np.isnan(estimate):
            interval = Interval(note=NONE_OF_THEM)
        elif name.topic in self.gaps and share is not None and share.of_patients < FEWEST:
            interval = Interval(estimate, note=TOO_FEW)
        elif unsure:
            interval = Interval(estimate, note=f"no interval: {unsure}")
        elif share is not None and share.is_proportion and not interval.shifted:
            trials = effective_patients(share.of)
            if trials > 1 and (interval.unmoved or trials < FEW):
                method = EXACT_METHOD if interval.unmoved else f"{method}; {EXACT_METHOD}"
                exact = Interval.from_share(estimate, trials)
                low = float(np.fmin(interval.ci_low, exact.ci_low))
                high = float(np.fmax(interval.ci_high, exact.ci_high))
                interval = Interval(estimate, low, high)
        return _Figure(interval, drawn, method, counts)


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


def _against_first(
    figures: Mapping[_Key, _Figure], systems: Sequence[str]
) -> Iterator[tuple[_Key, _Figure]]:
    """Yield the paired differences between the first system and each of the others."""
    for (system, name), figure in figures.items():
        for other in systems[1:] if system == systems[0] else ():
            if (other, name) in figures:
                yield (f"{system} - {other}", name), figure.minus(figures[other, name])


def _choices(name: ShareName, *, refitted: bool) -> dict[str, bool]:
    """Return the validation choices on which a share depends: True if resamples make them again."""
    if is_chosen(name.policy):
        return {THRESHOLDS: refitted}
    if name.topic == "errors" or name.topic.startswith("lesions by "):
        return {BOX_CUT: False}
    return {"calibration": False} if name.metric == "net_benefit_calibrated" else {}
