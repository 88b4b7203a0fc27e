"""Inputs of a report, in its folder ``inputs``, by which all its figures are computed again.

Tables hold labels, patients, roles and true boxes, and of each system scores, boxes and activation
maps as they were read; ``inputs.json`` holds what their readers said. All else is in the answer.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.files import (
    file_digest,
    is_work_file,
    make_folder,
    require_unchanged,
)
from cxr_compare.data_prep.base.folders import folder_kind
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.base.records import Items, Record, digest_of
from cxr_compare.data_prep.base.user_tables import require_file_size
from cxr_compare.data_prep.predictions import Predictions
from cxr_compare.evaluation.compare import Request
from cxr_compare.evaluation.inputs.folders import OF_SEEN, RECORDED, STEPS, output_of
from cxr_compare.evaluation.joint import join
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.report import files
from cxr_compare.evaluation.report.answer import Answer
from cxr_compare.evaluation.report.composition import FACT_COLUMNS
from cxr_compare.evaluation.shortcuts import fact_columns
from cxr_compare.evaluation.statistics.arrays import as_array
from cxr_compare.evaluation.subgroups import group_columns
from cxr_compare.evaluation.truth import Truth, no_boxes, numbers_of

_RECORD = "inputs.json"
_SIDES = ["width", "height"]
_MEASURED = ["measured_width", "measured_height"]
"""Sizes in the headers of image files, which no fact about the images is taken from."""
_OF_LESIONS = ("spacing_row_mm", "spacing_col_mm")
_COLUMNS = {
    "scores": ["image_id", "score"],
    "boxes": ["image_id", *EDGES, "score"],
    "maps": ["image_id", "grid_h", "grid_w", "values", *EDGES],
}
_TEXTS = (".txt", ".yaml", ".yml", ".csv", ".json", ".xml")


class SystemRead(Record):
    """Statements of the reader of one system.

    Attributes:
        tables: ``scores``, ``boxes`` and ``maps``, as far as the system has them.
        predictions: Folder that has these, from the report; empty for tables.
    """

    ranks: bool
    notes: Items[Note]
    tables: Items[str] = ()
    predictions: str = ""


class Inputs(Record, kind="inputs"):
    """Content of ``inputs.json``: what readers said of the truth and the systems."""

    notes: Items[Note]
    classes: Items[str] = ()
    systems: dict[str, SystemRead]


def write_inputs(
    report: Path, request: Request, readings: pd.DataFrame | None, *, drawn: bool
) -> None:
    """Write what a report rests on; `readings` are boxes of single readers, as far as drawn."""
    folder = report / files.INPUTS
    shutil.rmtree(folder, ignore_errors=True)
    make_folder(folder)
    images = _images(request, drawn=drawn)
    tested = images.index[images["role"].isin(("test", "val"))]
    systems: dict[str, SystemRead] = {}
    rows: dict[str, list[pd.DataFrame]] = {part: [] for part in _COLUMNS}
    for name, output in request.outputs.items():
        if "members" in output.record:  # it is joined again
            continue
        predictions = predictions_beside(report, output)
        own_tables: dict[str, pd.DataFrame] = {}
        if not predictions:
            scores = output.scores.astype(np.float64).rename("score").rename_axis("image_id")
            parts = {"scores": scores.reset_index(), "boxes": output.boxes, "maps": output.maps}
            own_tables = {part: table for part, table in parts.items() if table is not None}
        for part, table in own_tables.items():
            columns = table.columns.intersection(_COLUMNS[part])
            is_used = table["image_id"].isin(tested)
            rows[part].append(table.loc[is_used, columns].assign(system=name))
        systems[name] = SystemRead(
            ranks=output.ranks,
            notes=tuple(dict.fromkeys(output.notes)),
            tables=tuple(own_tables),
            predictions=predictions,
        )
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in rows.items() if parts}
    tables["images"] = images.reset_index(names="image_id")
    if len(request.truth.boxes):
        boxes = request.truth.boxes[["image_id", *EDGES]]
        tables["true_boxes"] = boxes.sort_values("image_id", kind="stable")
    if readings is not None:
        tables["readings"] = readings
    for name, table in tables.items():
        files.write_table(table, folder / f"{name}.parquet")
    truth, notes = request.truth, tuple(dict.fromkeys(request.truth.notes))
    Inputs(notes=notes, classes=truth.classes, systems=systems).write(folder / _RECORD)


def _images(request: Request, *, drawn: bool) -> pd.DataFrame:
    """Return all images, with the columns that the request and the composition use."""
    truth, unit = request.truth, request.options["unit"]
    facts = images = truth.images
    if truth.facts is not None:
        facts = images.drop(columns=truth.facts, errors="ignore").join(truth.facts)
    used_columns = [*group_columns(images, request.protocol.subgroups), *_OF_LESIONS, *FACT_COLUMNS]
    used_columns += fact_columns(facts) if unit == "image" else []
    used_columns += ["study_id"] if unit == "study" else []
    used_columns += ["x_class"] if drawn else []
    facts = facts[[name for name in dict.fromkeys(used_columns) if name in facts]].apply(_plain)
    names = ["patient_id", "is_assumed", "role", "label", "synthetic"]
    table = images[[name for name in names if name in images]].assign(
        boxed=truth.is_boxed, uncertain=truth.ids.isin(truth.uncertain)
    )
    sides = [name for name in _SIDES if name in images]
    table[sides] = numbers_of(images, sides)
    are_measured = len(truth.boxes) and truth.measure is not None and not truth.presumed
    if are_measured and truth.sizes.notna().any(axis=None):
        table[_MEASURED] = truth.sizes
    return table.join(facts.drop(columns=table.columns, errors="ignore"))


def _plain(cells: pd.Series) -> pd.Series:
    """Return numbers as they are, and all else as texts, which is what figures take it for."""
    if is_float_dtype(cells):
        return cells
    cells = cells.astype(object)
    return cells.where(cells.notna(), None).map(str, na_action="ignore")


def predictions_beside(report: Path, output: Output) -> str:
    """Return the folder of the predictions that were made for a report; empty without one."""
    name = Path(str(output.record.get("folder", ""))).name
    for folder in (f"{files.SYSTEMS}/{name}", f"../{files.SYSTEMS}/{name}"):
        if name and (report / folder / "predictions.json").is_file():
            info = Predictions.open(report / folder).info
            if info.inference_id == output.record.get("inference_id"):
                return folder
    return ""


def read_inputs(report: Path, answer: Answer) -> tuple[Request, pd.DataFrame | None]:
    """Read what `write_inputs` wrote: the request, joining systems again, and readings."""
    folder, origin = report / files.INPUTS, answer.provenance
    stored = Inputs.read(folder / _RECORD)
    rows = {path.stem: files.with_texts(pd.read_parquet(path)) for path in folder.glob("*.parquet")}
    images = rows["images"].set_index("image_id").sort_index()
    sizes = images.reindex(columns=_MEASURED).dropna()
    measured = {
        str(image): (int(width), int(height))
        for image, width, height in sizes.itertuples(name=None)
    }
    counted = {(row["group"], row["value"]): row["all"] for row in answer.composition}
    truth = Truth(
        images.drop(columns=["boxed", "uncertain", *_MEASURED], errors="ignore"),
        rows.get("true_boxes", no_boxes()),
        images.index[images["boxed"].to_numpy(bool)],
        images.index[images["uncertain"].to_numpy(bool)],
        finding=answer.target,
        title=answer.title,
        notes=stored.notes,
        classes=stored.classes,
        record={} if origin.data_set is None else origin.data_set.to_json(),
        measure=measured.get if measured else None,
        steps={key: n for key in STEPS.values() if (n := counted.get(key))},
    )
    outputs = {}
    for name, system in stored.systems.items():
        record = {key: value for key, value in origin.systems[name].items() if key in RECORDED}
        if system.predictions:
            target = Target.of(answer.target, record["findings"])
            output = output_of(name, Predictions.open(report / system.predictions), truth, target)
            record = {**output.record, **{key: record[key] for key in OF_SEEN}}
        else:
            system_tables: dict[str, Any] = {
                part: rows[part][rows[part]["system"] == name]
                .drop(columns="system")
                .reset_index(drop=True)
                for part in system.tables
            }
            output = Output(
                system_tables.pop("scores").set_index("image_id")["score"], **system_tables
            )
        outputs[name] = replace(output, record=record, notes=system.notes, ranks=system.ranks)
    if answer.joint:
        outputs[answer.joint] = join(outputs, truth)
    return Request.of(outputs, truth, origin.request, origin.files), rows.get("readings")


def stored_request(report: Path, answer: Answer) -> Request:
    """Return the request of a report; InputError without its inputs, or if they were changed."""
    if answer.provenance.request.get("without_inputs"):
        raise InputError(
            f"{report}: was written without its inputs, of which overlays are drawn; compare again "
            "and leave out without_inputs"
        )
    for name, digest in answer.files.items():
        if name.startswith(f"{files.INPUTS}/"):
            require_unchanged(report / name, digest)
    request, _ = read_inputs(report, answer)
    return request


def given_files(parts: Mapping[str, Any], systems: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return name, size and SHA-256 of each file, folder or value, by what it was given as."""
    value_by_role = {role: value for role, value in parts.items() if value is not None}
    value_by_role |= {f"system {name}": value for name, value in systems.items()}
    return [{"given_as": role, **given_file(value)} for role, value in value_by_role.items()]


