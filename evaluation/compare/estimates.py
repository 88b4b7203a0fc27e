"""Every figure of the systems and of their paired differences, and the tidy table made of them."""

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
OVER_SEEDS = "Obuchowski-Rockette, Hillis df, seeds random"
REFITTED, FIXED_CHOICE = "refitted on resampled validation patients", "fixed choice"
"""What the resamples of an interval or test do with what validation chose."""
THRESHOLDS = "thresholds"
_BETWEEN = " - "
_UNKNOWN_ENDS = (np.nan, np.nan)


IntervalKind = Literal["bootstrap", "obuchowski", "exact", "seeds"]
_NAMED_FIRST: dict[str, IntervalKind] = {
    "Obuchowski": "obuchowski",
    "Obuchowski-Rockette,": "seeds",
    "exact": "exact",
}
"""How ``ci_method`` of a stored table begins, for methods other than the bootstrap."""


class SampleSize(NamedTuple):
    """What a figure is computed on; by study or patient ``n_images`` counts these.

    ``effective_patients`` is of the class that the figure is a share of, or of the rarer one;
    see `evaluation.statistics.clustered_variance.effective_patients`.
    """

    n_images: int = 0
    n_patients: int = 0
    n_positive: int = 0
    effective_patients: float | None = None

    @classmethod
    def from_images(
        cls, evaluated: EvaluationSet, chosen: npt.NDArray[np.bool_], of_class: str
    ) -> SampleSize:
        """Some of the evaluated images: a share of the positive or negative ones, or of all."""
        of_classes = {"positive": chosen & evaluated.y_true, "negative": chosen & ~evaluated.y_true}
        effective = {
            name: effective_patients(np.bincount(evaluated.patients[images]))
            for name, images in of_classes.items()
        }
        return cls(
            n_images=int(chosen.sum()),
            n_patients=len(np.unique(evaluated.patients[chosen])),
            n_positive=int(of_classes["positive"].sum()),
            effective_patients=effective.get(of_class, min(effective.values())),
        )


@dataclass(frozen=True)
class Estimate(Interval):
    """One figure of one system, or of the difference of two.

    Attributes:
        method: What gave the interval, as in ``ci_method``.
        kind: The kind of that method; `None` without an interval.
        counts: What it is computed on.
        family: Of a difference, the ends of its interval as one of 1, 2, 3, ... comparisons: the
            ``k``-th pair covers `family_level` ``(k)``.
        fixed_choice_interval: Ends of the interval with fixed choices, where resamples of
            validation make the choices again for the interval itself; else `None`.
        n_chosen_on: Positive validation images (studies, patients) that its threshold or score cut
            was chosen on, of a difference the fewer of both systems'; `None` without such a choice.
        refitted: Whether the resamples choose its threshold, or score cut of boxes, again.
        fixed_choices: What validation chose for it, too, and no resample chooses again.
    """

    method: str = ""
    kind: IntervalKind | None = None
    counts: SampleSize = field(default_factory=SampleSize)
    family: tuple[tuple[float, float], ...] = ()
    fixed_choice_interval: tuple[float, float] | None = None
    n_chosen_on: int | None = None
    refitted: bool = False
    fixed_choices: tuple[str, ...] = ()

    @property
    def effective_patients(self) -> float | None:
        """See `SampleSize`; `None` where unknown."""
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
        """The figure with its interval as one of so many comparisons; without one where unknown."""
        if comparisons == 1 or not self.bounded:
            return self
        known = comparisons <= len(self.family)
        low, high = self.family[comparisons - 1] if known else (np.nan, np.nan)
        return replace(self, low=low, high=high)


Differences = Mapping[tuple[str, str], Mapping[MetricKey, Floats | ClusteredEstimate]]
"""By pair and figure: replicates of the difference, or, of several seeds, its estimate."""


def is_chosen(policy: str) -> bool:
    """Whether another validation set may choose another threshold for a policy.

    A declared one is no choice, and a guarantee is one of the threshold as it is.
    """
    return bool(policy) and check_policy(policy).kind not in ("threshold", "guarantee")


def of_choices(choices: Mapping[str, bool]) -> str:
    """What the method of an interval does with the choices on validation behind a figure.

    Example:
        >>> of_choices({"thresholds": True, "calibration": False})
        ', thresholds refitted on resampled validation patients, fixed choice: calibration'
    """
    again, held = ([name for name in choices if choices[name] == made] for made in (True, False))
    words = f", {listing(again)} {REFITTED}" if again else ""
    return f"{words}, {FIXED_CHOICE}: {listing(held)}" if held else words


def family_level(comparisons: int) -> float:
    """Coverage of each of several intervals that all hold at once in 95 % of cases (Bonferroni)."""
    return 1 - (1 - LEVEL) / max(comparisons, 1)


