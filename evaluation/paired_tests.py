"""Tests of the paired differences between systems in all figures.

Patients are taken as independent. For AUROC by image, tests that take images as independent are
listed as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.evaluated_model import Models, images_of
from cxr_compare.evaluation.figure_intervals import seed_parts, subgroups_of
from cxr_compare.evaluation.figures import (
    OVER_SEEDS,
    REFITTED,
    Figure,
    Figures,
    image_blind_name,
)
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, auroc_over_seeds
from cxr_compare.evaluation.statistics.clustered_estimate import ClusteredEstimate
from cxr_compare.evaluation.statistics.holm import holm

TEST_COLUMNS = (
    "target",
    "unit",
    "subgroup",
    "policy",
    "metric",
    "first",
    "second",
    "method",
    "independent",
    "estimate",
    "ci_low",
    "ci_high",
    "ci_low_all",
    "ci_high_all",
    "standard_error",
    "p_value",
    "p_holm",
    "p_holm_pairs",
    "detectable",
    "n_images",
    "n_patients",
    "note",
)
"""Columns of the table of tests.

``independent`` says if patients or images are taken as independent. ``ci_low_all`` and
``ci_high_all`` are the ends of the interval that holds for all differences from the reference
system at once. ``p_holm_pairs`` is corrected over all pairs of systems, ``p_holm`` over all
comparisons of an answer. ``detectable`` is the smallest true difference that such a test set shows
with 80 % power.
"""
_FAMILY = ["unit", "subgroup", "policy", "metric", "method"]
_NUMBERS = (
    "ci_low",
    "ci_high",
    "ci_low_all",
    "ci_high_all",
    "standard_error",
    "p_value",
    "p_holm",
    "p_holm_pairs",
    "detectable",
)


def resampled_tests(figures: Figures) -> pd.DataFrame:
    """List the tests of all paired differences that rest on replicates.

    Args:
        figures: Figures of all systems and their paired differences, with p-values.

    Returns:
        Table with the columns of `TEST_COLUMNS`, such as ``first`` and ``second`` (names of the
        systems), ``metric``, ``method`` and ``p_value``: one row for each difference other than of
        AUROCs.
    """
    rows = [
        _resampled_test(figures, pair, key, figure)
        for pair, of_pair in figures.differences.items()
        for key, figure in of_pair.items()
        if figure.known and key.metric != "auroc" and not figure.no_claim
    ]
    return _test_table(rows)


def _image_blind_tests(figures: Figures) -> pd.DataFrame:
    """List the tests of each system against its image-blind baseline, which is no further system.

    So they are no part of the corrections for all systems and pairs of systems.
    """
    no_correction = {"ci_low_all": None, "ci_high_all": None}
    rows = [
        _resampled_test(figures, (name, image_blind_name(name)), key, figure) | no_correction
        for name, of_system in figures.over_image_blind.items()
        for key, figure in of_system.items()
        if figure.known and not figure.no_claim
    ]
    return _test_table(rows)


def _test_table(rows: Sequence[Mapping[Any, Any]]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=list(TEST_COLUMNS))
    return table.astype(dict.fromkeys(_NUMBERS, "float64"))


def _resampled_test(
    figures: Figures, pair: tuple[str, str], key: MetricKey, figure: Figure
) -> dict[str, Any]:
    method = SEEDS_TEST if figure.kind == "seeds" else BOOTSTRAP
    if figure.refitted and figure.kind != "seeds":
        method = REFITTED_TEST
    row: dict[str, Any] = {
        "target": figures.target,
        "unit": figures.unit,
        **key._asdict(),
        "first": pair[0],
        "second": pair[1],
        "method": method,
        "independent": "patients",
        "estimate": figure.estimate,
        "ci_low": figure.ci_low,
        "ci_high": figure.ci_high,
        "standard_error": figure.error,
        "p_value": figure.p_value,
        "detectable": figure.detectable,
        "n_images": figure.counts.n_images,
        "n_patients": figure.counts.n_patients,
        "note": figure.note,
    }
    if figure.bounded and pair[0] == next(iter(figures.systems)):
        wide = figure.within(len(figures.systems) - 1)
        row |= {"ci_low_all": wide.ci_low, "ci_high_all": wide.ci_high}
    return row


def _adjusted(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join tables of tests, and correct the p-values of all pairs of systems by Holm's method.

    The pairs with the same unit, subgroup, policy, metric and method are corrected together, in the
    column ``p_holm_pairs``. The column ``p_holm`` is filled by `Comparison.tests_with_holm`.
    """
    rows: list[dict[Any, Any]] = [row for table in tables for row in table.to_dict("records")]
    families: dict[tuple[str, ...], list[dict[Any, Any]]] = {}
    for row in rows:
        if row["second"]:
            families.setdefault(tuple(row[key] for key in _FAMILY), []).append(row)
    for pairs in families.values():
        values = [None if pd.isna(row["p_value"]) else float(row["p_value"]) for row in pairs]
        for row, p_value in zip(pairs, holm(values), strict=True):
            row["p_holm_pairs"] = p_value
    return _test_table(rows)


