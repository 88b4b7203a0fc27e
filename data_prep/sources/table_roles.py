"""Roles (train, val, test) of images by the user's label tables: by a column, or by their names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, Remedy, in_shell
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.tables import ROLE_NAMES
from cxr_compare.data_prep.base.user_tables import to_roles
from cxr_compare.data_prep.sources.label_table import LabelTable, Tables
from cxr_compare.data_prep.sources.statements import Source

_ANEW = {"columns": {"split": ""}}
_WHEN_ANEW = "a new split is to be drawn by patient"
_NO_ROLES = pd.DataFrame(columns=["image_id", "role", "path"], dtype=TEXT)


def add_roles(source: Source, tables: Tables, *, names_people: bool = False) -> None:
    """Take the roles that tables give to images, whose patients are known.

    Without a column of roles, the name or folder of each table gives one to its images. With
    `names_people` images that no table names are unused, and no patient is shown.
    """
    by_column = [_roles_of_column(source, table) for table in tables]
    by_name = _NO_ROLES if source.labels_alone else _roles_of_names(source, tables)
    roles = pd.concat([_NO_ROLES, *by_column, by_name], ignore_index=True)
    if roles.empty:
        return
    where = str(tables[0].path if tables else source.root)
    ids = source.images["image_id"]
    if names_people:
        roles = pd.concat([roles, _unused_roles(ids, tables)], ignore_index=True)
    without = ids[~is_member(ids, roles["image_id"])]
    if len(without):
        table = Path(roles["path"].iloc[0]).name
        raise InputError(
            f"{where}: image {without.iloc[0]!r} has no role, as those of {table} have "
            f"({len(without)} such images); give each image one, in a column of each table or by "
            "its name, such as train.csv",
            _ways_anew(source),
        )
    _refuse_two_roles(roles, source)
    source.split = roles[["image_id", "role"]].drop_duplicates(ignore_index=True)
    if not source.options.caller.compares:  # it asks about the patients itself
        _refuse_shared_patients(source, where, names_people=names_people)


def _unused_roles(ids: pd.Series, tables: Tables) -> pd.DataFrame:
    """Return the role of images that none of the tables names, which nobody has labelled."""
    named_ids = pd.concat([table.images["image_id"] for table in tables])
    return pd.DataFrame({"image_id": ids[~is_member(ids, named_ids)], "role": "unused"}, dtype=TEXT)


def _roles_of_column(source: Source, table: LabelTable) -> pd.DataFrame:
    """Return the roles of images by a column of roles: ``image_id``, ``role``, ``path`` of it."""
    cells = table.cells("split")
    if (cells == "").all():
        return _NO_ROLES
    roles = to_roles(cells, table.path, " on every line", ways=_ways_anew(source))
    return table.images[["image_id"]].assign(role=roles, path=str(table.path))


def _roles_of_names(source: Source, tables: Tables) -> pd.DataFrame:
    """Return the roles that the names of tables give to the images of their rows.

    They count if they divide the images, and each image has a role then. Beside tables of labels,
    one that states none, as of the images of a competition, gives no role.
    """
    role_of = _named_roles(source.options.labels)
    tables = [table for table in tables if _has_labels(table)] or tables
    named_tables = [table for table in tables if table.path in role_of]
    if not named_tables or any("split" in table.answered for table in tables):
        return _NO_ROLES
    names = ", ".join(f"{_shown(table.path)} {role_of[table.path]}" for table in named_tables)
    if any(table.has("split") for table in tables):
        source.show(f"{names}: the column of roles is the split, not the name of the table")
        return _NO_ROLES
    parts = [
        table.images[["image_id"]].assign(role=role_of[table.path], path=str(table.path))
        for table in named_tables
    ]
    rows = pd.concat(parts, ignore_index=True)
    roles = {*rows["role"]} - {"unused"}
    named_ids = pd.concat([table.images["image_id"] for table in tables])
    is_whole = len(roles) < 2 and is_member(named_ids, rows["image_id"]).all()
    if is_whole or roles <= {"train"}:  # train alone divides nothing
        source.show(
            f"{names}: no table of labels is called as another role, so the split is drawn by "
            "patient; a column split with this role on every line keeps these images there"
        )
        return _NO_ROLES
    source.show(f"the names of the tables are the split: {names} (else add {in_shell(_ANEW)})")
    if source.label_files:
        return rows
    return pd.concat([rows, _unused_roles(source.images["image_id"], tables)])


def _has_labels(table: LabelTable) -> bool:
    """Return True for a table with a column of boxes, or with a label in a cell."""
    return bool(table.box_roles) or bool((table.text[table.labelled_columns] != "").any(axis=None))


def _named_roles(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the role of each table whose name, or a folder that not all share, states one."""
    if not paths:
        return {}
    folder = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    role_of: dict[Path, str] = {}
    for path in paths:
        inside = path.resolve().relative_to(folder).with_suffix("")
        roles = next(filter(None, map(_roles_in_name, reversed(inside.parts))), set())
        if len(roles) == 1:
            role_of[path] = next(iter(roles))
    return role_of


def _roles_in_name(name: str) -> set[str]:
    """Return the roles whose words are parts of a name: two of train_val, none of contest."""
    words = re.findall("[A-Z]?[a-z]+|[A-Z]+", name)  # Train and Labels of TrainLabels
    return {ROLE_NAMES[word.lower()] for word in words if word.lower() in ROLE_NAMES}


def _shown(path: Path) -> str:
    """Return the name of a table, with its folder if that states the role."""
    return path.name if _roles_in_name(path.stem) else f"{path.resolve().parent.name}/{path.name}"


def _ways_anew(source: Source) -> list[Remedy]:
    """Return the option that drops the roles of tables, if there is one."""
    is_set = source.options.labels and not source.options.caller.compares  # that draws no split
    return [Remedy(_WHEN_ANEW, _ANEW)] if is_set else []


def _refuse_two_roles(roles: pd.DataFrame, source: Source) -> None:
    """Refuse an image to which rows, or the names of tables, give two roles."""
    n_roles = roles.groupby("image_id", sort=False)["role"].nunique()
    images = n_roles.index[n_roles > 1]
    if len(images):
        rows_of_image = roles[roles["image_id"] == images[0]].drop_duplicates("role")
        one, other = rows_of_image.iloc[0], rows_of_image.iloc[1]
        raise InputError(
            f"{other['path']}: image {images[0]!r} has two roles, {other['role']} here and "
            f"{one['role']} in {one['path']} ({len(images)} such images); leave it in one of them",
            _ways_anew(source),
        )


def _refuse_shared_patients(source: Source, where: str, *, names_people: bool) -> None:
    """Refuse a patient with images in two roles."""
    images = source.images.merge(source.split, on="image_id")
    used = images[images["role"] != "unused"]
    roles_of = used.groupby("patient_id")["role"].unique()
    shared = roles_of[roles_of.str.len() > 1]
    if len(shared):
        patient = shared.index[0]
        first, second = used[used["patient_id"] == patient].drop_duplicates("role")["path"][:2]
        who = f"of {first} and {second}" if names_people else repr(patient)
        raise InputError(
            f"{where}: patient {who} has images in {' and '.join(shared.iloc[0])} "
            f"({len(shared)} such patients); a patient has one role: correct the roles",
            _ways_anew(source),
        )