def family_levels(n_systems: int) -> list[float]:
    """Levels of the intervals of a difference as one of 1, 2, 3, ... comparisons, of all claims."""
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
        """Coverage of each interval, so that all contrasts with the reference hold at once."""
        return family_level(len(self.systems) - 1)

    def get(self, system: str, metric: str, policy: str = "", *, subgroup: str = ALL) -> Estimate:
        """A system's figure; undefined where there is none."""
        return self.systems.get(system, {}).get(MetricKey(subgroup, policy, metric), Estimate())

    def difference(
        self, first: str, second: str, metric: str, policy: str = "", *, subgroup: str = ALL
    ) -> Estimate:
        """The paired difference first - second, whichever way round it is stored."""
        key = MetricKey(subgroup, policy, metric)
        stored = self.differences.get((first, second), {}).get(key, Estimate())
        if stored.known or stored.note:
            return stored
        return self.differences.get((second, first), {}).get(key, Estimate()).reversed()

    def __iter__(self) -> Iterator[tuple[str, MetricKey, Estimate]]:
        """Every figure with its display name, systems before differences."""
        named = [*self.systems.items()]
        named += [(_BETWEEN.join(pair), of_pair) for pair, of_pair in self.differences.items()]
        for name, estimates in named:
            yield from ((name, key, estimate) for key, estimate in estimates.items())

    def changed(
        self, change: Callable[[tuple[str, ...], MetricKey, Estimate], Estimate | None]
    ) -> Estimates:
        """Each estimate of one system, or of the difference of two, changed; `None` drops it."""

        def of(names: tuple[str, ...], estimates: _ByKey) -> dict[MetricKey, Estimate]:
            new = {key: change(names, key, estimate) for key, estimate in estimates.items()}
            return {key: estimate for key, estimate in new.items() if estimate is not None}

        return replace(
            self,
            systems={name: of((name,), each) for name, each in self.systems.items()},
            differences={pair: of(pair, each) for pair, each in self.differences.items()},
        )

    def merged(self, other: Estimates, subgroup: str) -> Estimates:
        """These, and those of the same systems on all images of another set, as a subgroup."""

        def joined(estimates: _ByKey, more: _ByKey) -> dict[MetricKey, Estimate]:
            return {**estimates, **{k._replace(subgroup=subgroup): e for k, e in more.items()}}

        return replace(
            self,
            systems={n: joined(each, other.systems[n]) for n, each in self.systems.items()},
            differences={
                pair: joined(each, other.differences[pair])
                for pair, each in self.differences.items()
            },
        )

    def table(self) -> pd.DataFrame:
        """The tidy table, with the columns of `COLUMNS`; an undefined figure is NaN."""
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
        # Estimates on other images, and thresholds, stand after all others.
        rows.sort(key=lambda r: r["subgroup"] in (AGAINST, FOR) or r["metric"] == "threshold")
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table.astype({"n_validation_positive": "Int64"})

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Estimates:
        """Read estimates from the tidy table of one target and unit, as a report has it."""
        rows: list[dict[str, Any]] = [
            {str(key): value for key, value in row.items() if not pd.isna(value)}
            for row in table.to_dict("records")
        ]
        names = dict.fromkeys(row["system"] for row in rows)
        pairs = {name: pair for name in names if (pair := _pair(name, names)) is not None}
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
    """An estimate of a stored table, whose row leaves out what is missing."""
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
    """The two systems that a name is the difference of; `None` for one system."""
    parts = name.split(_BETWEEN)
    for end in range(1, len(parts)):
        first, second = _BETWEEN.join(parts[:end]), _BETWEEN.join(parts[end:])
        if first in names and second in names:
            return first, second
    return None


@dataclass(frozen=True)
class PairTests:
    """The tests of pairs of systems on all images, as `paired_tests` gives them."""

    table: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def known(self) -> bool:
        """Whether there are tests."""
        return len(self.table) > 0

    def p_value(self, first: str, second: str, key: tuple[str, str]) -> float | None:
        """Holm's p-value over all pairs of one metric and policy, where it is known."""
        return self._tested(first, second, key, "p_holm_pairs")

    def detectable(self, first: str, second: str, key: tuple[str, str]) -> float | None:
        """The smallest difference of a figure that the test set could have shown."""
        return self._tested(first, second, key, "detectable")

    def _tested(self, first: str, second: str, key: tuple[str, str], column: str) -> float | None:
        values = self.rows_of(first, second, key, column)
        return float(values.iloc[0]) if len(values) else None

    def rows_of(
        self, first: str, second: str, key: tuple[str, str], column: str = "p_value"
    ) -> pd.Series:
        """A column, where known, of a pair on all images, by patient; its own test comes first."""
        table = self.table
        if column not in table:
            return pd.Series(dtype=np.float64)
        of = table["first"].isin([first, second]) & table["second"].isin([first, second])
        of &= (table["metric"] == key[0]) & (table["policy"] == key[1])
        of &= (table["subgroup"] == ALL) & (table["independent"] == "patients")
        return table.loc[of, column].dropna()
