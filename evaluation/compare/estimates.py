"""Estimates: all figures of systems and their differences with intervals, and their tidy table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet
from cxr_compare.evaluation.decisions.thresholds import DECLARED, check_policy
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

COLUMNS = (
    "target",
    "unit",
    "subgroup",
    "system",
    "policy",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_method",
    "ci_low_fixed_choice",
    "ci_high_fixed_choice",
    "n_validation_positive",
    "n_images",
    "n_patients",
    "n_positive",
    "effective_patients",
    "note",
)
"""Columns of the tidy table of `Estimates.table`."""
TIDY_COLUMNS = (
    "system",
    "metric",
    "policy",
    "subgroup",
    "estimate",
    "ci_low",
    "ci_high",
    "p_value",
    "n_images",
    "n_patients",
    "n_positive",
)
"""Columns of the table that ``to_frame`` of every result returns."""
OVER_SEEDS = "Obuchowski-Rockette, Hillis df, seeds random"
REFITTED = "refitted on resampled validation patients"
FIXED_CHOICE = "fixed choice"
"""Words in the name of a method, for validation choices that are made again or that are fixed."""
THRESHOLDS = "thresholds"
_BETWEEN = " - "
_UNKNOWN_ENDS = (np.nan, np.nan)


IntervalKind = Literal["bootstrap", "obuchowski", "exact", "seeds"]
_NAMED_FIRST: dict[str, IntervalKind] = {
    "Obuchowski": "obuchowski",
    "Obuchowski-Rockette,": "seeds",
    "exact": "exact",
}
"""Kind of an interval by the first word of ``ci_method``; all other words mean the bootstrap."""


class SampleSize(NamedTuple):
    """Number of images and patients on which a figure is computed.

    Attributes:
        n_images: Number of images; number of studies or patients if the figure is computed by
            these.
        n_patients: Number of patients who have these images (studies).
        n_positive: Number of positive images (studies, patients).
        effective_patients: Effective number of patients: how many patients with one image each
            would give as much information. It is that of the positive or negative class if the
            figure is a share of this class (such as a sensitivity), otherwise of the class with
            fewer. `None` where it is unknown.

    Example:
        >>> SampleSize(n_images=40, n_patients=30, n_positive=10).n_patients
        30
    """

    n_images: int = 0
    n_patients: int = 0
    n_positive: int = 0
    effective_patients: float | None = None

    @classmethod
    def from_images(
        cls, evaluated: EvaluationSet, chosen: npt.NDArray[np.bool_], of_class: str
    ) -> SampleSize:
        """Count the images and patients on which a figure is computed.

        Args:
            evaluated: The N evaluated images with their labels and patients.
            chosen: True for the images on which the figure is computed, shape ``(N,)``.
            of_class: ``positive`` or ``negative`` if the figure is a share of this class; empty
                for any other figure.

        Returns:
            The counts, with the effective number of patients of `of_class`.
        """
        classes = {"positive": chosen & evaluated.y_true, "negative": chosen & ~evaluated.y_true}
        effective = {
            name: effective_patients(np.bincount(evaluated.patients[images]))
            for name, images in classes.items()
        }
        return cls(
            n_images=int(chosen.sum()),
            n_patients=len(np.unique(evaluated.patients[chosen])),
            n_positive=int(classes["positive"].sum()),
            effective_patients=effective.get(of_class, min(effective.values())),
        )


@dataclass(frozen=True)
class Estimate(Interval):
    """One figure of a system, or the difference of two systems in one figure, with its interval.

    A figure may depend on choices that were made on validation images, such as a threshold. The
    bootstrap then resamples validation patients as well, and each resample makes the choice again,
    so that the interval includes the uncertainty of the choice.

    The first arguments are the fields of `Interval`: `estimate` (the figure or the difference),
    `low` and `high` (ends of its 95 % interval; NaN where a value is missing) and `note` (the
    reason why it is missing, or a remark).

    Attributes:
        method: Name of the method of the interval, such as "Obuchowski 1997, clustered by patient";
            empty without an interval.
        kind: Kind of that method: ``bootstrap``, ``obuchowski``, ``exact`` or ``seeds`` (over
            training seeds); `None` if there is no interval.
        counts: Number of images and patients on which the figure is computed.
        family: For a difference, the two ends of its interval if it is one of 1, 2, 3, ...
            comparisons, whose intervals are to contain all true differences at once with 95 %
            probability. The interval for k comparisons has the coverage ``1 - 0.05 / k``. Empty if
            these intervals were not computed.
        fixed_choice_interval: Ends of the interval that ignores the uncertainty of validation
            choices, if the resamples make these choices again for the interval itself; otherwise
            `None`.
        n_chosen_on: Number of positive validation images (studies, patients) on which the threshold
            or score cut was chosen; for a difference the smaller number. `None` if nothing was
            chosen.
        refitted: True if the resamples choose the threshold, or the score cut of boxes, again.
        fixed_choices: Names of the validation choices, such as ``calibration``, that no resample
            makes again.
        refitted_choices: Names of the validation choices, such as ``thresholds``, that the
            resamples make again.

    Example:
        >>> estimate = Estimate(0.9, 0.85, 0.95, method="clustered")
        >>> estimate.low, estimate.refitted
        (0.85, False)
    """

    method: str = ""
    kind: IntervalKind | None = None
    counts: SampleSize = field(default_factory=SampleSize)
    family: tuple[tuple[float, float], ...] = ()
    fixed_choice_interval: tuple[float, float] | None = None
    n_chosen_on: int | None = None
    refitted: bool = False
    fixed_choices: tuple[str, ...] = ()
    refitted_choices: tuple[str, ...] = ()

    @property
    def effective_patients(self) -> float | None:
        """Effective number of patients; `None` where it is unknown.

        It is the number of patients with one image each that would give as much information.
        """
        return self.counts.effective_patients

    def reversed(self) -> Estimate:
        """Return the difference with the two systems exchanged: B - A instead of A - B."""
        ends = self.fixed_choice_interval
        return replace(
            self,
            estimate=-self.estimate,
            low=-self.high,
            high=-self.low,
            family=tuple((-high, -low) for low, high in self.family),
            fixed_choice_interval=None if ends is None else (-ends[1], -ends[0]),
        )

    def within(self, comparisons: int) -> Estimate:
        """Return the difference with the wider interval that it has among several comparisons.

        Args:
            comparisons: Number of comparisons whose intervals are to contain all true differences
                at once with 95 % probability, at least 1.

        Returns:
            The difference with the wider interval. It has no interval if the one for this number of
            comparisons was not computed.
        """
        if comparisons == 1 or not self.bounded:
            return self
        known = comparisons <= len(self.family)
        low, high = self.family[comparisons - 1] if known else (np.nan, np.nan)
        return replace(self, low=low, high=high)


Differences = Mapping[tuple[str, str], Mapping[MetricKey, Floats | ClusteredEstimate]]
"""Replicates of paired differences, by pair of systems and figure.

