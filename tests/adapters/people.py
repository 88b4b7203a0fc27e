"""Readings by `cxr prepare` of its arguments, before an image is decoded, as plain values."""

import contextlib
import io
from pathlib import Path

import pandas as pd

from cxr_compare.commands import prepare as command
from cxr_compare.data_prep.sources.record import ReadRecord
from cxr_compare.data_prep.sources.registry import read_source
from cxr_compare.data_prep.sources.source import ReadOptions

_STATES = {"present": 1, "absent": 0, "uncertain": "?"}
_EDGES = ["x1", "y1", "x2", "y2"]


def read(arguments, options, out):
    """Labels, boxes, roles and files left out, by the path of the image; raises InputError."""
    options = dict(options)
    kind, target = options.pop("format", None), options.pop("target", {})
    columns = tuple(options.pop("columns", ()))
    options.pop("keep_ids", None)  # hides nothing of what is read
    paths = [Path(argument) for argument in (*arguments, out)]
    with contextlib.redirect_stderr(io.StringIO()):
        labels, folders, named = command._labels_and_folders(paths)
        source, _ = command._source_and_out(folders, labels)
        command._require_source(source)
        if kind is None and named:
            is_table = named == ["table"]
            kind = command._format_beside(source, labels)[0] if is_table else named[0]
        chosen = ReadOptions(labels=tuple(labels), columns=columns, **options)
        found = read_source(source, kind, chosen, ReadRecord()).with_targets(target)
    return _plain(found)


def _plain(found):
    path = found.images.set_index("image_id")["path"]
    views = found.images.get("view", [None] * len(path))
    roles = found.split if len(found.split) else found.official
    return {
        **tables_of(path, found.findings, found.boxes),
        "roles": dict(zip(path[roles["image_id"]], roles["role"], strict=True)),
        "views": {n: None if pd.isna(v) else v for n, v in zip(path, views, strict=True)},
        "left_out": sorted(found.excluded["path"].astype(str)),
        "patients": patients_of(found.images),
    }


def patients_of(images):
    """The paths of the images of each patient."""
    return sorted(images.groupby("patient_id")["path"].apply(sorted))


def tables_of(path, findings, boxes):
    """Labels and boxes of the reference by the path of the image, from the tables of a data set."""
    labels = {name: {} for name in path}
    for row in findings[findings["reader"] == "reference"].itertuples():
        labels[path[row.image_id]][row.finding] = _STATES[row.state]
    of_reference = boxes.loc[boxes["reader"] == "reference", ["image_id", "finding", *_EDGES]]
    rows = of_reference.round(3).itertuples(index=False)
    return {"labels": labels, "boxes": sorted([path[image], *rest] for image, *rest in rows)}
