"""Format of any tree of DICOM files, with the labels in a table beside it.

What each file is, its header tells: names, extensions and SOP classes play no part. The image's id
is its SOPInstanceUID and the patient's is PatientID, so the folder that comes of it holds
identifiers unless they are replaced (`data_prep.contracts.pseudonyms`). Values of the label table
are never quoted in a message: a column may hold names of patients.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES, REFERENCE_READER
from data_prep.contracts.tables import (
    empty_table,
    is_member,
    read_text_csv,
    refuse_line,
    renamed,
    to_numbers,
)
from data_prep.contracts.words import counted
from data_prep.formats.label_files import STATE_WORDS, stated_tables
from data_prep.formats.source import (
    FINDING_KEY,
    Exclusions,
    Format,
    SourceBuilder,
    SourceTables,
    files_below,
    finding_name,
)
from data_prep.images.decoded_image import MAX_FILE_BYTES
from data_prep.images.dicom_header import DicomFile, has_preamble, look_at_file
from data_prep.work.local_copies import open_image
from data_prep.work.object_store import StoreError
from data_prep.work.pool import LocalEngine, cpu_count

# What a column may be called, its letters and digits alone; the most exact kind of key comes first.
_KEY_NAMES = {
    "path": ("path", "filepath", "imagepath"),
    "file": ("file", "filename"),
    "image_id": ("imageid",),
    "sop_instance_uid": ("sopinstanceuid",),
    "study_instance_uid": ("studyinstanceuid",),
    "accession_number": ("accessionnumber",),
    "patient_id": ("patientid",),
}


@dataclass(frozen=True)
class _LabelTable:
    """A label table as it was read."""

    path: Path
    key: str  # which of a file's names the rows use, such as `study_instance_uid`
    # `key, finding, state` (empty where a box says it) and `x1, y1, x2, y2` (NaN where there is
    # no box)
    rows: pd.DataFrame
    passed_over: tuple[str, ...]  # columns that were not read


def _read_label_table(path: Path) -> _LabelTable:
    """Read a label table in either form."""
    text = read_text_csv(path, ())
    plain = {c: re.sub(r"[^a-z0-9]", "", c.lower()) for c in text.columns}
    keys = {
        key: next(column for column in text.columns if plain[column] in names)
        for key, names in _KEY_NAMES.items()
        if not set(names).isdisjoint(plain.values())
    }
    if not keys:
        raise InputError(
            f"{path}: no column names the image; add one of {', '.join(_KEY_NAMES)}; found "
            f"{', '.join(text.columns)}"
        )
    key = next(iter(keys))
    passed_over = [c for c in text.columns if c.startswith("x_") or c in list(keys.values())[1:]]
    text = text[text[keys[key]] != ""].rename(columns={keys[key]: "key"}).drop(columns=passed_over)
    if text.empty:
        raise InputError(f"{path}: no row names an image")
    rows = _long_rows(text, path) if "finding" in text.columns else _wide_rows(text, path)
    return _LabelTable(path, key, rows.reset_index(drop=True), tuple(passed_over))


def _long_rows(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    unknown = [c for c in text.columns if c not in ("key", "finding", "state", *EDGES)]
    if unknown:
        raise InputError(
            f"{path}: unknown column '{unknown[0]}' beside finding and state; call it "
            f"'x_{unknown[0]}' to have it passed over, or remove it"
        )
    given = [c for c in EDGES if c in text.columns]
    if given and len(given) < len(EDGES):
        lacking = next(c for c in EDGES if c not in given)
        raise InputError(f"{path}: column '{lacking}' is missing; a box needs {', '.join(EDGES)}")
    refuse_line(text["finding"] == "", path, "finding is empty; fill it in")
    edges = {c: to_numbers(text[c], path, c) if given else np.nan for c in EDGES}
    rows = pd.DataFrame(
        {
            "key": text["key"],
            "finding": renamed(
                text["finding"], {name: finding_name(name) for name in text["finding"].unique()}
            ),
            "state": _states(text["state"], path, "state") if "state" in text.columns else "",
            **edges,
        }
    )
    silent = (rows["state"] == "") & rows[EDGES].isna().all(axis=1)
    refuse_line(silent, path, "neither a state nor a box; fill in the state")
    return rows


def _wide_rows(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    edges = [c for c in EDGES if c in text.columns]
    if edges:
        raise InputError(f"{path}: column '{edges[0]}' is of a box, but no column says the finding")
    columns_named = [c for c in text.columns if c != "key"]
    findings = [finding_name(c) for c in columns_named]
    if not columns_named:
        raise InputError(f"{path}: has no finding; add finding, state or one column a finding")
    repeated = sorted({f for f in findings if findings.count(f) > 1})
    if repeated:
        raise InputError(f"{path}: two columns are both the finding '{repeated[0]}'; keep one")
    columns = [
        pd.DataFrame(
            {"key": text["key"], "finding": finding, "state": _states(text[column], path, column)}
        )
        for column, finding in zip(columns_named, findings, strict=True)
    ]
    rows = pd.concat(columns, ignore_index=True)
    return rows[rows["state"] != ""].assign(**dict.fromkeys(EDGES, np.nan))


def _states(text: pd.Series, path: Path, column: str) -> pd.Series:
    states = renamed(text.str.lower(), {**STATE_WORDS, "": ""})
    reason = (
        f"column '{column}' holds no state; expected 1, 0, -1, present, absent, uncertain or "
        "nothing. Call a column that is no finding 'x_...'"
    )
    refuse_line(states.isna(), path, reason)
    return states


def _find_rows(
    table: _LabelTable, files: pd.DataFrame, root: Path, notes: list[str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Give the rows of a label table to the images that they name."""
    names = _names(files, table.key)
    rows = table.rows
    if table.key in ("path", "file"):
        rows = rows.assign(key=_relative(rows["key"], root))
    found = rows.merge(names, on="key")
    if found.empty:
        raise InputError(
            f"{table.path}: none of its {rows['key'].nunique()} {table.key} is that of an image in "
            f"{root}; check the column, or name the images in another one"
        )
    missing = int((~is_member(rows["key"], names["key"])).sum())
    if missing:
        notes.append(
            f"{table.path.name}: {missing} of {len(rows)} labels name no image: not there, "
            "or left out"
        )
    shared = names[is_member(names["key"], found["key"])].groupby("key")["image_id"].nunique()
    if (shared > 1).any():
        notes.append(
            f"{table.path.name}: {int((shared > 1).sum())} {table.key} name several images each "
            f"({int(shared[shared > 1].sum())} in all), which get the same labels"
        )
    if table.passed_over:
        listed = ", ".join(table.passed_over)
        notes.append(f"{table.path.name}: matched by {table.key}; columns not read: {listed}")
    stated = found.loc[found["state"] != "", [*FINDING_KEY, "state"]]
    boxed = found.loc[found[EDGES].notna().any(axis=1), [*FINDING_KEY, *EDGES]]
    labels, boxes = (f.drop_duplicates().reset_index(drop=True) for f in (stated, boxed))
    return labels, boxes