A replicate is the value on one bootstrap resample; the shape is ``(R,)``. If a system has several
training seeds, the estimate over seeds takes the place of the replicates.
"""


def is_chosen(policy: str) -> bool:
    """Return True if a threshold depends on which validation images it was chosen on.

    A threshold that the user states, such as ``threshold=0.5``, does not, and neither does a
    declared threshold, which is taken as it is.

    Args:
        policy: Rule for the threshold, such as ``max_f1``; empty for a figure without a threshold.

    Returns:
        True if the threshold is chosen on validation images.

    Example:
        >>> is_chosen("max_f1"), is_chosen("threshold=0.5")
        (True, False)
    """
    return bool(policy) and check_policy(policy).kind not in ("threshold", DECLARED)


def choices_text(choices: Mapping[str, bool]) -> str:
    """Return the part of a method's name that lists the validation choices behind a figure.

    Args:
        choices: For each choice by its name, such as ``thresholds``, True if the bootstrap
            resamples make it again and False if it is fixed.

    Returns:
        A text that begins with a comma, or an empty text if there is no choice.

    Example:
        >>> choices_text({"thresholds": True, "calibration": False})
        ', thresholds refitted on resampled validation patients, fixed choice: calibration'
    """
    refitted = [name for name, made_again in choices.items() if made_again]
    fixed = [name for name, made_again in choices.items() if not made_again]
    text = f", {listing(refitted)} {REFITTED}" if refitted else ""
    return f"{text}, {FIXED_CHOICE}: {listing(fixed)}" if fixed else text


def family_level(comparisons: int) -> float:
    """Return the coverage with which several intervals contain all true values at once with 95 %.

    Args:
        comparisons: Number of intervals.

    Returns:
        Coverage that each of the intervals needs: ``1 - 0.05 / comparisons``, which is the
        Bonferroni correction.

    Example:
        >>> family_level(1), family_level(2)
        (0.95, 0.975)
    """
    return 1 - (1 - LEVEL) / max(comparisons, 1)


def family_levels(n_systems: int) -> list[float]:
    """Return the coverage with which 1, 2, 3, ... intervals contain all true values at once.

    Args:
        n_systems: Number of systems in the comparison.

    Returns:
        Coverage that each of k intervals needs so that all k contain the true values with 95 %
        probability, ``1 - 0.05 / k``, for k = 1, 2, 3, ... up to the largest number of differences
        that a comparison of this number of systems states.

    Example:
        >>> family_levels(2)[:2], len(family_levels(2))
        ([0.95, 0.975], 10)
    """
    return [family_level(size) for size in range(1, max(10, n_systems) * (n_systems - 1) + 1)]


_ByKey = Mapping[MetricKey, Estimate]


@dataclass(frozen=True)
class Estimates:
    """All figures and paired differences of a comparison, by image, study or patient.

    Attributes:
        target: Name of the finding, or group of findings, that is evaluated, such as
            ``lung_opacity``.
        unit: Unit that is counted: ``image``, ``study`` or ``patient``.
        systems: Figures of each system by its display name, the reference system first, and by the
            key of the figure (group of images, rule for the threshold, metric).
        differences: Paired differences, first minus second system, by the names of both systems and
            by the key of the figure.

    Example:
        >>> Estimates("opacity", "study", systems={"A": {}}, differences={}).plural_unit
        'studies'
    """

    target: str
    unit: str
    systems: Mapping[str, Mapping[MetricKey, Estimate]]
    differences: Mapping[tuple[str, str], Mapping[MetricKey, Estimate]]

    def __repr__(self) -> str:
        count = sum(map(len, self.systems.values()))
        return f"<Estimates of {' and '.join(self.systems)} by {self.unit}: {count:,}>"

    @property
    def plural_unit(self) -> str:
        """Plural of the unit: ``images``, ``studies`` or ``patients``."""
        return {"study": "studies"}.get(self.unit, f"{self.unit}s")

    @property
    def contrast_level(self) -> float:
        """Coverage with which the differences from the reference system are all correct with 95 %.

        Each interval needs the coverage ``1 - 0.05 / k`` (Bonferroni), where k is the number of
        systems other than the reference system.
        """
        return family_level(len(self.systems) - 1)

    def get(self, system: str, metric: str, policy: str = "", *, subgroup: str = ALL) -> Estimate:
        """Return one figure of a system.

        Args:
            system: Display name of the system.
            metric: Short name of the metric, such as ``auroc``.
            policy: Rule by which the threshold was chosen, such as ``max_f1``; empty for a figure
                without a threshold, such as ``auroc``.
            subgroup: Name of the group of images on which the figure is computed, such as ``all``
                (all evaluated images) or ``vs_normal`` (positive and normal images).

        Returns:
            The figure with its interval; an estimate of NaN if there is no such figure.
        """
        return self.systems.get(system, {}).get(MetricKey(subgroup, policy, metric), Estimate())

    def difference(
        self, first: str, second: str, metric: str, policy: str = "", *, subgroup: str = ALL
    ) -> Estimate:
        """Return the paired difference of two systems in one figure, first minus second.

        Args:
            first: Display name of the first system.
            second: Display name of the second system. The order in which the pair is stored does
                not matter.
            metric: Short name of the metric, such as ``auroc``.
            policy: Rule by which the threshold was chosen, such as ``max_f1``; empty for a figure
                without a threshold, such as ``auroc``.
            subgroup: Name of the group of images on which the figure is computed, such as ``all``
                (all evaluated images) or ``vs_normal`` (positive and normal images).

        Returns:
            The difference with its interval; an estimate of NaN if there is no such difference.
        """
        key = MetricKey(subgroup, policy, metric)
        stored = self.differences.get((first, second), {}).get(key, Estimate())
        if stored.known or stored.note:
            return stored
        return self.differences.get((second, first), {}).get(key, Estimate()).reversed()

    def __iter__(self) -> Iterator[tuple[str, MetricKey, Estimate]]:
        """Iterate over all figures: display name, metric and estimate, systems before differences.

        The display name of a difference is ``A - B``.
        """
        for name, estimates in self.systems.items():
            for key, estimate in estimates.items():
                yield name, key, estimate
        for pair, estimates in self.differences.items():
            for key, estimate in estimates.items():
                yield _BETWEEN.join(pair), key, estimate

    def changed(
        self, change: Callable[[tuple[str, ...], MetricKey, Estimate], Estimate | None]
    ) -> Estimates:
        """Return a copy in which a function has changed every figure and difference.

        Args:
            change: Function of three arguments: the names (of one system, or of the two systems of
                a difference), the key of the figure and the estimate. It returns the new estimate,
                or `None` to leave it out.

        Returns:
            The changed copy.
        """

        def changed_ones(names: tuple[str, ...], estimates: _ByKey) -> dict[MetricKey, Estimate]:
            new = {key: change(names, key, estimate) for key, estimate in estimates.items()}
            return {key: estimate for key, estimate in new.items() if estimate is not None}

        return replace(
            self,
            systems={
                name: changed_ones((name,), estimates) for name, estimates in self.systems.items()
            },
            differences={
                pair: changed_ones(pair, estimates) for pair, estimates in self.differences.items()
            },
        )

    def table(self) -> pd.DataFrame:
        """Return a table of all figures and differences, one in each row.

        The columns are those of `COLUMNS`, such as ``system``, ``metric``, ``estimate``, ``ci_low``
        and ``ci_high``. An undefined figure is NaN. Thresholds come last.
        """
        rows = [
            {
                "target": self.target,
                "unit": self.unit,
                **key._asdict(),
                "system": name,
                "estimate": figure.estimate,
                "ci_low": figure.low,
                "ci_high": figure.high,
                "ci_method": figure.method,
                "ci_low_fixed_choice": np.nan
                if figure.fixed_choice_interval is None
                else figure.fixed_choice_interval[0],
                "ci_high_fixed_choice": np.nan
                if figure.fixed_choice_interval is None
                else figure.fixed_choice_interval[1],
                "n_validation_positive": figure.n_chosen_on,
                **figure.counts._asdict(),
                "note": figure.note,
            }
            for name, key, figure in self
        ]
        rows.sort(key=lambda row: row["metric"] == "threshold")
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table.astype({"n_validation_positive": "Int64"})

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Estimates:
        """Read figures and differences from a table that `table` returned.

        Args:
            table: Table as the method `table` returns it, of one finding or group of findings
                (column ``target``) and one ``unit``.

        Returns:
            The figures and differences. The wider intervals for several comparisons are missing,
            because the table does not hold them.
        """
        rows: list[dict[str, Any]] = [
            {str(key): value for key, value in row.items() if not pd.isna(value)}
            for row in table.to_dict("records")
        ]
        names = dict.fromkeys(row["system"] for row in rows)
        pairs = {}
        for name in names:
            pair = _pair(name, names)
            if pair is not None:
                pairs[name] = pair
        systems: dict[str, dict[MetricKey, Estimate]] = {
            name: {} for name in names if name not in pairs
        }
        differences: dict[tuple[str, str], dict[MetricKey, Estimate]] = {
            pair: {} for pair in pairs.values()
        }
        for row in rows:
            key = MetricKey(row.get("subgroup") or ALL, row.get("policy", ""), row["metric"])
            name = row["system"]
            estimates = differences[pairs[name]] if name in pairs else systems[name]
            estimates[key] = _from_row(row)
        first = rows[0] if rows else {}
        return cls(first.get("target", ""), first.get("unit", "image"), systems, differences)


def _from_row(row: Mapping[str, Any]) -> Estimate:
    """Read an estimate from a row of a stored table, from which missing values are left out."""
    method = str(row.get("ci_method", ""))
    kind = _NAMED_FIRST.get(method.partition(" ")[0], "bootstrap") if method else None
    ends = [row.get(f"ci_{end}_fixed_choice") for end in ("low", "high")]
    low, high = (np.nan if end is None else float(end) for end in ends)
    n_chosen_on = row.get("n_validation_positive")
    n_images, n_patients, n_positive = (int(row.get(name, 0)) for name in SampleSize._fields[:3])
    return Estimate(
        estimate=float(row.get("estimate", np.nan)),
        low=float(row.get("ci_low", np.nan)),
        high=float(row.get("ci_high", np.nan)),
        note=row.get("note", ""),
        method=method,
        kind=kind,
        fixed_choice_interval=None if None in ends else (low, high),
        n_chosen_on=None if n_chosen_on is None else int(n_chosen_on),
        refitted=REFITTED in method,
        counts=SampleSize(n_images, n_patients, n_positive, row.get("effective_patients")),
    )


def _pair(name: str, names: Mapping[str, None]) -> tuple[str, str] | None:
    """Return the two systems if a name is that of a difference, ``A - B``; None otherwise."""
    parts = name.split(_BETWEEN)
    for end in range(1, len(parts)):
        first = _BETWEEN.join(parts[:end])
        second = _BETWEEN.join(parts[end:])
        if first in names and second in names:
            return first, second
    return None


@dataclass(frozen=True)
class PairTests:
    """Look-up in a table of paired tests of systems.

    Except for `single_p_value` and `rows_of`, only tests on all evaluated images (not on a group of
    them) are looked up. Only tests that treat patients as independent are used.

    Attributes:
        table: Table that `paired_tests` returns, one row for each test, with the rows of one unit
            (image, study or patient) only; empty if there are no tests.

    Example:
        >>> PairTests().p_value("A", "B", ("auroc", "")) is None
        True
    """

    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def known(self) -> bool:
        """True if the table has at least one test."""
        return len(self.table) > 0

    def p_value(self, first: str, second: str, key: tuple[str, str]) -> float | None:
        """Return the p-value of a pair, corrected by Holm's method over all pairs of systems.

        Args:
            first: Name of one system.
            second: Name of the other system.
            key: Short name of the metric and rule that chose the threshold, such as ``("recall",
                "max_f1")``; the rule is empty for a figure without a threshold.

        Returns:
            The p-value in [0, 1]; None where there is no test.
        """
        return self._tested(first, second, key, "p_holm_pairs")

    def single_p_value(
        self, first: str, second: str, key: tuple[str, str], subgroup: str = ALL
    ) -> float | None:
        """Return the p-value of one difference, not adjusted for the number of comparisons.

        It agrees with the interval that the difference has if it is considered alone.

        Args:
            first: Name of one system.
            second: Name of the other system.
            key: Short name of the metric and rule that chose the threshold, such as
                ``("recall", "max_f1")``; the rule is empty for a figure without a threshold.
            subgroup: Name of the group of images, such as ``vs_normal`` (positive and normal
                images); all evaluated images by default.

        Returns:
            The p-value in [0, 1]; None where there is no test.
        """
        values = self.rows_of(first, second, key, subgroup=subgroup)
        return float(values.iloc[0]) if len(values) else None

    def detectable(self, first: str, second: str, key: tuple[str, str]) -> float | None:
        """Return the smallest true difference that a study of this size shows with 80 % power.

        Args:
            first: Name of one system.
            second: Name of the other system.
            key: Short name of the metric and rule that chose the threshold, such as ``("recall",
                "max_f1")``; the rule is empty for a figure without a threshold.

        Returns:
            The difference in the unit of the figure, above 0; None where it is unknown.
        """
        return self._tested(first, second, key, "detectable")

    def _tested(self, first: str, second: str, key: tuple[str, str], column: str) -> float | None:
        values = self.rows_of(first, second, key, column)
        return float(values.iloc[0]) if len(values) else None

    def rows_of(
        self,
        first: str,
        second: str,
        key: tuple[str, str],
        column: str = "p_value",
        *,
        subgroup: str = ALL,
    ) -> pd.Series:
        """Return one column of all tests of a pair of systems in one figure.

        Only tests that treat patients as independent are used.

        Args:
            first: Name of one system.
            second: Name of the other system.
            key: Short name of the metric and rule that chose the threshold, such as
                ``("recall", "max_f1")``; the rule is empty for a figure without a threshold.
            column: Name of the column of the table, such as ``p_value`` or ``standard_error``.
            subgroup: Name of the group of images, such as ``vs_normal`` (positive and normal
                images); all evaluated images by default.

        Returns:
            The known values, shape ``(tests,)``, in the order of the table: the test that decides
            comes first.
        """
        if column not in self.table:
            return pd.Series(dtype=np.float64)
        rows = self._rows.get((frozenset((first, second)), *key, subgroup), [])
        return self.table[column].iloc[rows].dropna()

    @cached_property
    def _rows(self) -> dict[tuple[frozenset[str], str, str, str], list[int]]:
        """Numbers of the rows on each question: systems, metric, rule for the threshold, subgroup.

        The look-up is made once, because to filter the table for each question is slow.
        """
        tests = self.table[self.table["independent"] == "patients"]
        numbers = np.flatnonzero(self.table["independent"] == "patients")
        names = ("first", "second", "metric", "policy", "subgroup")
        rows: dict[tuple[frozenset[str], str, str, str], list[int]] = {}
        for number, *row in zip(numbers, *(tests[name] for name in names), strict=True):
            first, second, metric, policy, subgroup = row
            question = frozenset((first, second)), metric, policy, subgroup
            rows.setdefault(question, []).append(int(number))
        return rows
