"""The label table that goes with a tree of DICOM files: which image a row means, and what it says.

Values of the table are never quoted in a message: a column may hold names of patients.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.csv_text import read_text_csv, refuse_line, to_numbers
from data_prep.contracts.errors import InputError
from data_prep.contracts.schemas import EDGES
from data_prep.contracts.text_lookup import is_member, renamed
from data_prep.formats.label_files import FINDING_KEY, STATE_WORDS
from data_prep.formats.source import finding_name

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
class LabelTable:
    """A label table as it was read.

    Attributes:
        path: The file.
        key: Which of a file's names the rows use, such as ``study_instance_uid``.
        rows: ``key, finding, state`` (empty where a box says it) and ``x1, y1, x2, y2`` (NaN
            where there is no box).
        passed_over: Columns that were not read.
    """

    path: Path
    key: str
    rows: pd.DataFrame
    passed_over: tuple[str, ...]


def read_label_table(path: Path) -> LabelTable:
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
    return LabelTable(path, key, rows.reset_index(drop=True), tuple(passed_over))


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
            "finding": _findings(text["finding"]),
            "state": _states(text["state"], path, "state") if "state" in text.columns else "",
            **edges,
        }
    )
    silent = (rows["state"] == "") & rows[EDGES].isna().all(axis=1)
    refuse_line(silent, path, "neither a state nor a box; fill in the state")
    return rows


def _findings(text: pd.Series) -> pd.Series:
    return renamed(text, {name: finding_name(name) for name in text.unique()})


def _wide_rows(text: pd.DataFrame, path: Path) -> pd.DataFrame:
    edges = [c for c in EDGES if c in text.columns]
    if edges:
        raise InputError(f"{path}: column '{edges[0]}' is of a box, but no column says the finding")
    named = [c for c in text.columns if c != "key"]
    findings = [finding_name(c) for c in named]
    if not named:
        raise InputError(f"{path}: has no finding; add finding, state or one column a finding")
    repeated = sorted({f for f in findings if findings.count(f) > 1})
    if repeated:
        raise InputError(f"{path}: two columns are both the finding '{repeated[0]}'; keep one")
    columns = [
        pd.DataFrame(
            {"key": text["key"], "finding": finding, "state": _states(text[column], path, column)}
        )
        for column, finding in zip(named, findings, strict=True)
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


def find_rows(
    table: LabelTable, files: pd.DataFrame, root: Path, notes: list[str]
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
