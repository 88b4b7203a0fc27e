"""All figures of systems and their paired differences, with intervals, and their tidy table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.labelled_images import LabelledImages
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.metrics.registry import METRICS
from cxr_compare.evaluation.statistics.clustered_variance import effective_patients
from cxr_compare.evaluation.statistics.intervals import LEVEL, Interval

COLUMNS = (
    "target",
    "unit",
    "subgroup",
    "kind",
    "system",
    "policy",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_method",
    "n_validation_positive",
    "n_images",
    "n_patients",
    "n_positive",
    "effective_patients",
    "note",
)
"""Columns of the tidy table of `Figures.table`."""
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
_BETWEEN = " - "


def image_blind_name(system: str) -> str:
    """Return the name of the image-blind baseline of a system in all tables."""
    return f"image-blind with {system}'s scores"


IntervalAt = Callable[[float], tuple[float, float]]
IntervalKind = Literal["bootstrap", "obuchowski", "counts", "exact", "seeds"]
_NAMED_FIRST: dict[str, IntervalKind] = {
    "Obuchowski": "obuchowski",
    "Obuchowski-Rockette,": "seeds",
    "counts": "counts",
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
        cls, evaluated: LabelledImages, chosen: npt.NDArray[np.bool_], of_class: str
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
class Figure(Interval):
    """One figure of a system, or the paired difference of two systems in it, with its interval.

    A figure may depend on choices that were made on validation images, such as a threshold. The
    interval of a single figure at a threshold is that of this threshold. For all other figures and
    for differences the bootstrap resamples validation patients as well, and each resample makes the
    choice again, so that the interval includes the uncertainty of the choice.

    The first arguments are the fields of `Interval`: `estimate` (the figure or the difference),
    `ci_low` and `ci_high` (ends of its 95 % interval; NaN where a value is missing) and `note` (the
    reason why it is missing, or a remark).

    Attributes:
        method: Name of the method of the interval, such as "Obuchowski 1997, clustered by patient";
            empty without an interval.
        kind: Kind of that method: ``bootstrap``, ``obuchowski``, ``counts`` (closed, at a
            threshold), ``exact`` or ``seeds`` (over training seeds); `None` without an interval.
        counts: Number of images and patients on which the figure is computed.
        p_value: Two-sided p-value of a difference of 0, or of an AUROC of 0.5; None without a test.
        error: Standard error of a difference; None where it is unknown.
        detectable: Smallest true difference that such a test set shows with 80 % power; None where
            it is unknown.
        n_chosen_on: Number of positive validation images (studies, patients) on which the threshold
            or score cut was chosen; for a difference the smaller number. `None` if nothing was
            chosen.
        refitted: True if the resamples choose the threshold, or the score cut of boxes, again.
        fixed_choices: Names of the validation choices, such as ``calibration``, that no resample
            makes again.
        refitted_choices: Names of the validation choices, such as ``thresholds``, that the
            resamples make again.
        no_claim: Reason why no claim may rest on a difference, which then has no p-value, such as
            that boxes are as stored; empty if one may.
        interval_at: Function from a coverage, such as 0.975, to the ends of the interval of a
            difference; None if the interval can have no other coverage than 95 %.

    Example:
        >>> figure = Figure(0.9, 0.85, 0.95, method="clustered")
        >>> figure.ci_low, figure.refitted
        (0.85, False)
    """

    method: str = ""
    kind: IntervalKind | None = None
    counts: SampleSize = field(default_factory=SampleSize)
    p_value: float | None = None
    error: float | None = None
    detectable: float | None = None
    n_chosen_on: int | None = None
    refitted: bool = False
    fixed_choices: tuple[str, ...] = ()
    refitted_choices: tuple[str, ...] = ()
    no_claim: str = ""
    interval_at: IntervalAt | None = field(default=None, compare=False, repr=False)

    @property
    def effective_patients(self) -> float | None:
        """Effective number of patients; `None` where it is unknown.

        It is the number of patients with one image each that would give as much information.
        """
        return self.counts.effective_patients

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

        Args:
            comparisons: Number of comparisons whose intervals are to contain all true differences
                at once with 95 % probability, at least 1.

        Returns:
            The difference with the wider interval. It has no interval if the one for this number of
            comparisons cannot be computed.
        """
        if comparisons == 1 or not self.bounded:
            return self
        if self.interval_at is None:
            return replace(self, ci_low=np.nan, ci_high=np.nan)
        low, high = self.interval_at(family_level(comparisons))
        return replace(self, ci_low=low, ci_high=high)


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