DELONG = "DeLong 1988, images taken as independent"
REFITTED_TEST = f"{BOOTSTRAP}, choices {REFITTED}"
"""Name of the test if a threshold, or a score cut of boxes, was chosen on validation."""
SEEDS_TEST = f"{OVER_SEEDS}; covariances of the {BOOTSTRAP.removesuffix(' percentile')}"
"""Name of the test of a figure other than AUROC if a system has several training seeds."""


def paired_tests(
    figures: Figures, models: Models, more: pd.DataFrame | None = None
) -> pd.DataFrame:
    """List the tests of the difference of every pair of systems in every figure.

    AUROC is tested by Obuchowski's method, and all other figures by the bootstrap, in which each
    resample chooses thresholds again. By image, AUROC is tested by DeLong's method, too.

    Args:
        figures: Figures and paired differences with intervals and p-values.
        models: Evaluated models of each system by its display name, one for each training seed.
        more: Table of further tests with the same columns, such as those of figures by study or
            patient, to be added; `None` adds none.

    Returns:
        Table with one row for each test and the columns of `TEST_COLUMNS`, such as ``first`` and
        ``second`` (names of the systems), ``metric``, ``policy`` (rule for the threshold),
        ``method``, ``estimate`` (first minus second system) and ``p_value``. A row on the AUROC of
        one system has an empty ``second`` and no p-value.

    Source:
        Obuchowski 1997; DeLong et al. 1988; Holm 1979.

    Example:
        >>> from cxr_compare.evaluation.choices import Choices
        >>> from cxr_compare.evaluation.evaluated_model import EvaluatedModel
        >>> from cxr_compare.evaluation.figure_intervals import compute_figures
        >>> from cxr_compare.evaluation.labelled_images import LabelledImages, no_boxes
        >>> from cxr_compare.evaluation.output import Output
        >>> from cxr_compare.evaluation.replicates import replicates
        >>> from cxr_compare.evaluation.statistics.bootstrap import Resamples
        >>> n = np.arange(60)
        >>> images = LabelledImages(
        ...     pd.Index(n), n % 2 == 0, n, 60, np.zeros(60, dtype=bool), no_boxes())
        >>> scores = {"A": (n * 7 % 10 + 6 * (n % 2 == 0)) / 20, "B": n / 60}
        >>> models = {
        ...     name: [EvaluatedModel(name, images, Output.from_scores(images.image_ids, values),
        ...                           Choices(target="opacity", chosen_on={}))]
        ...     for name, values in scores.items()
        ... }
        >>> resamples = Resamples(60, 200, 0)
        >>> frames = replicates(models, resamples)
        >>> tests = paired_tests(compute_figures("opacity", models, frames, resamples), models)
        >>> tests[(tests["metric"] == "auroc") & (tests["second"] == "B")]["method"].tolist()[0]
        'Obuchowski 1997, clustered by patient'
    """
    rows = _Rows(figures.target, figures.unit, next(iter(models)), figures.contrast_level)
    for subgroup, chosen in subgroups_of(models).items():
        _auroc_rows(rows, subgroup, models, chosen)
    own = pd.DataFrame(rows.rows, columns=list(TEST_COLUMNS))
    adjusted = _adjusted([own, resampled_tests(figures), *([] if more is None else [more])])
    of_baselines = _image_blind_tests(figures)
    if of_baselines.empty:
        return adjusted
    return pd.concat([adjusted, of_baselines], ignore_index=True)


