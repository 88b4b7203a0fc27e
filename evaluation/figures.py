"""All figures of systems and their paired differences: rows of one table, with intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pandas as pd

from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

COLUMNS = (
    "target",
    "unit",
    "subgroup",
    "kind",
    "first",
    "second",
    "policy",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_method",
    "p_value",
    "n_validation_positive",
    "n_images",
    "n_patients",
    "n_positive",
    "effective_patients",
    "note",
)
"""Columns of the table of `Figures.table`.

``first`` is a system, and ``second`` the system whose figure is subtracted; it is empty in the row
of one system.
"""
TIDY_COLUMNS = (
    "first",
    "second",
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
_IMAGE_BLIND = "image-blind with {}'s scores"


def image_blind_name(system: str) -> str:
    """Return the name of the image-blind baseline of a system in all tables."""
    return _IMAGE_BLIND.format(system)


IntervalAt = Callable[[float], tuple[float, float]]
IntervalKind = Literal["bootstrap", "obuchowski", "counts", "exact", "seeds"]
_NAMED_FIRST: dict[str, IntervalKind] = {
    "Obuchowski": "obuchowski",
    "Obuchowski-Rockette,": "seeds",
    "counts": "counts",
    "exact": "exact",
}
"""Kind of an interval by the first word of ``ci_method``; all other words mean the bootstrap."""


@dataclass(frozen=True)
class Figure(Interval):
    """One figure of a system, or the paired difference of two systems in it, with its interval.

    A figure may depend on choices that were made on validation images, such as a threshold. The
    interval of a single figure at a threshold is that of this threshold. For all other figures and
    for differences the bootstrap resamples validation patients as well, and each resample makes the
    choice again, so that the interval includes the uncertainty of the choice.

    Attributes:
        method: Name of the method of the interval, such as "Obuchowski 1997, clustered by patient";
            empty without an interval.
        kind: Kind of that method: ``bootstrap``, ``obuchowski``, ``counts`` (closed, at a
            threshold), ``exact`` or ``seeds`` (over training seeds); `None` without an interval.
        n_images: Number of images on which the figure is computed; number of studies or patients if
            it is computed by these.
        n_patients: Number of patients who have these images (studies).
        n_positive: Number of positive images (studies, patients).
        effective_patients: Effective number of patients: how many patients with one image each
            would give as much information. It is that of the positive or negative class if the
            figure is a share of this class (such as a sensitivity), otherwise of the class with
            fewer. `None` where it is unknown.
        p_value: Two-sided p-value of a difference of 0, or of an AUROC of 0.5; None without a test.
        error: Standard error of a difference; None where it is unknown.
        detectable: Smallest true difference that such a test set shows with 80 % power; None where
            it is unknown.
        n_chosen_on: Number of positive validation images (studies, patients) on which the threshold
            or score cut was chosen; for a difference the smaller number. `None` if nothing was
            chosen.
        refitted: True if the resamples choose the threshold, or the score cut of boxes, again.
        choices: Validation choices behind the figure by name, such as ``thresholds``: True if the
            resamples make them again.
        no_claim: Reason why no claim may rest on a difference, which then has no p-value, such as
            that boxes are as stored; empty if one may.
        interval_at: Function from a coverage, such as 0.975, to the ends of the interval of a
            difference; None if the interval can have no other coverage than 95 %.
    """

    method: str = ""
    kind: IntervalKind | None = None
    n_images: int = 0
    n_patients: int = 0
    n_positive: int = 0
    effective_patients: float | None = None
    p_value: float | None = None
    error: float | None = None
    detectable: float | None = None
    n_chosen_on: int | None = None
    refitted: bool = False
    choices: Mapping[str, bool] = field(default_factory=dict)
    no_claim: str = ""
    interval_at: IntervalAt | None = field(default=None, compare=False, repr=False)

    def reversed(self) -> Figure:
        """Return the difference with the two systems exchanged: B - A instead of A - B."""
        ends_at = self.interval_at

        def turned(level: float) -> tuple[float, float]:
            low, high = (np.nan, np.nan) if ends_at is None else ends_at(level)
            return -high, -low

        return replace(
            self,
            estimate=-self.estimate,
            ci_low=-self.ci_high,
            ci_high=-self.ci_low,
            interval_at=None if ends_at is None else turned,
        )

    def within(self, comparisons: int) -> Figure:
        """Return the difference with the wider interval that it has among several comparisons.

        The intervals of all of them contain all true differences at once with 95 % probability. The
        difference has no interval if the one for this number of comparisons cannot be computed.
        """
        if comparisons == 1 or not self.bounded:
            return self
        if self.interval_at is None:
            return replace(self, ci_low=np.nan, ci_high=np.nan)
        low, high = self.interval_at(family_level(comparisons))
        return replace(self, ci_low=low, ci_high=high)


def choices_text(choices: Mapping[str, bool]) -> str:
    """Return the part of a method's name that lists the validation choices behind a figure.

    `choices` is that of a `Figure`. The text begins with a comma, or is empty without a choice.

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

    It is ``1 - 0.05 / comparisons``, the Bonferroni correction.
    """
    return 1 - (1 - LEVEL) / max(comparisons, 1)


@dataclass(frozen=True)
class Figures:
    """All figures and paired differences of a comparison, by image, study or patient.

    Attributes:
        target: Name of the finding, or group of findings, that is evaluated, such as
            ``lung_opacity``.
        unit: Unit that is counted: ``image``, ``study`` or ``patient``.
        systems: Display names of the systems, the reference system first.
        rows: Figures by the names of a first and a second system, and by the key of the figure
            (group of images, rule for the threshold, metric). A figure with a second system is the
            paired difference, first minus second; the second name is empty for the figure of one
            system. The image-blind baseline of a system (constant positions with the system's own
            image scores) stands under its `image_blind_name`, in localisation figures only.
    """

    target: str
    unit: str
    systems: tuple[str, ...]
    rows: Mapping[tuple[str, str], Mapping[MetricKey, Figure]] = field(default_factory=dict)

    def __repr__(self) -> str:
        count = sum(len(self.of(name)) for name in self.systems)
        return f"<Figures of {' and '.join(self.systems)} by {self.unit}: {count:,}>"

    @property
    def plural_unit(self) -> str:
        """Plural of the unit: ``images``, ``studies`` or ``patients``."""
        return {"study": "studies"}.get(self.unit, f"{self.unit}s")

    def of(self, first: str, second: str = "") -> Mapping[MetricKey, Figure]:
        """Return the figures of one system, or the differences of two, by key; may be empty."""
        return self.rows.get((first, second), {})

    def get(self, system: str, metric: str, policy: str = "", *, subgroup: str = ALL) -> Figure:
        """Return one figure of a system or of an image-blind baseline.

        The estimate is NaN if there is no such figure. `policy` is empty for a figure without a
        threshold, such as ``auroc``.
        """
        return self.of(system).get(MetricKey(subgroup, policy, metric), Figure())

    def difference(
        self, first: str, second: str, metric: str, policy: str = "", *, subgroup: str = ALL
    ) -> Figure:
        """Return the paired difference of two systems in one figure, first minus second.

        The order in which the pair is stored does not matter. The estimate is NaN if there is no
        such difference.
        """
        key = MetricKey(subgroup, policy, metric)
        stored = self.of(first, second).get(key, Figure())
        if stored.known or stored.note:
            return stored
        return self.of(second, first).get(key, Figure()).reversed()

    def __iter__(self) -> Iterator[tuple[str, str, MetricKey, Figure]]:
        """Iterate over all figures: first and second system, key and figure."""
        for (first, second), figures in self.rows.items():
            for key, figure in figures.items():
                yield first, second, key, figure

    def kind(self, first: str, second: str) -> str:
        """Return the kind of a row: ``system``, ``image-blind`` or ``difference``."""
        if second:
            return "difference"
        return "system" if first in self.systems else "image-blind"

    def boxed_positives(self, system: str, key: MetricKey) -> tuple[int, int] | None:
        """Return how many positive images have boxes, and their number with those that lack them.

        The result is None unless the figure is a localisation figure that rests on some of the
        positive images only.
        """
        if key.metric not in METRICS or not METRICS[key.metric].boxed:
            return None
        n_boxed = self.get(system, key.metric, key.policy, subgroup=key.subgroup).n_positive
        n_positive = self.get(system, "auroc").n_positive
        return (n_boxed, n_positive) if 0 < n_boxed < n_positive else None

    def without(self, left_out: Callable[[MetricKey], bool]) -> Figures:
        """Return a copy without the figures and differences whose keys `left_out` selects."""
        rows = {
            names: {key: figure for key, figure in figures.items() if not left_out(key)}
            for names, figures in self.rows.items()
        }
        return replace(self, rows=rows)

    def table(self) -> pd.DataFrame:
        """Return a table of all figures and differences, one in each row.

        The columns are those of `COLUMNS`, such as ``kind`` (``system``, ``image-blind`` or
        ``difference``), ``first``, ``second``, ``metric``, ``estimate``, ``ci_low`` and
        ``ci_high``. An undefined figure is NaN. Thresholds come last.
        """
        rows = [
            {
                "target": self.target,
                "unit": self.unit,
                **key._asdict(),
                "kind": self.kind(first, second),
                "first": first,
                "second": second,
                "estimate": figure.estimate,
                "ci_low": figure.ci_low,
                "ci_high": figure.ci_high,
                "ci_method": figure.method,
                "p_value": figure.p_value,
                "n_validation_positive": figure.n_chosen_on,
                "n_images": figure.n_images,
                "n_patients": figure.n_patients,
                "n_positive": figure.n_positive,
                "effective_patients": figure.effective_patients,
                "note": figure.note,
            }
            for first, second, key, figure in self
        ]
        rows.sort(key=lambda row: row["metric"] == "threshold")
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table.astype({"n_validation_positive": "Int64", "p_value": "float64"})

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Figures:
        """Read figures and differences from a table that `table` returned.

        The table has one ``target`` and one ``unit``. The wider intervals for several comparisons
        are missing, because the table does not hold them.
        """
        rows: dict[tuple[str, str], dict[MetricKey, Figure]] = {}
        for row in table.to_dict("records"):
            known = {str(name): value for name, value in row.items() if not pd.isna(value)}
            key = MetricKey(row["subgroup"], row["policy"], row["metric"])
            rows.setdefault((row["first"], row["second"]), {})[key] = _from_row(known)
        systems = dict.fromkeys(table.loc[table["kind"] == "system", "first"])
        first = table.iloc[0] if len(table) else {"target": "", "unit": "image"}
        return cls(first["target"], first["unit"], tuple(systems), rows)


def _from_row(row: Mapping[str, Any]) -> Figure:
    """Read a figure from a row of a stored table, from which missing values are left out."""
    method = str(row.get("ci_method", ""))
    kind = _NAMED_FIRST.get(method.partition(" ")[0], "bootstrap") if method else None
    n_chosen_on = row.get("n_validation_positive")
    return Figure(
        estimate=float(row.get("estimate", np.nan)),
        ci_low=float(row.get("ci_low", np.nan)),
        ci_high=float(row.get("ci_high", np.nan)),
        note=row.get("note", ""),
        method=method,
        kind=kind,
        n_images=int(row.get("n_images", 0)),
        n_patients=int(row.get("n_patients", 0)),
        n_positive=int(row.get("n_positive", 0)),
        effective_patients=row.get("effective_patients"),
        p_value=row.get("p_value"),
        n_chosen_on=None if n_chosen_on is None else int(n_chosen_on),
        refitted=REFITTED in method,
    )
