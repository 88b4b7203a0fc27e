"""One figure of one system, with its interval."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.evaluation.compare import compare_outputs
from cxr_compare.evaluation.inputs.read_output import read_output
from cxr_compare.evaluation.inputs.read_truth import read_truth
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.statistics.arrays import patient_names


def estimate(
    metric: str,
    y_true: Any,
    y_score: Any,
    patients: Any = None,
    *,
    threshold: float | None = None,
    replicates: int = 2000,
) -> pd.Series:
    """Compute one figure of a system with its 95 % interval by patient.

    It is the row of a comparison of one system (`cxr_compare.compare`).

    Args:
        metric: Short name of the figure, such as ``auroc`` or ``recall``.
        y_true: Labels, or what else `cxr_compare.compare` takes as a truth.
        y_score: Scores of the same images.
        patients: Patient of each image; None takes each image as a patient.
        threshold: Score from which an image is called positive, for figures of decisions.
        replicates: Number of resamples of the patients.

    Returns:
        The row of the table of figures: ``estimate``, ``ci_low``, ``ci_high``, ``note`` and others.

    Raises:
        InputError: The metric is unknown, needs a threshold or boxes, or the values do not fit.

    Examples:
        >>> from cxr_compare import metrics
        >>> row = metrics.estimate("auroc", [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.4, 0.8, 0.3, 0.2])
        >>> round(row["estimate"], 3), round(row["ci_low"], 3), round(row["ci_high"], 3)
        (0.722, 0.119, 0.988)
    """
    if metric not in METRICS or METRICS[metric].family in ("place", "calibration"):
        able = [m for m, record in METRICS.items() if record.family not in ("place", "calibration")]
        raise InputError(f"estimate: metric {metric!r} is none of {', '.join(able)}")
    needs = METRICS[metric].family in ("decision", "count")
    if needs != (threshold is not None):
        raise InputError(f"estimate: {metric} {'needs a' if needs else 'has no'} threshold")
    try:
        policy = "" if threshold is None else f"threshold={float(threshold)!r}"
    except (TypeError, ValueError):
        raise InputError(f"estimate: threshold {threshold!r} is no number") from None
    truth = read_truth(y_true, patients=patients)
    unknown = truth.images["label"].isna().to_numpy()
    if unknown.any():
        row_number = int(unknown.argmax())
        raise InputError(f"y_true: row {row_number} is nan: leave images of unknown label out")
    if patients is not None and not isinstance(patients, str | PathLike | pd.DataFrame):
        patient_names(patients, len(truth.ids))
    output = read_output(y_score, truth, "y_score", columns={"score": "score"})
    policies = (policy,) if policy else ()
    rows = compare_outputs({"A": output}, truth, policies=policies, n_replicates=replicates).rows
    row = rows.row("A", metric, policy)
    return pd.Series({"metric": metric, "ci_low": np.nan, "ci_high": np.nan, **(row or {})})