def _names(files: pd.DataFrame, key: str) -> pd.DataFrame:
    """``key, image_id``: every way to name each image by this kind of key."""
    suffix = r"\.[A-Za-z][A-Za-z0-9]{0,5}$"  # not the last number of a UID
    bare = files["path"].str.replace(suffix, "", regex=True)
    names, stems = (paths.str.rsplit("/", n=1).str[-1] for paths in (files["path"], bare))
    ways = {
        "path": [files["path"], bare],
        "file": [files["path"], bare, names, stems],
        "image_id": [files["image_id"], names, stems],
        "sop_instance_uid": [files["image_id"]],
        "study_instance_uid": [files["study"]],
        "accession_number": [files["accession_number"]],
        "patient_id": [files["patient_id"]],
    }[key]
    pairs = [pd.DataFrame({"key": way, "image_id": files["image_id"]}) for way in ways]
    known = pd.concat(pairs, ignore_index=True).astype("str").drop_duplicates()
    return known[known["key"] != ""].reset_index(drop=True)


def _relative(keys: pd.Series, root: Path) -> pd.Series:
    """Paths as the tree has them: with ``/``, and relative to its folder."""
    slashed = keys.str.replace("\\", "/", regex=False).str.removeprefix("./")
    for folder in dict.fromkeys((root, root.resolve())):
        slashed = slashed.str.removeprefix(folder.as_posix().rstrip("/") + "/")
    return slashed


_FIRST_FILES = 500  # that detection opens
_FEW_FILES = 5000  # a header takes 0.6 ms, starting worker processes some seconds


def _look_at_files(root: Path, skip: str | None = None) -> Iterator[DicomFile]:
    """Look at every file below a folder, whatever its name; hidden ones are passed over."""
    paths = [path for path in sorted(files_below(root)) if path != skip]
    workers = cpu_count() if len(paths) > _FEW_FILES else 1
    return LocalEngine(workers).map_rows(
        _look_at_file, [(root, path) for path in paths], on_crash=_crashed
    )


def _look_at_file(task: tuple[Path, str]) -> DicomFile:
    root, path = task
    try:
        with open_image(root / path, MAX_FILE_BYTES) as file:
            return look_at_file(task, file)
    except StoreError:
        raise
    except InputError as error:
        return DicomFile(path, str(error).removeprefix(f"{root / path}: "))


def _crashed(task: tuple[Path, str]) -> DicomFile:
    return DicomFile(task[1], "reading its header crashed or ran out of memory")


