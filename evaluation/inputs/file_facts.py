"""Facts about the images of a data set that may tell the label although they show no lungs."""

from __future__ import annotations

from typing import Any

import pandas as pd

from cxr_compare.evaluation.shortcuts import BORDER_GREY, FILE, measured, with_fold_variance
from cxr_compare.evaluation.statistics.folds import patient_folds
from cxr_compare.evaluation.truth import Truth


def _file_facts(images: pd.DataFrame, decode: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of images without what disease changes, by image id.

    These are facts of their files, and the grey levels along their border.
    """
    ids = pd.Index(images["image_id"])
    decode = decode.set_index("image_id").reindex(ids)
    facts = decode[[name for name in FILE if name in decode]].copy()
    if "border_greys" not in decode:
        return facts
    from cxr_compare.data_prep.images.border_greys import read_border_greys

    greys = pd.DataFrame(read_border_greys(decode["border_greys"].reset_index(drop=True)))
    greys = greys.set_axis([f"{BORDER_GREY}{piece:03d}" for piece in greys], axis=1).set_index(ids)
    return facts.join(greys)


def measure_shortcuts(
    images: pd.DataFrame, decode: pd.DataFrame, labels: pd.DataFrame
) -> list[dict[str, Any]]:
    """Measure how well metadata and image borders alone predict each label of a data set.

    `images` and `decode` are the tables of a data set; `labels` has a column for each label (1.0,
    0.0 or NaN), by image id. There is a dictionary for each label and fact, the highest AUROC
    first.

    Examples:
        >>> images = pd.DataFrame({"image_id": [str(n) for n in range(400)],
        ...     "patient_id": [str(n) for n in range(400)], "view": ["AP", "PA"] * 200})
        >>> labels = pd.DataFrame({"mass": [1.0, 0.0] * 200}, index=images["image_id"])
        >>> [(row["fact"], row["auroc"]) for row in measure_shortcuts(
        ...     images, pd.DataFrame({"image_id": []}), labels)]
        [('view', 1.0)]
    """
    facts = _file_facts(images, decode)
    table = images.set_index("image_id").assign(role="test")
    table["patient_id"] = table["patient_id"].astype(str)
    rows: list[dict[str, Any]] = []
    for target in labels:
        truth = Truth(table.assign(label=labels[target].reindex(table.index)))
        test = truth.of("test")
        if test.ids.empty:
            continue
        fold = patient_folds(test.owners)
        for kind, fact, n_known, parts in measured(test, facts, fold):
            estimate = with_fold_variance(fact, parts.estimate())
            ends = (estimate.ci_low, estimate.ci_high) if estimate.has_interval else (None, None)
            rows.append(
                {
                    "target": str(target),
                    "fact": fact,
                    "kind": kind,
                    "auroc": estimate.estimate,
                    "ci_low": ends[0],
                    "ci_high": ends[1],
                    "n_images": len(test.ids),
                    "n_positive": int(test.positive.sum()),
                    "n_known": n_known,
                }
            )
    return sorted(rows, key=lambda row: (labels.columns.get_loc(row["target"]), -row["auroc"]))
