"""Folders of classes: a folder of images for each finding, and one for none."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, ask, counted_phrase
from cxr_compare.data_prep.base.ids import TEXT
from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.sources.guard import FEW_CLASSES, classes_apart
from cxr_compare.data_prep.sources.image_files import list_images
from cxr_compare.data_prep.sources.label_table import LabelTable, TableRules
from cxr_compare.data_prep.sources.statements import Source
from cxr_compare.data_prep.sources.table_columns import answered
from cxr_compare.data_prep.sources.words import class_finding, dictionary, normal_classes

_NUMBERING = re.compile(r"^\d+[\W_]+(?=\w)")  # of folders such as 0_NORMAL
_HOLDERS = ("images", "image", "imgs", "img")
_MASKS = re.compile(r"(?<![a-z])masks?(?![a-z])", re.IGNORECASE)  # folders such as "lung masks"


def _class_rows(root: Path) -> pd.DataFrame:
    """Return path, folder of the class and role of each image; "mask" is the role of a mask."""
    rows = []
    for path in list_images(root)["path"]:
        folders = path.split("/")[:-1]
        classes = [name for name in folders if name.lower() not in (*ROLE_NAMES, *_HOLDERS)]
        roles = [ROLE_NAMES[name.lower()] for name in folders if name.lower() in ROLE_NAMES]
        if any(map(_MASKS.search, folders)):
            roles = ["mask"]
        label = _NUMBERING.sub("", classes[-1]) if classes else ""
        rows.append((path, label, roles[0] if roles else ""))
    return pd.DataFrame(rows, columns=["file", "label", "split"], dtype=TEXT)


def has_class_folders(root: Path) -> bool:
    """Return True for folders of classes: half of them are called as a finding or as none.

    Beside one of no finding, words without a digit are classes, too: folders of patients have one.
    """
    labels = _labels_of_folders(root)
    names = {class_finding(label, label) for label in set(labels) if any(map(str.isalpha, label))}
    known_names = {*normal_classes(), *dictionary()["findings"]["names"]}
    unknown = [name for name in names if not known_names & {name, *name.split("_")}]
    are_words = not normal_classes().isdisjoint(names) and not re.search(r"\d", " ".join(unknown))
    are_known = len(unknown) <= len(names) / 2 or are_words
    return len(names) > 1 and (labels != "").mean() >= 0.9 and are_known


def few_folders(root: Path) -> pd.Series:
    """Return the folder of each image where a few, called by words, hold all; else empty."""
    labels = _labels_of_folders(root)
    are_words = all(any(map(str.isalpha, name)) for name in {*labels})
    return labels if 1 < labels.nunique() <= FEW_CLASSES and are_words else labels[:0]


def may_be_classes(root: Path) -> bool:
    """Return True for a few folders called by words, none of them for no finding, to be asked."""
    labels = few_folders(root)
    folders = {*labels}
    names = {class_finding(name, name) for name in folders if not re.search(r"\d", name)}
    is_each = len(names) == len(folders) > 0
    return is_each and len(labels) >= 2 * len(names) and normal_classes().isdisjoint(names)


def numbered_folders(root: Path) -> list[str]:
    """Return the folders of classes if these are called by all numbers from 0 on."""
    names = _labels_of_folders(root).unique()
    numbers = [str(number) for number in range(len(names))]
    return numbers if len(names) > 1 and {*names} == {*numbers} else []


def _labels_of_folders(root: Path) -> pd.Series:
    """Return the folder of a class of each image that is no mask, empty without one."""
    rows = _class_rows(root)
    return rows.loc[rows["split"] != "mask", "label"]


def labels_beside(source: Source, labelled: Collection[str]) -> list[LabelTable]:
    """Return the table of the class folders if the images in them are not all `labelled`."""
    if source.index is None or {*source.files.images} <= {*labelled, *source.left_out}:
        return []
    if not has_class_folders(source.root):
        return []
    table = class_table(source, labelled)
    files = f"the label files are of {len(labelled)} images, and " if labelled else ""
    line = table.label_line(source.options.class_names)
    source.show(f"{files}the folders are classes: {line}")
    return [table]


def class_table(source: Source, labelled: Collection[str] = ()) -> LabelTable:
    """Return the class of each image, which is its folder, as a table with its role.

    Images in a folder of masks, or in no folder of a class, are left out unless they are
    `labelled` elsewhere.
    """
    root = source.root
    rows = _class_rows(root)
    is_mask = rows["split"] == "mask"
    is_loose = ~is_mask & (rows["label"] == "")
    is_free = ~rows["file"].isin(labelled)
    source.exclude(rows.loc[is_mask & is_free, "file"], "in a folder of masks")
    source.exclude(rows.loc[is_loose & is_free, "file"], "not in the folder of a class")
    rows = rows[~is_mask & ~is_loose].reset_index(drop=True)
    if rows.empty:
        raise InputError(f"{root}: has no folders of classes with images, such as NORMAL")
    has_no_role = rows["split"] == ""
    if has_no_role.any() and not has_no_role.all():
        text = "images are in no folder train, val or test, so the folders are no split"
        source.notes.append(counted_phrase(int(has_no_role.sum()), text))
    if has_no_role.any():
        rows = rows.drop(columns="split")
    roles: dict[str, str | list[str]] = {"file": "file", "label": "label", "split": "split"}
    rules = TableRules(name="class folders", roles=roles, origin="folder", separator="[|]")
    caller = source.options.caller
    means = [answer for answer in source.options.columns if answer.startswith("means:")]
    (table,) = answered([LabelTable(root, rows, rules, caller=caller)], means)
    ask([*classes_apart(table)])
    return table
