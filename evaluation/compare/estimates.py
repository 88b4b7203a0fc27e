"""Estimates: every figure of the systems and of their differences, and the tidy table of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.decisions.ground_truth import EvaluationSet
from cxr_compare.evaluation.decisions.thresholds import check_policy
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
"""Columns of `Estimates.table`."""
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
"""Columns of `to_frame` of every result."""
AGAINST, FOR = "all_against", "all_for"
"""Subgroups of all images that any system should have run on: one without a result or a known
label counts against each system, or for it."""
CORRECTED = "all_corrected"
"""Subgroup of all images, with figures that are corrected for a stated error of the labels."""
_LAST = (AGAINST, FOR, CORRECTED)
OVER_SEEDS = "Obuchowski-Rockette, Hillis df, seeds random"
REFITTED = "refitted on resampled validation patients"
FIXED_CHOICE = "fixed choice"
"""Words in the method of an interval or test: choices of validation made again, or fixed."""
THRESHOLDS = "thresholds"
_BETWEEN = " - "
_UNKNOWN_ENDS = (np.nan, np.nan)


IntervalKind = Literal["bootstrap", "obuchowski", "exact", "seeds"]
_NAMED_FIRST: dict[str, IntervalKind] = {
    "Obuchowski": "obuchowski",
    "Obuchowski-Rockette,": "seeds",
    "exact": "exact",
}
"""First word of ``ci_method`` in a stored table, for methods other than the bootstrap."""


class SampleSize(NamedTuple):
    """Number of images and patients that a figure is computed on.

    By study or patient, ``n_images`` counts studies or patients. ``effective_patients`` counts
    those of the class that the figure is a share of, otherwise of the rarer class; see
    `evaluation.statistics.clustered_variance.effective_patients`.
    """

    n_images: int = 0
    n_patients: int = 0
    n_positive: int = 0
    effective_patients: float | None = None

    @classmethod
    def from_images(
        cls, evaluated: EvaluationSet, chosen: npt.NDArray[np.bool_], of_class: str
    ) -> SampleSize:
        """Count chosen images of an evaluation.

        Args:
            evaluated: The evaluated images.
            chosen: True for the images that count, shape ``(N,)``.
            of_class: ``positive`` or ``negative`` for a share of these; empty for another figure.
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
    """One figure of one system, or of the difference of two.

    Attributes:
        method: Method of the interval, as in ``ci_method``.
        kind: Kind of that method; `None` without an interval.
        counts: Number of images and patients that it is computed on.
        family: For a difference, the ends of its interval as one of 1, 2, 3, ... comparisons: the
            ``k``-th pair covers `family_level` ``(k)``.
        fixed_choice_interval: Ends of the interval with fixed choices, where resamples of
            validation make the choices again for the interval itself; else `None`.
        n_chosen_on: Number of positive validation images (studies, patients) that its threshold or
            score cut was chosen on; for a difference the smaller number. `None` without a choice.
        refitted: True if the resamples choose its threshold, or score cut of boxes, again.
        fixed_choices: Further choices of validation that no resample makes again.
        refitted_choices: Names of the choices that the resamples make again.

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
        """Effective number of patients, see `SampleSize`; `None` where unknown."""
        return self.counts.effective_patients

    def reversed(self) -> Estimate:
        """Return the same difference, taken the other way round."""
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
        """Return the figure with its interval as one of several comparisons; none where unknown."""
        if comparisons == 1 or not self.bounded:
            return self
        known = comparisons <= len(self.family)
        low, high = self.family[comparisons - 1] if known else (np.nan, np.nan)
        return replace(self, low=low, high=high)


Differences = Mapping[tuple[str, str], Mapping[MetricKey, Floats | ClusteredEstimate]]
"""Replicates of the difference by pair and figure; with several seeds, its estimate."""


def is_chosen(policy: str) -> bool:
    """Return True if another validation set may choose another threshold for a policy.

    A declared threshold is no choice, and a guarantee is about the threshold as it is.

    Example:
        >>> is_chosen("max_f1"), is_chosen("threshold=0.5")
        (True, False)
    """
    return bool(policy) and check_policy(policy).kind not in ("threshold", "guarantee")


def choices_text(choices: Mapping[str, bool]) -> str:
    """Return the end of a method's name, on the choices of validation behind a figure.

    Args:
        choices: Names of the choices: True for those that resamples make again.

    Example:
        >>> choices_text({"thresholds": True, "calibration": False})
        ', thresholds refitted on resampled validation patients, fixed choice: calibration'
    """
    refitted = [name for name, made_again in choices.items() if made_again]
    fixed = [name for name, made_again in choices.items() if not made_again]
    text = f", {listing(refitted)} {REFITTED}" if refitted else ""
    return f"{text}, {FIXED_CHOICE}: {listing(fixed)}" if fixed else text


def family_level(comparisons: int) -> float:
    """Return the coverage of each interval if several shall hold at once with 95 % (Bonferroni).

    Example:
        >>> family_level(1), family_level(2)
        (0.95, 0.975)
    """
    return 1 - (1 - LEVEL) / max(comparisons, 1)


def family_levels(n_systems: int) -> list[float]:
    """Return the levels of a difference as one of 1, 2, 3, ... comparisons, for all claims."""
    return [family_level(size) for size in range(1, max(10, n_systems) * (n_systems - 1) + 1)]


_ByKey = Mapping[MetricKey, Estimate]


@dataclass(frozen=True)
class Estimates:
    """Every figure of a comparison by image, study or patient.

    Attributes:
        target: Name of the target.
        unit: ``image``, ``study`` or ``patient``.
        systems: By display name and metric, the reference system first.
        differences: By first and second system and metric.

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
        """Coverage of each interval for which all contrasts with the reference hold at once."""
        return family_level(len(self.systems) - 1)

    def get(self, system: str, metric: str, policy: str = "", *, subgroup: str = ALL) -> Estimate:
        """Return a figure of a system; an undefined one where there is none.

        Args:
            system: Display name.
            metric: Short name of the metric.
            policy: Threshold policy; empty for a figure without a threshold.
            subgroup: Images that it is computed on.
        """
        return self.systems.get(system, {}).get(MetricKey(subgroup, policy, metric), Estimate())

    def difference(
        self, first: str, second: str, metric: str, policy: str = "", *, subgroup: str = ALL
    ) -> Estimate:
        """Return the paired difference first - second, in whichever order it is stored."""
        key = MetricKey(subgroup, policy, metric)
        stored = self.differences.get((first, second), {}).get(key, Estimate())
        if stored.known or stored.note:
            return stored
        return self.differences.get((second, first), {}).get(key, Estimate()).reversed()

    def __iter__(self) -> Iterator[tuple[str, MetricKey, Estimate]]:
        """Iterate over all figures with their display names, systems before differences."""
        for name, estimates in self.systems.items():
            for key, estimate in estimates.items():
                yield name, key, estimate
        for pair, estimates in self.differences.items():
            for key, estimate in estimates.items():
                yield _BETWEEN.join(pair), key, estimate

    def changed(
        self, change: Callable[[tuple[str, ...], MetricKey, Estimate], Estimate | None]
    ) -> Estimates:
        """Return the estimates after a change of each.

        Args:
            change: Function of one or two system names, the metric and the estimate; it returns the
                new estimate, or `None` to drop it.
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

    def merged(self, other: Estimates, subgroup: str) -> Estimates:
        """Add the estimates of the same systems on other images, as a subgroup.

        Args:
            other: Estimates on the other images.
            subgroup: Name of the subgroup.
        """

        def joined(estimates: _ByKey, more: _ByKey) -> dict[MetricKey, Estimate]:
            renamed = {key._replace(subgroup=subgroup): value for key, value in more.items()}
            return {**estimates, **renamed}

        return replace(
            self,
            systems={
                name: joined(estimates, other.systems[name])
                for name, estimates in self.systems.items()
            },
            differences={
                pair: joined(estimates, other.differences[pair])
                for pair, estimates in self.differences.items()
            },
        )

    def table(self) -> pd.DataFrame:
        """Return the tidy table with the columns of `COLUMNS`; an undefined figure is NaN."""
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
        # Estimates on other images, and thresholds, come after all others.
        rows.sort(
            key=lambda row: (
                row["subgroup"] in (AGAINST, FOR, CORRECTED) or row["metric"] == "threshold"
            )
        )
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table.astype({"n_validation_positive": "Int64"})

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Estimates:
        """Read estimates from the tidy table of one target and unit, as a report stores it."""
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
    """Read an estimate from a row of a stored table without its missing values."""
    method = str(row.get("ci_method", ""))
    kind = _NAMED_FIRST.get(method.partition(" ")[0], "bootstrap") if method else None
    ends = [row.get(f"ci_{end}_fixed_choice", row.get(f"ci_{end}_held")) for end in ("low", "high")]
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
    """Return the two systems of a difference; None for the name of one system."""
    parts = name.split(_BETWEEN)
    for end in range(1, len(parts)):
        first = _BETWEEN.join(parts[:end])
        second = _BETWEEN.join(parts[end:])
        if first in names and second in names:
            return first, second
    return None


@dataclass(frozen=True)
class PairTests:
    """Tests of pairs of systems on all images, as `paired_tests` gives them."""

    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def known(self) -> bool:
        """True if there are tests."""
        return len(self.table) > 0

    def p_value(self, first: str, second: str, key: tuple[str, str]) -> float | None:
        """Return Holm's p-value over all pairs of one metric and policy, where it is known."""
        return self._tested(first, second, key, "p_holm_pairs")

    def single_p_value(
        self, first: str, second: str, key: tuple[str, str], subgroup: str = ALL
    ) -> float | None:
        """Return the p-value of one difference alone, where it is known.

        It belongs to the interval of this difference alone, so it is not adjusted for the number
        of comparisons.
        """
        values = self.rows_of(first, second, key, subgroup=subgroup)
        return float(values.iloc[0]) if len(values) else None

    def detectable(self, first: str, second: str, key: tuple[str, str]) -> float | None:
        """Return the smallest difference of a figure that the test set could have shown."""
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
        """Return a column of the tests of a pair, where known, by patient.

        Args:
            first: One system.
            second: The other system.
            key: Metric and policy.
            column: Name of the column.
            subgroup: Subgroup of the images; all images by default.

        Returns:
            The values; the metric's own test comes first.
        """
        table = self.table
        if column not in table:
            return pd.Series(dtype=np.float64)
        pair = [first, second]
        rows = table["first"].isin(pair) & table["second"].isin(pair)
        rows &= (table["metric"] == key[0]) & (table["policy"] == key[1])
        rows &= (table["subgroup"] == subgroup) & (table["independent"] == "patients")
        return table.loc[rows, column].dropna()
