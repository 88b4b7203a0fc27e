"""Figures of groups of images, such as women and men."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import counted_interval, interval_of_counts
from cxr_compare.evaluation.metrics import (
    CALLED_RIGHTLY,
    METRICS,
    OF_CLASSES,
    Metric,
    rates_of,
)
from cxr_compare.evaluation.statistics.arrays import Flags, Floats, Integers
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, auroc_parts
from cxr_compare.evaluation.statistics.clustered_counts import (
    ShareParts,
    confusion_by_patient,
)
from cxr_compare.evaluation.subgroups import FEWEST, image_groups, in_order
from cxr_compare.evaluation.truth import Truth

COLUMNS = (
    "topic",
    "group",
    "system",
    "policy",
    "metric",
    "estimate",
    "ci_low",
    "ci_high",
    "method",
    "count",
    "of",
    "n_patients",
    "note",
)
"""Columns of the tables of groups and lesions; ``count`` and ``of`` are the parts of a share."""
TOO_FEW = f"fewer than {FEWEST} patients: counts only"


def group_table(comparison: Comparison) -> pd.DataFrame:
    """Return sensitivity, specificity, AUROC and the localised ones of each group of images."""
    test, policy = comparison.truth, comparison.main_policy
    rows: list[dict[str, Any]] = []
    topics = image_groups(test.images, comparison.protocol.subgroups)
    for name, system in comparison.systems.items():
        called = comparison.called(name, policy)
        for topic, groups in topics.items():
            for group in in_order(groups):
                inside = groups == group
                figures = figures_of_group(test, system.scores, called, system.localised, inside)
                if not system.output.ranks:
                    figures = _without_ranks(figures)
                for metric, figure in figures.items():
                    at = policy if METRICS[metric].at_threshold else ""
                    where = {"topic": topic, "group": group, "system": name}
                    rows.append({**where, "policy": at, "metric": metric, **figure})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def figures_of_group(
    test: Truth,
    scores: Floats,
    called: Flags | None,
    localised: Flags | None,
    inside: Flags,
) -> dict[str, dict[str, Any]]:
    """Return the figures of one system on the images of a group, by metric."""
    positive, patients, n = test.positive, test.patients, test.n_patients
    figures: dict[str, dict[str, Any]] = {}
    if called is not None:
        counts = confusion_by_patient(positive[inside], called[inside], patients[inside], n)
        values = rates_of(counts.sum(axis=0))
        for metric in ("recall", "specificity"):
            figures[metric] = _of_counts(METRICS[metric], counts, float(values[metric]))
        if localised is not None:
            boxed_positive = inside & positive & test.is_boxed
            figures["localised_sensitivity"] = share_by_patient(
                boxed_positive & called & localised, boxed_positive, patients, n
            )
    parts = auroc_parts(positive[inside], scores[inside], patients[inside], n)
    if parts is not None:
        n_patients = len(np.unique(patients[inside]))
        n_positive = int(positive[inside].sum())
        auroc = _share(parts.value, n_positive, int(inside.sum()), n_patients)
        if np.count_nonzero(parts.images, axis=0).min() >= FEWEST:
            estimate = parts.estimate()
            auroc |= {"ci_low": estimate.ci_low, "ci_high": estimate.ci_high}
            auroc |= {"method": OBUCHOWSKI, "note": estimate.note}
        else:
            auroc["note"] = TOO_FEW
        figures["auroc"] = auroc
    return figures


def _without_ranks(figures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {name: row for name, row in figures.items() if METRICS[name].family != "ranking"}


def _of_counts(metric: Metric, counts: Floats, value: float) -> dict[str, Any]:
    """Return a figure of counts by patient; one that is no share needs patients of both classes."""
    shares = OF_CLASSES if metric.share_of is None else (metric.share_of,)
    of_shares = [counts @ np.array(share) for share in shares]
    n_patients = min(int((images > 0).sum()) for images in of_shares)
    n_right = np.nan
    if metric.share_of is not None:
        n_right = (counts @ (np.array(metric.share_of) * CALLED_RIGHTLY)).sum()
    figure = _share(value, n_right, np.sum(of_shares), n_patients)
    if np.isnan(value):
        figure["note"] = "there is none of them"
    elif n_patients >= FEWEST:
        figure |= interval_of_counts(counts, metric.name, value)
    return figure


def share_by_patient(
    counted: npt.ArrayLike, whole: npt.ArrayLike, patients: Integers, n_patients: int
) -> dict[str, Any]:
    """Return a ratio of sums over lesions or images, with its interval by patient."""
    one, all_of = (
        np.bincount(patients, numbers, n_patients).astype(float) for numbers in (counted, whole)
    )
    parts = ShareParts.from_sums(one, all_of)
    share = _share(parts.value, one.sum(), all_of.sum(), parts.n_patients)
    if parts.n_patients >= FEWEST:
        share |= counted_interval(parts.estimate(), parts.value)
    return share


def _share(value: float, count: float, whole: float, n_patients: int) -> dict[str, Any]:
    note = "" if n_patients >= FEWEST else TOO_FEW
    numbers = {"count": float(count), "of": float(whole), "n_patients": float(n_patients)}
    return {"estimate": value, **numbers, "note": note if whole else "there is none of them"}