def _plain_form(value: Any) -> Any:
    """Return a table as its names and cells, an array as dtype, shape and digest of its bytes.

    Equal lists, arrays and tables have equal forms, however they lie in memory.
    """
    if isinstance(value, pd.Series | pd.DataFrame):
        kinds = [type(part).__name__ for part in (value, value.index)]
        return [*kinds, pd.DataFrame(value).to_dict("split")]
    if value is pd.NA or isinstance(value, date):  # cells of tables
        return str(value)
    value = as_array(value) if hasattr(value, "detach") else value  # a tensor
    if not isinstance(value, np.ndarray | np.generic) or np.ma.isMaskedArray(value):
        raise TypeError(f"a {type(value).__name__} has no plain form")
    if value.dtype == object:
        return value.tolist()
    return [value.dtype.str, value.shape, hashlib.sha256(value.tobytes()).hexdigest()]


def given_file(value: Any) -> dict[str, Any]:
    """Return name, size and SHA-256 of a file or folder, or the digest of a value in memory."""
    if isinstance(value, Predictions) and not value.tables:
        value = value.folder
    if not isinstance(value, str | os.PathLike) or not os.path.exists(value):  # noqa: PTH110
        record = {"name": f"{type(value).__name__} in memory"}
        with suppress(TypeError, ValueError, RecursionError):
            record["sha256"] = digest_of(value, _plain_form)
        return record
    path = Path(value)
    return _digest_of_file(path) if path.is_file() else _digest_of_folder(path)


def _digest_of_file(path: Path) -> dict[str, Any]:
    require_file_size(path)
    name = path.resolve().name
    return {"name": name, "bytes": path.stat().st_size, "sha256": file_digest(path)}


def _digest_of_folder(path: Path) -> dict[str, Any]:
    """Return the digest of a folder; of one of ours by the record that names all its files.

    Another one, whose name may be that of a person, counts by the digests of its texts, and the
    sizes of its other files, such as images, of which all would have to be read.
    """
    if kind := folder_kind(path):
        name = f"{path.resolve().name}/{kind.record}"
        return {**_digest_of_file(path / kind.record), "name": name}
    files_inside = [file for file in path.rglob("*") if file.is_file() and not is_work_file(file)]
    contents = {
        str(file.relative_to(path)): file_digest(file)
        if file.suffix.lower() in _TEXTS
        else file.stat().st_size
        for file in files_inside
    }
    size = sum(file.stat().st_size for file in files_inside)
    return {
        "name": f"folder of {len(files_inside)} files",
        "bytes": size,
        "sha256": digest_of(contents),
    }
