"""Figures of groups of images, such as women and men."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.figures import counted_interval
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.replicates import SystemFigures
from cxr_compare.evaluation.statistics.arrays import Flags, Integers
from cxr_compare.evaluation.statistics.clustered_auroc import OBUCHOWSKI, auroc_parts
from cxr_compare.evaluation.statistics.clustered_counts import ShareParts
from cxr_compare.evaluation.subgroups import FEWEST, image_groups, in_order

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
                figures = figures_of_group(system, called, inside)
                for metric, figure in figures.items():
                    at = policy if METRICS[metric].at_threshold else ""
                    where = {"topic": topic, "group": group, "system": name}
                    rows.append({**where, "policy": at, "metric": metric, **figure})
    return pd.DataFrame(rows, columns=list(COLUMNS))


def figures_of_group(
    system: SystemFigures, called: Flags | None, inside: Flags
) -> dict[str, dict[str, Any]]:
    """Return the figures of one system on the images of a group, by metric."""
    test = system.truth
    positive, patients, n = test.positive, test.patients, test.n_patients
    figures: dict[str, dict[str, Any]] = {}
    if called is not None:
        shares = {"recall": (called, positive), "specificity": (~called, ~positive)}
        if system.localised is not None:
            shares["localised_sensitivity"] = (called & system.localised, system.boxed)
        figures = {
            metric: share_by_patient(inside & right & of, inside & of, patients, n)
            for metric, (right, of) in shares.items()
        }
    parts = auroc_parts(positive[inside], system.scores[inside], patients[inside], n)
    if parts is not None and system.output.ranks:
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
