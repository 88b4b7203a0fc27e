"""Formats without a table of files: `folders`, a folder of images for each class, and `roboflow`.

Both make label tables of what they find, which are read as a user's own table is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES
from cxr_compare.data_prep.contracts.table_files import read_header, read_table_file
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.descriptions import TableRules
from cxr_compare.data_prep.sources.image_files import list_images
from cxr_compare.data_prep.sources.label_names import name_labels
from cxr_compare.data_prep.sources.label_table import LabelTable, described_table
from cxr_compare.data_prep.sources.label_values import (
    class_finding,
    dictionary,
    normal_classes,
    plain_cells,
    states_of_cells,
)
from cxr_compare.data_prep.sources.own_table import read_own_tables
from cxr_compare.data_prep.sources.source_tables import Format, ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source

_ROBOFLOW = "_classes.csv"
_LEAST_SHARE = 0.9  # of the images that are in the folder of a class
_MOST_CLASSES = 50
_NUMBERING = re.compile(r"^\d+[\W_]+(?=\w)")  # of folders such as 0_NORMAL
_HOLDERS = ("images", "image", "imgs", "img")


def _class_rows(root: Path) -> pd.DataFrame:
    """Return the path, the folder of the class and the role of each image below a folder.

    A folder ``train``, ``val`` or ``test`` is a role, and a folder ``images`` is no class: the
    class is the last other folder. It is empty for an image that is in none.
    """
    files = list_images(root)
    folders = [path.split("/")[:-1] for path in files["path"]]
    classes = []
    roles = []
    for parts in folders:
        named = [p for p in parts if p.lower() not in ROLE_NAMES and p.lower() not in _HOLDERS]
        classes.append(_NUMBERING.sub("", named[-1]) if named else "")
        roles.append(next((ROLE_NAMES[p.lower()] for p in parts if p.lower() in ROLE_NAMES), ""))
    columns = {"file": files["path"], "label": classes, "split": roles}
    return pd.DataFrame(columns, dtype=TEXT)


def _has_class_folders(root: Path) -> bool:
    """Return True for folders of classes, half of which have names of findings or of none."""
    if not root.is_dir():
        return False
    labels = _class_rows(root)["label"]
    names = {class_finding(label, label) for label in set(labels) if _has_letter(label)}
    if not 2 <= len(names) <= _MOST_CLASSES or (labels != "").mean() < _LEAST_SHARE:
        return False
    findings = set(dictionary()["findings"]["names"])
    n_known = sum(
        name in normal_classes() or bool(findings & {name, *name.split("_")}) for name in names
    )
    return n_known >= len(names) / 2


def _has_letter(label: str) -> bool:
    return any(letter.isalpha() for letter in label)


def _read_folders(root: Path, options: ReadOptions, show: Show) -> SourceTables:
    """Read the class of each image from its folder, and its role from train, val and test."""
    source = Source("folders", root, options, show)
    rows = _class_rows(root)
    labels = sorted(set(rows["label"]) - {""})
    if not labels:
        raise InputError(f"{root}: has no folders of classes with images, such as NORMAL")
    loose = rows["label"] == ""
    source.exclude(rows.loc[loose, "file"], "not in the folder of a class")
    rows = rows[~loose].reset_index(drop=True)
    if (rows["split"] == "").any():
        if (rows["split"] != "").any():
            source.notes.append(
                f"{counted(int((rows['split'] == '').sum()), 'image', 'are')} in no folder train, "
                "val or test, so the folders are no split"
            )
        rows = rows.drop(columns="split")
    named = name_labels(labels, str(root))
    for label in labels:
        finding, state = named.labels[label]
        _refuse_doubtful(label, finding, root)
        shown = "no finding" if finding in normal_classes() else f"{finding} is {state}"
        n_images = counted(int((rows["label"] == label).sum()), "image")
        show(f"  folder {label}: {shown} ({n_images})")
    rules = TableRules(
        name="class folders",
        roles={role: role for role in rows.columns},
        origin="folder",
        separator=r"[|]",
    )
    return read_own_tables(source, [described_table(root, rows, rules)])


def _refuse_doubtful(label: str, finding: str, root: Path) -> None:
    """Ask about a folder such as "normal x-rays", which may hold images without a finding."""
    words = set(finding.split("_"))
    if finding not in normal_classes() and words & {"normal", "healthy"}:
        raise InputError(
            f"{root}: does the folder {label!r} hold images without a finding? Call it NORMAL, or "
            "give it the name of a finding"
        )


def _class_tables(root: Path) -> list[Path]:
    """Return the tables of classes that Roboflow writes, one in the folder of each part."""
    if not root.is_dir():
        return []
    return [path for pattern in ("", "*/") for path in sorted(root.glob(pattern + _ROBOFLOW))]


def _read_roboflow(root: Path, options: ReadOptions, show: Show) -> SourceTables:
    """Read Roboflow's ``_classes.csv`` of each part, whose folder is its role."""
    source = Source("roboflow", root, options, show)
    tables = [_class_table(path, root) for path in _class_tables(root)]
    if not tables:
        raise InputError(f"{root}: holds no {_ROBOFLOW}, as Roboflow's multi-label export does")
    if not all(table.has("split") for table in tables):
        for table in tables:
            table.columns.pop("split", None)
    for table in tables:
        for line in table.lines():
            show(line)
    return read_own_tables(source, tables)


def _class_table(path: Path, root: Path) -> LabelTable:
    text = read_table_file(path).text
    folder = path.parent.relative_to(root).as_posix()
    classes = [str(name) for name in text.columns if name.lower() not in ("filename", "unlabeled")]
    if "filename" not in text.columns or not classes:
        raise InputError(
            f"{path}: needs a column filename and one for each class; it has "
            f"{', '.join(read_header(path))}"
        )
    unlabelled = next((name for name in text.columns if name.lower() == "unlabeled"), None)
    if unlabelled is not None:  # nobody looked at such an image
        is_open = states_of_cells(plain_cells(text[unlabelled])) == "present"
        text = text.assign(**{name: text[name].mask(is_open, "") for name in classes})
    text = text.assign(filename=folder + "/" + text["filename"])
    normal = [name for name in classes if class_finding(name, str(path)) in normal_classes()]
    roles: dict[str, str | list[str]] = {
        "file": "filename",
        "finding": [name for name in classes if name not in normal],
        "no_finding": normal,
    }
    role = ROLE_NAMES.get(folder.lower())
    if role is not None:
        text = text.assign(part=role)
        roles["split"] = "part"
    rules = TableRules(name="Roboflow's classes", roles=roles)
    return described_table(path, text, rules)


FOLDERS = Format(
    name="folders",
    title="a folder of images for each class",
    folder="folders such as `NORMAL`, `PNEUMONIA` and `TUBERCULOSIS`, there or in `train`, `val`, "
    "`test`",
    detect=_has_class_folders,
    read=_read_folders,
    options=("patient_pattern",),
)
ROBOFLOW = Format(
    name="roboflow",
    title="Roboflow's multi-label classification",
    folder="`_classes.csv`, there or in `train`, `valid`, `test`",
    detect=lambda root: bool(_class_tables(root)),
    read=_read_roboflow,
    options=("patient_pattern",),
    sources=("roboflow.com/formats/multi-class-classification-csv",),
)
