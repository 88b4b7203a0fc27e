"""Tests of the paired differences between systems: rows of the table of figures.

Patients are taken as independent. For AUROC by image, tests that take images as independent are
listed as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.evaluation.evaluated_model import Models, images_of
from cxr_compare.evaluation.figure_intervals import ends_of, seed_parts, subgroups_of
from cxr_compare.evaluation.figures import OVER_SEEDS, REFITTED, Figure, Figures, image_blind_name
from cxr_compare.evaluation.metrics.metric import MetricKey
from cxr_compare.evaluation.statistics.bootstrap import BOOTSTRAP
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, auroc_over_seeds
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
comparisons of an answer; beside a joint system it is that of the claim that it exceeds all of its
members. ``detectable`` is the smallest true difference that such a test set shows with 80 % power.
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
    resample chooses thresholds again. By image, AUROC is tested by DeLong's method, too. `more` has
    further tests with the same columns, such as those of figures by study or patient.

    The table has one row for each test and the columns of `TEST_COLUMNS`; ``estimate`` is that of
    the first minus that of the second system. A row on the AUROC of one system has an empty
    ``second`` and no p-value.

    Source:
        Obuchowski 1997; DeLong et al. 1988; Holm 1979.
    """
    rows = [
        _test_row(figures, first, second, key, figure, _method(key, figure))
        for first, second, key, figure in figures
        if figure.known and not figure.no_claim and (second or key.metric == "auroc")
    ]
    if figures.unit == "image":
        rows += [
            _test_row(figures, first, second, key, figure, DELONG)
            for first, second, key, figure in _delong(models)
        ]
    table = pd.DataFrame(rows, columns=list(TEST_COLUMNS))
    if more is not None:
        table = pd.concat([table, more], ignore_index=True)
    return _with_holm_over_pairs(table.astype(dict.fromkeys(_NUMBERS, "float64")))


def _method(key: MetricKey, figure: Figure) -> str:
    if key.metric == "auroc":
        return OBUCHOWSKI
    if figure.kind == "seeds":
        return SEEDS_TEST
    return REFITTED_TEST if figure.refitted else BOOTSTRAP


def _test_row(
    figures: Figures, first: str, second: str, key: MetricKey, figure: Figure, method: str
) -> dict[str, Any]:
    row: dict[str, Any] = {
        "target": figures.target,
        "unit": figures.unit,
        **key._asdict(),
        "first": first,
        "second": second,
        "method": method,
        "independent": "images" if method == DELONG else "patients",
        "estimate": figure.estimate,
        "ci_low": figure.ci_low,
        "ci_high": figure.ci_high,
        "standard_error": figure.error,
        "p_value": figure.p_value if second else None,
        "detectable": figure.detectable,
        "n_images": figure.n_images,
        "n_patients": figure.n_patients,
        "note": figure.note,
    }
    if figure.bounded and first == figures.systems[0] and second in figures.systems:
        wide = figure.within(len(figures.systems) - 1)
        row |= {"ci_low_all": wide.ci_low, "ci_high_all": wide.ci_high}
    return row


def _with_holm_over_pairs(table: pd.DataFrame) -> pd.DataFrame:
    """Correct the p-values of all pairs of systems by Holm's method, in ``p_holm_pairs``.

    The pairs with the same unit, subgroup, policy, metric and method are corrected together. An
    image-blind baseline is no further system, so its rows are no part of this correction. The
    column ``p_holm`` is filled by `Comparison.tests_with_holm`.
    """
    baselines = {image_blind_name(name) for name in table["first"]}
    pairs = table[(table["second"] != "") & ~table["second"].isin(baselines)]
    for _, family in pairs.groupby(_FAMILY, sort=False):
        values = [None if pd.isna(p_value) else float(p_value) for p_value in family["p_value"]]
        table.loc[family.index, "p_holm_pairs"] = np.array(holm(values), dtype=np.float64)
    return table


def _delong(models: Models) -> Iterator[tuple[str, str, MetricKey, Figure]]:
    """Yield the AUROC of every system and the difference of every pair, with images as independent.

    DeLong's interval is that of the normal distribution, and not on the logit. Systems with several
    training seeds, and those whose AUROC is undefined, are left out.
    """
    images = images_of(models)
    for subgroup, chosen in subgroups_of(models).items():
        key = MetricKey(subgroup, "", "auroc")
        n_patients = len(np.unique(images.patients[chosen]))
        of_systems = {
            name: seed_parts(members, chosen, by_image=True)
            for name, members in models.items()
            if len(members) == 1
        }
        parts = {name: part for name, part in of_systems.items() if part is not None}
        pairs: Sequence[tuple[str, ...]] = [*((name,) for name in parts), *combinations(parts, 2)]
        for names in pairs:
            auroc = auroc_over_seeds(*(parts[name] for name in names))
            auroc = replace(auroc, freedom=np.inf, bounded=False)
            is_difference = len(names) == 2
            figure = Figure(
                auroc.estimate,
                auroc.ci_low,
                auroc.ci_high,
                note=auroc.note,
                error=auroc.error,
                p_value=auroc.p_value if is_difference else None,
                detectable=auroc.detectable if is_difference else None,
                interval_at=ends_of(auroc),
                n_images=int(chosen.sum()),
                n_patients=n_patients,
            )
            yield names[0], names[1] if is_difference else "", key, figure