_ByKey = Mapping[MetricKey, Figure]


@dataclass(frozen=True)
class Figures:
    """All figures and paired differences of a comparison, by image, study or patient.

    Attributes:
        target: Name of the finding, or group of findings, that is evaluated, such as
            ``lung_opacity``.
        unit: Unit that is counted: ``image``, ``study`` or ``patient``.
        systems: Figures of each system by its display name, the reference system first, and by the
            key of the figure (group of images, rule for the threshold, metric).
        differences: Paired differences, first minus second system, by the names of both systems and
            by the key of the figure.
        image_blind: Localisation figures of the image-blind baseline of each system: of constant
            positions with the system's own image scores. Systems that point at no position have
            none.
        over_image_blind: Paired differences of each system minus its image-blind baseline.

    Example:
        >>> Figures("opacity", "study", systems={"A": {}}, differences={}).plural_unit
        'studies'
    """

    target: str
    unit: str
    systems: Mapping[str, Mapping[MetricKey, Figure]]
    differences: Mapping[tuple[str, str], Mapping[MetricKey, Figure]]
    image_blind: Mapping[str, Mapping[MetricKey, Figure]] = field(default_factory=dict)
    over_image_blind: Mapping[str, Mapping[MetricKey, Figure]] = field(default_factory=dict)

    def __repr__(self) -> str:
        count = sum(map(len, self.systems.values()))
        return f"<Figures of {' and '.join(self.systems)} by {self.unit}: {count:,}>"

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

    def get(self, system: str, metric: str, policy: str = "", *, subgroup: str = ALL) -> Figure:
        """Return one figure of a system.

        Args:
            system: Display name of the system, or name of an image-blind baseline.
            metric: Short name of the metric, such as ``auroc``.
            policy: Rule by which the threshold was chosen, such as ``max_f1``; empty for a figure
                without a threshold, such as ``auroc``.
            subgroup: Name of the group of images on which the figure is computed, such as ``all``
                (all evaluated images) or ``vs_normal`` (positive and normal images).

        Returns:
            The figure with its interval; an estimate of NaN if there is no such figure.
        """
        baselines = {image_blind_name(name): of_name for name, of_name in self.image_blind.items()}
        figures = self.systems.get(system, baselines.get(system, {}))
        return figures.get(MetricKey(subgroup, policy, metric), Figure())

    def difference(
        self, first: str, second: str, metric: str, policy: str = "", *, subgroup: str = ALL
    ) -> Figure:
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
        if second == image_blind_name(first):
            return self.over_image_blind.get(first, {}).get(key, Figure())
        stored = self.differences.get((first, second), {}).get(key, Figure())
        if stored.known or stored.note:
            return stored
        return self.differences.get((second, first), {}).get(key, Figure()).reversed()

    def __iter__(self) -> Iterator[tuple[str, MetricKey, Figure]]:
        """Iterate over all figures: display name, key and figure, systems before differences.

        The display name of a difference is ``A - B``. Image-blind baselines, which are named by
        `image_blind_name`, come after the systems, and the differences from them come last.
        """
        for _, name, figures in self._parts():
            for key, figure in figures.items():
                yield name, key, figure

    def _parts(self) -> Iterator[tuple[str, str, Mapping[MetricKey, Figure]]]:
        """Iterate over kind, display name and figures of systems, baselines and differences."""
        for name, figures in self.systems.items():
            yield "system", name, figures
        for name, figures in self.image_blind.items():
            yield "image-blind", image_blind_name(name), figures
        for pair, figures in self.differences.items():
            yield "difference", _BETWEEN.join(pair), figures
        for name, figures in self.over_image_blind.items():
            yield "difference", _BETWEEN.join((name, image_blind_name(name))), figures

    def boxed_positives(self, system: str, key: MetricKey) -> tuple[int, int] | None:
        """Return how many positive images have boxes, and their number with those that lack them.

        Args:
            system: Display name of a system.
            key: Key of the figure.

        Returns:
            Both numbers for a localisation figure that rests on some of the positive images only;
            None for any other figure.
        """
        if key.metric not in METRICS or not METRICS[key.metric].boxed:
            return None
        n_boxed = self.get(system, key.metric, key.policy, subgroup=key.subgroup).counts.n_positive
        n_positive = self.get(system, "auroc").counts.n_positive
        return (n_boxed, n_positive) if 0 < n_boxed < n_positive else None

    def without(self, left_out: Callable[[MetricKey], bool]) -> Figures:
        """Return a copy without the figures and differences whose keys `left_out` selects."""

        def kept(figures: _ByKey) -> dict[MetricKey, Figure]:
            return {key: figure for key, figure in figures.items() if not left_out(key)}

        return replace(
            self,
            systems={name: kept(figures) for name, figures in self.systems.items()},
            differences={pair: kept(figures) for pair, figures in self.differences.items()},
            image_blind={name: kept(figures) for name, figures in self.image_blind.items()},
            over_image_blind={
                name: kept(figures) for name, figures in self.over_image_blind.items()
            },
        )

    def table(self) -> pd.DataFrame:
        """Return a table of all figures and differences, one in each row.

        The columns are those of `COLUMNS`, such as ``kind`` (``system``, ``image-blind`` or
        ``difference``), ``system``, ``metric``, ``estimate``, ``ci_low`` and ``ci_high``. An
        undefined figure is NaN. Thresholds come last.
        """
        rows = [
            {
                "target": self.target,
                "unit": self.unit,
                **key._asdict(),
                "kind": kind,
                "system": name,
                "estimate": figure.estimate,
                "ci_low": figure.ci_low,
                "ci_high": figure.ci_high,
                "ci_method": figure.method,
                "n_validation_positive": figure.n_chosen_on,
                **figure.counts._asdict(),
                "note": figure.note,
            }
            for kind, name, figures in self._parts()
            for key, figure in figures.items()
        ]
        rows.sort(key=lambda row: row["metric"] == "threshold")
        table = pd.DataFrame(rows, columns=list(COLUMNS))
        return table.astype({"n_validation_positive": "Int64"})

    @classmethod
    def from_table(cls, table: pd.DataFrame) -> Figures:
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
        figures: dict[str, dict[MetricKey, Figure]] = {name: {} for name in names}
        for row in rows:
            key = MetricKey(row.get("subgroup") or ALL, row.get("policy", ""), row["metric"])
            figures[row["system"]][key] = _from_row(row)
        alone = [name for name in names if name not in pairs]
        system_of = {image_blind_name(name): name for name in alone}
        of_pair = {pair: figures[name] for name, pair in pairs.items()}
        first = rows[0] if rows else {}
        return cls(
            first.get("target", ""),
            first.get("unit", "image"),
            systems={name: figures[name] for name in alone if name not in system_of},
            differences={
                pair: found for pair, found in of_pair.items() if pair[1] not in system_of
            },
            image_blind={system_of[name]: figures[name] for name in alone if name in system_of},
            over_image_blind={
                pair[0]: found for pair, found in of_pair.items() if pair[1] in system_of
            },
        )


def _from_row(row: Mapping[str, Any]) -> Figure:
    """Read a figure from a row of a stored table, from which missing values are left out."""
    method = str(row.get("ci_method", ""))
    kind = _NAMED_FIRST.get(method.partition(" ")[0], "bootstrap") if method else None
    n_chosen_on = row.get("n_validation_positive")
    n_images, n_patients, n_positive = (int(row.get(name, 0)) for name in SampleSize._fields[:3])
    return Figure(
        estimate=float(row.get("estimate", np.nan)),
        ci_low=float(row.get("ci_low", np.nan)),
        ci_high=float(row.get("ci_high", np.nan)),
        note=row.get("note", ""),
        method=method,
        kind=kind,
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