_SAME_PATIENT_EVERYWHERE = 0.5
_ENOUGH_TO_TELL = 20


def _read_dicom_tree(builder: SourceBuilder) -> SourceTables:
    """Read the headers of every file below a folder; no pixel is decoded."""
    source, notes, labels = builder.root, builder.notes, builder.options.labels
    table, skip = None, None
    if labels is not None:
        table = _read_label_table(labels)
        if labels.resolve().is_relative_to(source.resolve()):
            skip = labels.resolve().relative_to(source.resolve()).as_posix()
    seen = _without_second_copies(list(_look_at_files(source, skip)))
    taken = [file for file in seen if file.reason is None]
    if not taken:
        raise InputError(
            f"{source}: no chest radiograph among {counted(len(seen), 'file')}; {_reasons(seen)}"
        )
    files = pd.DataFrame(taken).drop(columns="reason")
    notes += _notes(seen, files)
    images = _images(files, builder)
    left_out = Exclusions({file.path: file.reason for file in seen if file.reason})
    tables: dict[str, Any] = {"files": files, "excluded": left_out.table({}, "header")}
    if table is None or labels is None:
        notes.append("no --labels: no image has a label, so nothing can be trained or judged")
        return builder.tables(images, empty_table("findings"), **tables)
    stated, boxes = _find_rows(table, files, source, notes)
    stated = stated.assign(reader=REFERENCE_READER, origin="consensus").astype("str")
    boxes = boxes.assign(reader=REFERENCE_READER)
    return stated_tables(builder, images, stated, boxes, path=labels, **tables)


def _without_second_copies(seen: list[DicomFile]) -> list[DicomFile]:
    """Leave out files whose SOPInstanceUID an earlier file has: it names one image."""
    first: dict[str, str] = {}
    kept = []
    for file in seen:
        if file.reason is None and first.setdefault(file.image_id, file.path) != file.path:
            file = DicomFile(file.path, "its SOPInstanceUID is that of an earlier file")
        kept.append(file)
    return kept


def _images(files: pd.DataFrame, builder: SourceBuilder) -> pd.DataFrame:
    """The ``images`` table; of the header's names it holds image, patient and study alone."""
    study = files["study"].where(files["study"] != "")
    stated = files["patient"].where(files["patient"] != "")
    patients = builder.patients(
        "dicom:" + stated,
        "dicom:" + ("study-" + study).fillna("image-" + files["image_id"]),
        lambda n: f"{counted(n, 'image', 'carry')} no PatientID, so each of their studies",
    )
    most = stated.value_counts()
    share = int(most.iloc[0]) / len(files) if len(most) else 0.0
    if share > _SAME_PATIENT_EVERYWHERE and len(files) >= _ENOUGH_TO_TELL:
        builder.notes.append(
            f"WARNING: one PatientID is on {share:.0%} of the images: where an anonymiser gave all "
            "the same, no split by patient can be drawn"
        )
    return pd.DataFrame(
        {
            "image_id": files["image_id"],
            **patients,
            "study_id": study,
            "source": "dicom",
            "path": files["path"],
            "view": files["view"].astype("str"),
            "sex": files["sex"].astype("str"),
            "age_years": files["age_years"].astype("float64"),
        }
    )


def _notes(seen: list[DicomFile], files: pd.DataFrame) -> list[str]:
    notes = [f"{len(files)} of {counted(len(seen), 'file')} are taken as chest radiographs"]
    if len(files) < len(seen):
        notes[0] += f"; left out: {_reasons(seen)}"
    for column, what in (("view", "view"), ("states_chest", "body part")):
        unknown = files[column].isna() | (files[column] == False)  # noqa: E712 - bool or text
        if unknown.any():
            taken = "frontal" if what == "view" else "chests"
            notes.append(
                f"{counted(int(unknown.sum()), 'image', 'do')} not state the {what}: taken as "
                f"{taken}; look at them"
            )
    return notes


def _reasons(seen: list[DicomFile]) -> str:
    counts = Counter(file.reason for file in seen if file.reason)
    listed = [f"{count} x {reason}" for reason, count in counts.most_common(8)]
    return ", ".join(listed) + (", ..." if len(counts) > len(listed) else "")


def _holds_dicom(folder: Path) -> bool:
    """Whether one of the first files below a folder is DICOM by its content."""
    files = (path for path in islice(folder.rglob("*"), _FIRST_FILES) if path.is_file())
    return any(map(has_preamble, files))


DICOM = Format(
    name="dicom",
    title="any tree of DICOM files",
    folder="DICOM files, whatever their names, with a table of labels given by `--labels`",
    detect=_holds_dicom,
    read=_read_dicom_tree,
    options=("labels",),
)
