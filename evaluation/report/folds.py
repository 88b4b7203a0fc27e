"""What the reports on the folds of a cross-validation say together: means over folds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import stdtrit

from data_prep.contracts.tables import InputError, read_json, read_table
from evaluation.report.files import DECISIONS, METRICS

KEYS = ["target", "unit", "subgroup", "system", "policy", "metric"]
COUNTS = ("tp", "fp", "tn", "fn")
LEVEL = 0.95


@dataclass(frozen=True)
class Folds:
    """Reports on several folds of one data set.

    Attributes:
        folders: Where each lies.
        splits: Name of each one's split.
        systems: Judged in each, in order.
        figures: A row a fold and figure: `KEYS`, ``fold`` (position), ``estimate``.
        n_images: Test images of each.
        provenance: Of each.
    """

    folders: tuple[Path, ...]
    splits: tuple[str, ...]
    systems: tuple[str, ...]
    figures: pd.DataFrame
    n_images: tuple[int, ...]
    provenance: tuple[dict[str, Any], ...]


def read_folds(folders: list[Path]) -> Folds:
    """Read reports and check that they are folds of one cross-validation.

    Args:
        folders: Report folders, from `cxr compare`.

    Raises:
        InputError: There are fewer than two, one is no complete report, they judge other systems,
            targets or data, or a patient is tested in two of them.
    """
    if len(folders) < 2:
        raise InputError("folds: at least two reports make a cross-validation")
    reports = [read_json(folder / METRICS, "metrics") for folder in folders]
    for what, facts in (
        ("target", [report["target"] for report in reports]),
        ("systems", [report["systems"] for report in reports]),
        ("images", [report["provenance"]["data_set"]["content_id"] for report in reports]),
        ("labels", [report["provenance"]["data_set"]["labels_id"] for report in reports]),
    ):
        for folder, fact in zip(folders, facts, strict=True):
            if fact != facts[0]:
                raise InputError(
                    f"{folder}: other {what} than {folders[0]} ({fact} instead of {facts[0]}); "
                    "folds are reports on the same systems and data"
                )
    tested = [
        read_table(folder / DECISIONS, "decisions")[["image_id", "patient_id"]]
        for folder in folders
    ]
    _require_disjoint(folders, [set(images["patient_id"]) for images in tested])
    frames = [
        pd.DataFrame(report["metrics"]).assign(fold=position)
        for position, report in enumerate(reports)
    ]
    figures = pd.concat(frames, ignore_index=True)
    figures = figures[~figures["metric"].isin(COUNTS)]
    return Folds(
        folders=tuple(folders),
        splits=tuple(report["provenance"]["data_set"]["split"] for report in reports),
        systems=tuple(reports[0]["systems"]),
        figures=figures[[*KEYS, "fold", "estimate"]].astype({"estimate": float}),
        n_images=tuple(int(images["image_id"].nunique()) for images in tested),
        provenance=tuple(report["provenance"] for report in reports),
    )


def _require_disjoint(folders: list[Path], patients: list[set[str]]) -> None:
    for position, folder in enumerate(folders):
        for other in range(position):
            if shared := patients[position] & patients[other]:
                raise InputError(
                    f"{folder}: tests {len(shared)} patients whom {folders[other]} tests, too; "
                    "folds share no patient: take the splits of one cxr split --test-folds"
                )


def summarise_folds(figures: pd.DataFrame) -> pd.DataFrame:
    """Mean of every figure over folds, with its spread and a t interval.

    The interval is ``mean ± t(k - 1) · sd / √k``. Folds share training images, so it is a
    description of this cross-validation: no estimator of that variance is unbiased. A figure that
    is undefined in a fold has no mean.

    Args:
        figures: `KEYS`, ``fold`` and ``estimate``, a row a fold and figure.

    Returns:
        `KEYS`, ``mean``, ``sd``, ``ci_low``, ``ci_high``, ``n_folds`` and ``note``, and a column
        ``fold_<n>`` for each fold, from 1; in the order of the first fold's figures.

    Source:
        Bengio and Grandvalet 2004, No Unbiased Estimator of the Variance of K-Fold
        Cross-Validation.

    Example:
        >>> row = {"target": "t", "unit": "image", "subgroup": "all", "system": "A", "policy": ""}
        >>> rows = [row | {"metric": "auroc", "fold": n, "estimate": 0.8 + n / 10} for n in (0, 1)]
        >>> summarise_folds(pd.DataFrame(rows)).loc[0, ["mean", "sd", "n_folds"]].round(3).tolist()
        [0.85, 0.071, 2.0]
    """
    n_folds = int(figures["fold"].max()) + 1
    wide = figures.pivot(index=KEYS, columns="fold", values="estimate")
    order = figures.drop_duplicates(KEYS).set_index(KEYS).index
    values = wide.reindex(index=order, columns=range(n_folds))
    known = values.notna().all(axis=1)
    mean = values.mean(axis=1).where(known)
    spread = values.std(axis=1, ddof=1).where(known)
    half = stdtrit(n_folds - 1, (1 + LEVEL) / 2) * spread / np.sqrt(n_folds)
    missing = values.isna().sum(axis=1)
    note = missing.map(lambda n: f"undefined in {n} of {n_folds} folds" if n else "")
    values.columns = [f"fold_{n + 1}" for n in range(n_folds)]
    table = pd.DataFrame(
        {"mean": mean, "sd": spread, "ci_low": mean - half, "ci_high": mean + half}
    ).assign(n_folds=n_folds, note=note)
    return table.join(values).reset_index()
