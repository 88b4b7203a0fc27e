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

    A column of roles counts first. The name of a table, or of its folder, gives a role to images
    without one, if the source has at least two different roles. With `names_people` images that no
    table names are unused, and no patient is shown.
    """
    by_column = pd.concat([_NO_ROLES, *(_roles_of_column(source, t) for t in tables)])
    by_name = _NO_ROLES if source.labels_alone else _roles_of_names(source, tables, by_column)
    roles = pd.concat([by_column, by_name], ignore_index=True)
    if roles.empty:
        return
    where = str(tables[0].path if tables else source.root)
    ids = source.images["image_id"]
    if names_people:
        roles = pd.concat([roles, _unused_roles(ids, tables)], ignore_index=True)
    without = ids[~is_member(ids, roles["image_id"])]
    if len(without):
        raise InputError(
            f"{where}: image {without.iloc[0]!r} has no role ({len(without)} such images); give "
            "each image one",
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


def _roles_of_names(source: Source, tables: Tables, by_column: pd.DataFrame) -> pd.DataFrame:
    """Return the roles that names of tables give to images which no column gives one.

    Beside tables of labels, one that states none, as of the images of a competition, gives no role.
    """
    role_of = _named_roles(source.options.labels)
    tables = [table for table in tables if _has_labels(table)] or tables
    tables_of_role = [t for t in tables if t.path in role_of and "split" not in t.answered]
    if not tables_of_role:
        return _NO_ROLES
    parts = [
        table.images[["image_id"]].assign(role=role_of[table.path], path=str(table.path))
        for table in tables_of_role
        if not table.has("split")
    ]
    rows = pd.concat([_NO_ROLES, *parts], ignore_index=True)
    rows = rows[~is_member(rows["image_id"], by_column["image_id"])]
    names = ", ".join(_shown(table.path) for table in tables_of_role)
    if rows.empty:
        source.show(f"{names}: the column of roles is the split, not the name of the table")
        return _NO_ROLES
    stated = pd.concat([by_column, rows])
    if not is_member(stated["role"], ["train", "unused"]).all():  # train alone divides nothing
        _refuse_unnamed(tables, stated, rows)
    if stated.loc[stated["role"] != "unused", "role"].nunique() < 2:
        role = rows["role"].iloc[0]
        source.show(
            f"{names}: the name says {role}, but no table of labels says another role, so the "
            f"split is drawn by patient; a column split with {role} on every line keeps these "
            "images there"
        )
        return _NO_ROLES
    pairs = rows[["path", "role"]].drop_duplicates().itertuples(index=False)
    names = ", ".join(f"{_shown(Path(path))} {role}" for path, role in pairs)
    source.show(f"the names of the tables are the split: {names} (else add {in_shell(_ANEW)})")
    if source.label_files:
        return rows
    ids = source.images["image_id"]
    return pd.concat([rows, _unused_roles(ids[~is_member(ids, stated["image_id"])], tables)])


def _has_labels(table: LabelTable) -> bool:
    """Return True for a table with a column of boxes, or with a label in a cell."""
    return bool(table.box_roles) or bool((table.text[table.labelled_columns] != "").any(axis=None))


def _named_roles(paths: Sequence[Path]) -> dict[Path, str]:
    """Return the role of each table whose name states one, or a folder that not all of them share.

    Tables that share a folder train, and have no such name, have its role.
    """
    if not paths:
        return {}
    folder = Path(os.path.commonpath([path.resolve().parent for path in paths]))
    role_of: dict[Path, str] = {}
    for path in paths:
        inside = path.resolve().relative_to(folder).with_suffix("")
        roles = next(filter(None, map(_roles_in_name, reversed(inside.parts))), set())
        if len(roles) == 1:
            role_of[path] = next(iter(roles))
    role = ROLE_NAMES.get(folder.name.lower())
    return role_of if role_of or role is None else dict.fromkeys(paths, role)


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


def _refuse_unnamed(tables: Tables, stated: pd.DataFrame, named_rows: pd.DataFrame) -> None:
    """Refuse a table without a role that names images of its own, beside one called test."""
    for table in tables:
        ids = table.images["image_id"]
        unnamed_ids = ids[~is_member(ids, stated["image_id"])]
        if len(unnamed_ids):
            path, role = named_rows[["path", "role"]].iloc[0]
            raise InputError(
                f"{table.path}: {Path(path).name} is called {role}, and image "
                f"{unnamed_ids.iloc[0]!r} of this table has no role ({unnamed_ids.nunique()} such "
                "images); put train, val or test into the name of each table",
                [Remedy(_WHEN_ANEW, _ANEW)],
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
