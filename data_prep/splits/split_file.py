"""Reading of the user's own split from a table."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.schemas import ROLE_NAMES
from cxr_compare.data_prep.contracts.table_files import (
    first_line,
    read_text_table,
    refuse_line,
    to_numbers,
)
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.patient_groups import key_columns
from cxr_compare.data_prep.splits.balance import Labels
from cxr_compare.data_prep.store.dataset_info import SplitOrigin


def read_split_file(
    path: Path,
    images: pd.DataFrame,
    linked: Labels = None,
    *,
    name: str = "role",
) -> tuple[pd.DataFrame, SplitOrigin]:
    """Read the user's own assignment of images or patients to train, validation and test.

    The table has the columns ``image_id`` or ``patient_id``, ``role`` (train, val, test or unused)
    and optionally ``fold`` (number of the cross-validation fold, from 0). A table of several splits
    has a column with the name of each instead of ``role``. `linked` is a key indexed by
    ``image_id`` that all copies of an image share; copies must have the same role. A wrong cell, a
    repeated id, and a patient or image with two roles or folds are refused. The second value is the
    record of the method, with notes for the user.
    """
    content = (
        f"a split needs a column image_id or patient_id, and one column "
        f"{' or '.join(dict.fromkeys(['role', name]))}, which holds train, val, test or unused"
    )
    if not path.exists():
        raise InputError(f"{path}: no such file; {content}")
    text = read_text_table(path, ())
    key = next((k for k in ("image_id", "patient_id") if k in text.columns), None)
    role_columns = [column for column in text.columns if column in ("role", name)]
    if key is None or len(role_columns) != 1:
        raise InputError(f"{path}: {content}; it has the columns {', '.join(text.columns[:20])}")
    stated = text[role_columns[0]]
    roles = stated.str.lower().map(ROLE_NAMES)
    refuse_line(roles.isna(), path, "; use train, val, test or unused", stated)
    roles = roles.astype(TEXT)
    rows = pd.DataFrame({key: text[key], "role": roles, "fold": _folds(text, roles, path)})
    known = _known_rows(rows, images, path)
    table = images[["image_id", "patient_id"]].sort_values("image_id", ignore_index=True)
    table = table.merge(known, on=key, how="left")
    _require_one_role(table, linked, path)
    n_lacking = int(table["role"].isna().sum())
    n_unknown = len(rows) - len(known)
    notes = []
    if n_lacking:
        notes.append(
            f"{path.name} gives no role to {counted(n_lacking, 'image')}, which are unused"
        )
    if n_unknown:
        notes.append(
            f"{path.name} names {n_unknown:,} ids that are not in this data set; they are ignored"
        )
    how = SplitOrigin(
        method="from a file",
        file=path.name,
        by=key,
        n_images_without_role=n_lacking,
        n_ids_unknown=n_unknown,
        notes=tuple(notes),
    )
    return table.assign(role=table["role"].fillna("unused"))[["image_id", "role", "fold"]], how


def _folds(text: pd.DataFrame, roles: pd.Series, path: Path) -> pd.Series:
    if "fold" not in text.columns:
        return pd.Series(pd.NA, index=text.index, dtype="Int64")
    folds = to_numbers(text["fold"], path, "fold")
    wrong = (folds < 0) | (folds % 1 != 0) | (folds > 1e6) | is_member(roles, ["test", "unused"])
    reason = "; a fold is a whole number from 0 on, and empty on test and unused images"
    refuse_line(folds.notna() & wrong, path, reason, text["fold"])
    return folds.astype("Int64")


def _known_rows(rows: pd.DataFrame, images: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return the rows whose id is in the data set; refuse a repeated id."""
    column = str(rows.columns[0])
    ids = rows[column]
    repeated = ids.duplicated()
    if repeated.any():
        raise InputError(
            f"{path}: line {first_line(repeated)}: {column} {ids[repeated].iloc[0]!r} "
            "appears more than once; keep one line"
        )
    known = is_member(ids, images[column])
    unknown = pd.Series(~known, index=ids.index)
    if unknown.any() and not known.any():
        example = images[column].iloc[0]
        shown = f"{example.split(':')[0]}:..." if ":" in example else repr(example)
        raise InputError(
            f"{path}: line {first_line(unknown)}: {column} {ids[unknown].iloc[0]!r} is not in the "
            f"data set ({int(unknown.sum())} such lines); its {column}s look like {shown}"
        )
    return rows[known]


def _require_one_role(table: pd.DataFrame, linked: Labels, path: Path) -> None:
    """Refuse a patient or an image with two roles or two folds; unused images do not count."""
    used = table[table["role"].notna() & (table["role"] != "unused")]
    role = used["role"] + used["fold"].astype(TEXT).radd(" of fold ").fillna("")
    owners = [("patient", used["patient_id"])]
    owners += [("image", keys.reindex(used["image_id"])) for keys in key_columns(linked)]
    for what, owner in owners:
        pairs = pd.DataFrame(
            {"owner": owner.to_numpy(), "role": role.to_numpy(), "image": used["image_id"]}
        ).dropna(subset="owner")
        pairs = pairs.drop_duplicates(["owner", "role"])
        repeated = pairs["owner"].duplicated()
        if not repeated.any():
            continue
        rows = pairs[pairs["owner"] == pairs.loc[repeated, "owner"].iloc[0]].iloc[:2]
        both = " and ".join(rows["role"])
        name = repr(rows["owner"].iloc[0])
        if what == "image":
            name = " = ".join(repr(image) for image in rows["image"])
        raise InputError(
            f"{path}: {what} {name} is in {both} ({int(repeated.sum())} such {what}s); a {what} "
            "has one role and fold: correct the file, or make the smaller part unused"
        )
