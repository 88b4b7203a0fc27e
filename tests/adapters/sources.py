"""Meaning of a folder of images and labels, as plain values."""

from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare import InputError
from cxr_compare.data_prep.base.box_check import BoxReading, fit
from cxr_compare.data_prep.base.boxes import EDGES, NUMBERS
from cxr_compare.data_prep.base.errors import in_shell, on_command_line, role_columns
from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.data_prep.sources import readers
from cxr_compare.data_prep.sources.build import build
from cxr_compare.data_prep.sources.record import ReadRecord
from cxr_compare.data_prep.sources.registry import FORMATS, read_source
from cxr_compare.data_prep.sources.source import ReadOptions
from cxr_compare.data_prep.sources.statements import Source

_STATES = {"present": 1, "absent": 0, "uncertain": "?"}
_FACTS = ("path", "patient_id", "patient_id_source", "width", "height", "view", "sex", "age_years")


def said(error):
    """Return what the command line says of an `InputError`, in one line."""
    return " ".join(line.strip() for line in error.lines(in_shell))


def answer(way):
    """The texts ROLE=COLUMN of a remedy; none if it is about no column."""
    return [f"{role}={column}" for role, column in role_columns(way.options.get("columns", {}))]


def read(folder, format, labels, options):  # noqa: A002
    """Read a folder: ("read", table) or ("refused", line).

    ``labels`` are the paths of label tables outside the folder; lists of ``options`` are tuples.
    """
    try:
        with on_command_line():
            return "read", plain(folder, format, labels, options)
    except InputError as error:
        return "refused", said(error)


def plain(folder, format, labels, options):  # noqa: A002
    """Read a folder as `read` does; InputError where it is refused."""
    options = ReadOptions(labels=tuple(labels), **options)
    return _plain_table(read_source(folder, format, options, ReadRecord()))


def boxes_of(folder, format, labels, columns):  # noqa: A002
    """Boxes of a folder as lists of corners by the path of their image, or the line of a refusal.

    ``labels`` are paths of label tables; ``columns`` answer questions.
    """
    options = ReadOptions(labels=tuple(labels), columns=tuple(columns))
    try:
        found = read_source(folder, format, options, ReadRecord())
    except InputError as error:
        return said(error)
    path = found.images.set_index("image_id")["path"]
    corners = found.boxes[EDGES].to_numpy().tolist()
    return dict(zip(path[found.boxes["image_id"]], corners, strict=True))


def labels(folder, tables, target=None, reference="majority"):
    """The state and the origin of each label, the boxes, the targets, and what is noted of labels.

    ``tables`` are paths; ``target`` joins findings by name.
    """
    options = ReadOptions(labels=tuple(tables), reference=reference)
    found = read_source(folder, "table", options, ReadRecord()).with_targets(target or {})
    key = ("image_id", "finding", "reader")
    rows = found.findings.astype(object)
    implied = [note for note in found.implied_notes if "count as absent" in note]
    return {
        "states": _by(rows, key, rows["state"].map(_STATES)),
        "origins": _by(rows, key, rows["origin"]),
        "boxed": sorted(found.boxes[["image_id", "finding"]].to_numpy().tolist()),
        "targets": sorted(found.targets),
        "implied": int(implied[0].split()[0]) if implied else 0,
    }


def _by(rows, key, values):
    return dict(zip(rows[list(key)].itertuples(index=False, name=None), values, strict=True))


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
    used = found.images.loc[~found.images["image_id"].isin(_unused(found))]
    return {
        "states": states,
        "boxes": sorted(boxes),
        "boxed": sorted(boxed),
        "left_out": sorted(found.excluded["path"].astype(str)),
        "images": {row["image_id"]: _facts(row) for row in found.images.to_dict("records")},
        "roles": dict(zip(found.official["image_id"], found.official["role"], strict=True)),
        "split": dict(zip(found.split["image_id"], found.split["role"], strict=True)),
        "targets": {name: list(target.any_of) for name, target in found.targets.items()},
        "warned": bool((used["patient_id_source"] == "assumed_image").any()),
    }


def _unused(found):
    return found.split.loc[found.split["role"] == "unused", "image_id"]


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
    reading = BoxReading(form, unit, "boxes", stated=stated, answered=answered)
    try:
        rows = pd.DataFrame({"image_id": [f"i{n}" for n in range(len(values))]})
        fitted = fit(values, reading, rows, sizes, sizes)
    except InputError as error:
        return said(error)
    return np.where((fitted.faults == "")[:, None], fitted.corners, np.nan)


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


def shown_lines(folder, format, labels):  # noqa: A002
    """Every line that a reading shows or notes."""
    record = ReadRecord()
    found = read_source(folder, format, ReadOptions(labels=tuple(labels)), record)
    return [*record.lines, *found.notes]


def built(images, rows, normal):
    """Tables that statements make: a plain table, or ("refused", line).

    ``rows`` are [image, finding, state, reader, implied, boxed], and ``normal`` [image, reader]; a
    box is of no meaning here.
    """
    source = Source(FORMATS["table"], Path("drawn"), ReadOptions())
    source.images = pd.DataFrame({"image_id": images, "path": None}, dtype=TEXT)
    source.images = source.images.assign(patient_id=images, patient_id_source="given")
    columns = ["image_id", "finding", "state", "reader", "implied", "boxed"]
    table = pd.DataFrame(rows, columns=columns).assign(origin="unknown")
    table[NUMBERS] = np.where(table[["boxed"]].astype(bool), (10, 20, 300, 400), np.nan)
    source.statements.append(table)
    source.normal.update(map(tuple, normal))
    try:
        return _plain_table(build(source))
    except InputError as error:
        return "refused", str(error)


def record(folder, format, labels, options):  # noqa: A002
    """Record of a reading, and the lines that it shows.

    A row is [fact, text, number]; a missing cell is None.
    """
    shown = []
    options = ReadOptions(labels=tuple(labels), **options)
    found = read_source(folder, format, options, ReadRecord(shown.append))
    table = found.read[["fact", "text", "number"]].astype(object)
    return table.where(table.notna(), None).to_numpy().tolist(), shown
