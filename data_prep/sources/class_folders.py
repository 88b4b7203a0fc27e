"""Formats without a table of files: `folders`, a folder of images for each class, and `roboflow`.

Both make label tables of what they find, which are read as a user's own table is.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES
from cxr_compare.data_prep.contracts.table_files import read_table_file
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.sources.descriptions import TableRules
from cxr_compare.data_prep.sources.image_files import list_images
from cxr_compare.data_prep.sources.label_table import LabelTable, described_table
from cxr_compare.data_prep.sources.label_values import (
    class_finding,
    dictionary,
    normal_classes,
    states_of_cells,
)
from cxr_compare.data_prep.sources.own_table import read_own_tables
from cxr_compare.data_prep.sources.source_tables import Format, ReadOptions, Show, SourceTables
from cxr_compare.data_prep.sources.statements import Source

_ROBOFLOW = "_classes.csv"
_LEAST_SHARE = 0.9  # of the images that are in the folder of a class
_NUMBERING = re.compile(r"^\d+[\W_]+(?=\w)")  # of folders such as 0_NORMAL
_CLASS_FOLDERS = TableRules(
    name="class folders",
    roles={"file": "file", "label": "label", "split": "split"},
    origin="folder",
    separator=r"[|]",
)
_HOLDERS = ("images", "image", "imgs", "img")
_MASKS = re.compile(r"(?<![a-z])masks?(?![a-z])", re.IGNORECASE)  # folders such as "lung masks"


def _class_rows(root: Path) -> pd.DataFrame:
    """Return the path, the folder of the class and the role of each image below a folder.

    A folder ``train``, ``val`` or ``test`` is a role, and a folder ``images`` is no class: the
    class is the last other folder. It is empty for an image that is in none. Images in folders of
    masks are left out.
    """
    files = [
        path for path in list_images(root)["path"] if not _MASKS.search(path.rpartition("/")[0])
    ]
    folders = [path.split("/")[:-1] for path in files]
    classes = []
    roles = []
    for parts in folders:
        named = [p for p in parts if p.lower() not in ROLE_NAMES and p.lower() not in _HOLDERS]
        classes.append(_NUMBERING.sub("", named[-1]) if named else "")
        roles.append(next((ROLE_NAMES[p.lower()] for p in parts if p.lower() in ROLE_NAMES), ""))
    columns = {"file": files, "label": classes, "split": roles}
    return pd.DataFrame(columns, dtype=TEXT)


def _has_class_folders(root: Path) -> bool:
    """Return True for folders of classes, half of which have names of findings or of none."""
    if not root.is_dir():
        return False
    labels = _class_rows(root)["label"]
    names = {class_finding(label, label) for label in set(labels) if any(map(str.isalpha, label))}
    known = {*normal_classes(), *dictionary()["findings"]["names"]}
    n_known = sum(bool(known & {name, *name.split("_")}) for name in names)
    in_classes = (labels != "").mean() >= _LEAST_SHARE
    return len(names) > 1 and in_classes and n_known >= len(names) / 2


def _read_folders(root: Path, options: ReadOptions, show: Show) -> SourceTables:
    """Read the class of each image from its folder, and its role from train, val and test."""
    source = Source("folders", root, options, show)
    rows = _class_rows(root)
    loose = rows["label"] == ""
    if loose.all():
        raise InputError(f"{root}: has no folders of classes with images, such as NORMAL")
    masks = set(list_images(root)["path"]) - set(rows["file"])
    source.exclude(sorted(masks), "in a folder of masks")
    source.exclude(rows.loc[loose, "file"], "not in the folder of a class")
    rows = rows[~loose].reset_index(drop=True)
    no_role = rows["split"] == ""
    if no_role.any() and not no_role.all():
        n_images = counted(int(no_role.sum()), "image", "are")
        source.notes.append(
            f"{n_images} in no folder train, val or test, so the folders are no split"
        )
    if no_role.any():
        rows = rows.drop(columns="split")
    table = described_table(root, rows, _CLASS_FOLDERS)
    for label, (finding, _) in table.name(rows["label"].unique()).items():
        _refuse_doubtful(label, finding, root)
    for line in table.label_lines():
        show(line)
    return read_own_tables(source, [table])


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
    classes = [name for name in text.columns if name.lower() not in ("filename", "unlabeled")]
    if "filename" not in text.columns or not classes:
        raise InputError(
            f"{path}: needs a column filename and one for each class; it has "
            f"{', '.join(text.columns)}"
        )
    for name in set(text.columns) - {*classes, "filename"}:  # nobody looked at such an image
        is_open = states_of_cells(text[name]) == "present"
        text[classes] = text[classes].mask(is_open, "")
    text = text.assign(filename=folder + "/" + text["filename"])
    normal = [name for name in classes if class_finding(name, str(path)) in normal_classes()]
    roles: dict[str, str | list[str]] = {
        "file": "filename",
        "finding": [name for name in classes if name not in normal],
        "no_finding": normal,
    }
    if folder.lower() in ROLE_NAMES:
        text = text.assign(part=ROLE_NAMES[folder.lower()])
        roles["split"] = "part"
    return described_table(path, text, TableRules(name="Roboflow's classes", roles=roles))


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
