"""Meaning of a folder of images and labels, as plain values."""

import numpy as np
import pandas as pd

from cxr_compare import InputError
from cxr_compare.data_prep.base import box_check
from cxr_compare.data_prep.base.box_check import BoxReading
from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.sources import readers
from cxr_compare.data_prep.sources.registry import likely_format, read_source
from cxr_compare.data_prep.sources.source import ReadOptions

__all__ = ["check_boxes", "join_readers", "likely_format", "read", "same_lesions"]
_STATES = {"present": 1, "absent": 0, "uncertain": "?"}
_FACTS = ("path", "patient_id", "patient_id_source", "width", "height", "view", "sex", "age_years")


def read(folder, format, labels, options):  # noqa: A002
    """Read a folder: ("read", table) or ("refused", line).

    ``labels`` are the paths of label tables outside the folder; lists of ``options`` are tuples.
    """
    try:
        found = read_source(folder, format, ReadOptions(labels=tuple(labels), **options))
    except InputError as error:
        return "refused", str(error)
    return "read", _plain_table(found)


def _plain_table(found):
    states = {}
    for row in found.findings.itertuples():
        of_image = states.setdefault(row.reader, {}).setdefault(row.image_id, {})
        assert row.finding not in of_image
        of_image[row.finding] = _STATES[row.state]
    boxes = [
        [row.image_id, row.finding, row.reader]
        + [round(float(value), 3) for value in (row.x1, row.y1, row.x2, row.y2)]
        for row in found.boxes.itertuples()
    ]
    boxed = [
        [row.image_id, row.finding, row.reader, row.coverage]
        for row in found.box_coverage.itertuples()
    ]
    return {
        "states": states,
        "boxes": sorted(boxes),
        "boxed": sorted(boxed),
        "left_out": sorted(found.excluded["path"].astype(str)),
        "images": {row["image_id"]: _facts(row) for row in found.images.to_dict("records")},
        "roles": dict(zip(found.official["image_id"], found.official["role"], strict=True)),
        "split": dict(zip(found.split["image_id"], found.split["role"], strict=True)),
        "targets": {name: list(target.any_of) for name, target in found.targets.items()},
        "warned": bool(found.patient_notes),
    }


def _facts(row):
    """Path, patient, how the patient is known, width, height, view, sex and age of an image."""
    facts = [_plain(row.get(name)) for name in _FACTS]
    if facts[2] == "assumed_image":  # nobody knows the patient
        facts[1:3] = [None, None]
    elif facts[2] == "given":
        facts[2] = None
    return facts


def _plain(value):
    value = value.item() if hasattr(value, "item") else value
    return None if value is None or value != value or str(value) == "<NA>" else value


def check_boxes(values, sizes, form, unit, stated, answered=False):
    """Read boxes of images, one each: corners, NaN for boxes left out, or the line of a refusal."""
    reading = BoxReading(form, unit, "boxes", stated=stated, affirmed=answered)
    try:
        checked = box_check.check_boxes(
            values, reading, sizes, [f"i{n}" for n in range(len(values))]
        )
    except InputError as error:
        return str(error)
    return np.where((checked.faults == "")[:, None], checked.corners, np.nan)


def same_lesions(boxes):
    """Numbers of the lesions of boxes [image, finding, reader, x1, y1, x2, y2]."""
    return readers.same_lesions(_boxes(boxes)).tolist()


def join_readers(states, boxes, rule):
    """State of the reference, and its boxes, of readers' states of one finding on one image."""
    findings = pd.DataFrame({"reader": states.keys(), "state": states.values()})
    findings = findings.assign(image_id="a", finding="mass", origin="reader", implied=False)
    made, drawn = readers.with_reference(findings, _boxes(boxes), rule)
    (state,) = made.loc[made["reader"] == "reference", "state"]
    return state, drawn.loc[drawn["reader"] == "reference", EDGES].to_numpy().tolist()


def _boxes(rows):
    table = pd.DataFrame(rows, columns=["image_id", "finding", "reader", *EDGES])
    return table.astype({**dict.fromkeys(table.columns[:3], "str"), **dict.fromkeys(EDGES, float)})
