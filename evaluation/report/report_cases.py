"""Truth and answers of the test images of a stored report, from its tables."""

from __future__ import annotations

import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.evaluation.boxes.pointing import top_box_centres
from cxr_compare.evaluation.drawn import DrawnSystem
from cxr_compare.evaluation.report.cases import CaseSource, Pixels
from cxr_compare.evaluation.report.result_tables import ResultTables
from cxr_compare.evaluation.truth import Truth


def cases_of_report(result: ResultTables, pixels: Pixels, policy: str) -> CaseSource:
    """Prepare the test images of a report for drawing, decided by one of its policies."""
    systems = (system_of_report(result, name, policy) for name in result.answer.single)
    source = CaseSource(_truth_of(result), pixels, tuple(systems))
    return source.in_order(result.systems, result.ordered)


def _truth_of(result: ResultTables) -> Truth:
    """Return the labels and true boxes of the test images of a report."""
    images = result.decisions.drop_duplicates("image_id").set_index("image_id")[["label"]]
    images = images.assign(role="test").sort_index()
    boxes = result.boxes[result.boxes["system"] == ""]
    is_boxed = (images["label"] < 1) | images.index.isin(boxes["image_id"])
    return Truth(
        images,
        boxes[["image_id", *EDGES]],
        images.index[is_boxed],
        finding=result.answer.target,
        title=result.answer.title,
    )


def system_of_report(result: ResultTables, name: str, policy: str) -> DrawnSystem:
    """Return what the tables of a report say of a system, which is all but its activation maps."""
    rows = result.decisions[result.decisions["system"] == name].set_index("image_id")
    thresholds = result.answer.thresholds[name]
    column = f"decision_{policy}"
    decision = rows[column] if column in rows else pd.Series(pd.NA, rows.index)
    table = rows[["score", "probability", "localised"]].assign(decision=decision)
    boxes = result.boxes[result.boxes["system"] == name]
    if not thresholds and decision.notna().any():  # boxes without scores: none is the best one
        return DrawnSystem(name, table.drop(columns="score"), boxes)
    if len(boxes):
        table = table.join(top_box_centres(boxes, table.index))
    return DrawnSystem(name, table, boxes, threshold=thresholds.get(policy))
