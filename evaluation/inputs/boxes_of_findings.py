"""Predicted and true boxes of all findings, for the rules of other programs.

No predicted box is clipped or left out, however low its score: other programs take all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import corners_of
from cxr_compare.data_prep.base.boxes import EDGES, NUMBERS
from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.names import Target, finding_name
from cxr_compare.data_prep.base.user_tables import read_json_file
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.evaluation.inputs.box_classes import findings_of_classes
from cxr_compare.evaluation.inputs.files import read_rows
from cxr_compare.evaluation.inputs.folders import truth_of
from cxr_compare.evaluation.inputs.image_sizes import files_beside
from cxr_compare.evaluation.inputs.px_boxes import boxes_in_px
from cxr_compare.evaluation.inputs.read_output import name_images
from cxr_compare.evaluation.inputs.read_truth import read_truth
from cxr_compare.evaluation.inputs.rows import Rows, way
from cxr_compare.evaluation.inputs.source_truth import read_labels, truth_of_labels
from cxr_compare.evaluation.truth import Truth

SYSTEM = "boxes"
"""Name of the predicted boxes in advice on columns."""


class TrueBoxes(NamedTuple):
    """True boxes of all findings, and the images that are evaluated.

    Attributes:
        truths: Truth of each finding that has boxes.
        table: ``image_id``, ``finding``, the edges in px, and ``crowd``, True for COCO's crowds.
        image_ids: Images on which every lesion of every finding has a box.
        n_left_out: Test images that are not evaluated.
    """

    truths: list[Truth]
    table: pd.DataFrame
    image_ids: pd.Index
    n_left_out: int = 0


def boxes_of_data_set(dataset: DataSet, split: str) -> TrueBoxes:
    """Return the true boxes of the test images of a data set."""
    findings = sorted(dataset.boxes["finding"].unique())
    if not findings:
        raise InputError(f"{dataset.folder}: has no true box")
    return _together([truth_of(dataset, Target(name, (name,), name), split) for name in findings])


def boxes_of_file(path: Path, columns: Mapping[str, str]) -> TrueBoxes:
    """Return the true boxes of a COCO file or of a table with the labels and boxes of images."""
    if path.suffix.lower() != ".json":
        return _together([read_truth(path, columns=columns)])
    labels = read_labels(path, None, columns)
    category_findings = dict.fromkeys(labels.tables.categories.values())
    content = read_json_file(path)
    annotations = [
        annotation for annotation in content["annotations"] if isinstance(annotation, dict)
    ]
    names = {
        str(category["id"]): finding_name(str(category["name"]))
        for category in content["categories"]
    }
    boxed = {names.get(str(annotation.get("category_id"))) for annotation in annotations}
    findings = [name for name in category_findings if name in boxed]
    if not findings:
        raise InputError(f"{path}: annotations: none is of a category")
    targets = [labels.tables.targets[name] for name in findings]
    truths = [
        truth_of_labels(labels, one_target, files=files_beside(path)) for one_target in targets
    ]
    images = dict(zip(truths[0].images["coco_id"], truths[0].ids, strict=True))
    crowds = [
        {**annotation, "image_id": images[str(annotation["image_id"])]}
        for annotation in annotations
        if annotation.get("iscrowd") and str(annotation["category_id"]) in names
    ]
    tables = [_boxes_of(truth) for truth in truths]
    if crowds:
        rows = read_rows(crowds, None, {}, str(path)).table
        unknown = np.full((len(rows), 2), np.nan)
        corners = corners_of(rows[NUMBERS].to_numpy(), "xywh", "px", unknown)
        table = pd.DataFrame(corners, columns=EDGES).assign(crowd=True)
        table["image_id"] = rows["image_id"]
        table["finding"] = [names[str(crowd["category_id"])] for crowd in crowds]
        tables.append(table)
    return TrueBoxes(truths, pd.concat(tables, ignore_index=True), truths[0].ids)


def _boxes_of(truth: Truth) -> pd.DataFrame:
    return truth.boxes.assign(finding=truth.finding, crowd=False)


def _together(truths: Sequence[Truth]) -> TrueBoxes:
    """Join the boxes of the test images of which the labels and boxes of all findings are known."""
    tested = truths[0].images.index[truths[0].images["role"] == "test"]
    ids = tested
    for truth in truths:
        is_known = truth.images["label"].notna() & truth.is_boxed
        ids = ids.intersection(truth.ids[is_known.to_numpy()])
    table = pd.concat([_boxes_of(truth) for truth in truths], ignore_index=True)
    return TrueBoxes(list(truths), table, ids, len(tested) - len(ids))


def predicted_boxes(
    source: Path, true: TrueBoxes, columns: Mapping[str, str]
) -> tuple[pd.DataFrame, list[str]]:
    """Read predicted boxes with ``finding`` and the edges in px, and notes on how they were read.

    `columns` has names of columns by role, and how boxes are written, as of `read_output`.
    InputError for scores of images, boxes without scores, and what names no finding of the truth.
    """
    truth = true.truths[0]
    rows = read_rows(source, None, columns, str(source), SYSTEM)
    if not rows.are_boxes:
        raise InputError(f"{source}: holds scores of images; give predicted boxes")
    if "score" not in rows.table:
        raise InputError(f"{source}: its boxes have no scores", [way(SYSTEM, "score")])
    name_images(rows, truth, columns, SYSTEM)
    _name_findings(rows, true)
    boxes = boxes_in_px(rows, truth, columns, name=SYSTEM, as_given=True)
    notes = [*rows.notes]
    if true.n_left_out:
        left_out = counted(true.n_left_out, "test image")
        notes.append(f"{left_out} left out: a label is unknown, or a lesion has no box.")
    return boxes, notes


def _name_findings(rows: Rows, true: TrueBoxes) -> None:
    """Give each row its finding, and leave out those of findings that the truth does not have."""
    findings = [truth.finding for truth in true.truths]
    finding_of_row = None
    if "finding" in rows.table:
        finding_of_row = findings_of_classes(rows.table["finding"].astype(str), findings)
    if finding_of_row is None and len(findings) > 1:
        raise InputError(
            f"{rows.where}: names no finding of {', '.join(findings)}; add a column 'finding' with "
            "the finding of each row",
            [way(SYSTEM, "finding", when="a column has it")],
        )
    if finding_of_row is None:
        finding_of_row = pd.Series(findings[0], rows.table.index)
    is_known = finding_of_row.isin(findings)
    others = ", ".join(map(repr, finding_of_row[~is_known].unique()[:5]))
    if not is_known.any():
        raise InputError(
            f"{rows.where}: has boxes of {others}, and the truth is of {', '.join(findings)}"
        )
    if others:
        rows.notes.append(f"Boxes of {others} are left out: the truth has no such finding.")
    rows.table = rows.table.assign(finding=finding_of_row)[is_known.to_numpy()].reset_index(
        drop=True
    )
