"""Tables of boxes from the outputs of detection libraries."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.box_check import (
    FORMS,
    PREDICTED_BOXES,
    BoxForm,
    BoxReading,
)
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.sources.coco import is_result
from cxr_compare.data_prep.sources.image_files import image_name
from cxr_compare.evaluation.inputs.files import is_output, read_outputs, read_rows
from cxr_compare.evaluation.inputs.px_boxes import with_corners
from cxr_compare.evaluation.inputs.rows import Rows, require_probabilities, texts_of

_KINDS = "give a list with an output for each image, COCO results, or a table of boxes"
_COLUMNS = ("image_id", *EDGES, "score", "finding", "crowd")


def boxes_table(
    outputs: Any,
    image_ids: Sequence[str] | None = None,
    *,
    box_format: Literal["xyxy", "xywh", "cxcywh"] | None = None,
) -> pd.DataFrame:
    """Return the boxes of a detection library as a table.

    Args:
        outputs: List with an output of torchvision, Ultralytics or supervision for each image, list
            of COCO results, file of boxes, or table.
        image_ids: Image of each output, in the order of the list.
        box_format: How the numbers of a box are written; None for that of the source.

    Returns:
        ``image_id``, ``x1``, ``y1``, ``x2``, ``y2`` (px of the original image), and ``score``,
        ``finding`` and ``crowd`` (COCO's) if the outputs have them.

    Raises:
        InputError: The outputs are no boxes, or are not one for each image, or a box or a score is
            impossible. The message names the output, the image and the value.

    Examples:
        >>> from cxr_compare import boxes_table
        >>> boxes_table([{"boxes": [[1, 2, 3, 4]], "scores": [0.5]}], ["a"]).to_numpy().tolist()
        [['a', 1.0, 2.0, 3.0, 4.0, 0.5]]
    """
    if box_format is not None and box_format not in FORMS:
        raise InputError(f"box_format: {box_format!r} is unknown; choose {', '.join(FORMS)}")
    where = "boxes" if isinstance(outputs, pd.DataFrame) else "outputs"
    ids = None if image_ids is None else _texts_of_ids(image_ids)
    table = checked_boxes(outputs, ids, where, box_format)
    names = table["image_id"].astype(str).map(image_name)
    if ids is not None and len(names) and not names.isin([*map(image_name, ids)]).any():
        raise InputError(
            f"image_ids: {where} name their images themselves, such as '{names.iloc[0]}', and "
            "none of them is in image_ids; leave image_ids out, and rename those of the table"
        )
    return table


def checked_boxes(
    outputs: Any, image_ids: Any, where: str, box_format: str | None = None
) -> pd.DataFrame:
    """Return the boxes of `boxes_table`; `where` is what messages call the outputs."""
    order = None if image_ids is None else pd.Series(_texts_of_ids(image_ids), dtype=object)
    rows = _read(outputs, order, where)
    if rows.unit != "px":
        raise InputError(f"{where}: these boxes are shares of the images; give them in px")
    table = rows.table
    if "score" in table:
        require_probabilities(table, where)
    unknown = np.full((len(table), 2), np.nan)
    form, answered = cast("BoxForm", box_format or rows.form), box_format is not None
    reading = BoxReading(form, "px", where, rows.stated, answered, options=_option)
    rules = replace(PREDICTED_BOXES, cuts=False)
    table, notes = with_corners(table, reading, unknown, unknown, rules)
    for note in notes:
        warnings.warn(f"{where}: {note}", UserWarning, stacklevel=3)
    return table[[name for name in _COLUMNS if name in table]].reset_index(drop=True)


def _option(answers: Mapping[str, str]) -> dict[str, str]:
    """Return the option of `boxes_table` that says the form of boxes; none says their unit."""
    return {"box_format": answers["box_form"]} if {*answers} == {"box_form"} else {}


def _texts_of_ids(image_ids: Any) -> list[str]:
    """Return image ids as texts; InputError for what is no list of one name for each image."""
    if isinstance(image_ids, str):
        raise InputError(f"image_ids: {image_ids!r} is one text; give a list of image ids")
    if isinstance(image_ids, Set | pd.DataFrame) or not isinstance(image_ids, Iterable):
        kind = type(image_ids).__name__
        raise InputError(f"image_ids: a {kind} has no order of ids; give a list, or one column")
    names = list(image_ids)
    missing = [number for number, name in enumerate(names) if pd.isna(name)]
    if missing:
        raise InputError(f"image_ids: number {missing[0]} is missing; fill it in")
    texts = pd.Index(texts_of(names), dtype=object)
    if not texts.is_unique:
        raise InputError(f"image_ids: '{texts[texts.duplicated()][0]}' appears more than once")
    return texts.tolist()


def _read(outputs: Any, order: pd.Series | None, where: str) -> Rows:
    """Return the rows of boxes; InputError for what holds none."""
    listed = [outputs] if is_output(outputs) else outputs
    if isinstance(listed, Mapping) and "annotations" not in listed:
        raise InputError(f"{where}: is a dictionary of {', '.join(map(str, listed))}; {_KINDS}")
    if isinstance(listed, list | tuple):
        if not listed and order is not None:
            raise InputError(f"{where}: is an empty list, and there are image ids; {_KINDS}")
        if listed and not is_result(listed[0]):
            return _read_list(listed, order, where)
    rows = read_rows(listed, order, {}, where)
    if not rows.are_boxes:
        columns = f" of {', '.join(map(str, outputs))}" if isinstance(outputs, pd.DataFrame) else ""
        raise InputError(f"{where}: no four columns{columns} are the edges of boxes; {_KINDS}")
    return rows


def _read_list(outputs: Sequence[Any], order: pd.Series | None, where: str) -> Rows:
    """Return the rows of a list with an output for each image."""
    have_paths = all(isinstance(getattr(output, "path", None), str) for output in outputs)
    if order is None and not have_paths:
        raise InputError("image_ids: give the image of each output, in the order of the list")
    if order is not None and len(order) != len(outputs):
        raise InputError(
            f"image_ids: there are {len(order)}, and {len(outputs)} outputs; give one each"
        )
    rows = read_outputs(outputs, None if order is None else order.tolist(), where)
    if order is None:
        rows.table["image_id"] = [Path(name).stem for name in rows.table["image_id"]]
    return rows