def _aurocs(
    models: Models, chosen: np.ndarray, *, by_image: bool = False
) -> dict[tuple[str, str], ClusteredEstimate]:
    """Estimate the AUROC of every system and the difference of every pair.

    Systems whose AUROC is undefined are left out.
    """
    of_systems = {
        name: seed_parts(members, chosen, by_image=by_image) for name, members in models.items()
    }
    parts = {name: part for name, part in of_systems.items() if part is not None}
    aurocs = {(name, ""): auroc_over_seeds(part) for name, part in parts.items()}
    for pair in combinations(parts, 2):
        aurocs[pair] = auroc_over_seeds(parts[pair[0]], parts[pair[1]])
    if by_image:  # DeLong's interval: by the normal distribution, and not on the logit
        aurocs = {
            names: replace(auroc, freedom=np.inf, bounded=False) for names, auroc in aurocs.items()
        }
    return aurocs


@dataclass
class _Rows:
    """Rows of the table of tests, for methods other than the bootstrap."""

    target: str
    unit: str
    reference: str  # name of the reference system
    level: float  # coverage of an interval if all differences from the reference are to hold
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, estimate: ClusteredEstimate, pair: tuple[str, str], **rest: Any) -> None:
        """Add one row to the table of tests.

        Args:
            estimate: Figure of one system, or difference of two systems in it, with standard error,
                interval and p-value.
            pair: Display names of the first and the second system; the second is empty for the
                figure of one system.
            **rest: Values of further columns by their name in `TEST_COLUMNS`, such as
                ``metric="auroc"`` or ``method="..."``. They replace values that follow from
                `estimate`, such as ``p_value``.
        """
        of_two = bool(pair[1])
        wide = estimate.interval_at(self.level) if of_two and pair[0] == self.reference else None
        row = {
            "target": self.target,
            "unit": self.unit,
            "first": pair[0],
            "second": pair[1],
            "estimate": estimate.estimate,
            "ci_low": estimate.ci_low,
            "ci_high": estimate.ci_high,
            "ci_low_all": wide[0] if wide else None,
            "ci_high_all": wide[1] if wide else None,
            "standard_error": estimate.error,
            "p_value": estimate.p_value if of_two else None,
            "detectable": estimate.detectable if of_two else None,
            "note": estimate.note,
        }
        self.rows.append(row | rest)


def _auroc_rows(
    rows: _Rows,
    subgroup: str,
    models: Models,
    chosen: np.ndarray,
) -> None:
    of = {
        "subgroup": subgroup,
        "policy": "",
        "metric": "auroc",
        "n_images": int(chosen.sum()),
        "n_patients": len(np.unique(images_of(models).patients[chosen])),
    }
    single = {name: members for name, members in models.items() if len(members) == 1}
    found = [(OBUCHOWSKI, "patients", _aurocs(models, chosen))]
    if rows.unit == "image":
        found.append((DELONG, "images", _aurocs(single, chosen, by_image=True)))
    for method, independent, aurocs in found:
        for pair, estimate in aurocs.items():
            rows.add(estimate, pair, **of, method=method, independent=independent)


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
            The known values, shape ``(tests,)``, in the order of the table.
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
        for number, *row in zip(numbers, *(tests[name].tolist() for name in names), strict=True):
            first, second, metric, policy, subgroup = row
            question = frozenset((first, second)), metric, policy, subgroup
            rows.setdefault(question, []).append(int(number))
        return rows
