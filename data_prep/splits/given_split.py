"""Splits that somebody else made: a publisher's own, and a file of the user's."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import first_line, is_member, read_text_csv, to_numbers
from data_prep.contracts.words import counted
from data_prep.duplicates.near_duplicates import key_columns, patient_groups
from data_prep.splits.split import (
    SplitRule,
    draw_roles,
    from_states,
    unverified,
)

_ROLE_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
    "unused": "unused",
}
# Where a patient has several roles, the first of these stands.
_PRECEDENCE = ("test", "val", "train")
_FEW_IMAGES, _FEW_SHARE = 50, 0.01


def official_split(
    official: pd.DataFrame,
    images: pd.DataFrame,
    linked: pd.Series | pd.DataFrame | None = None,
    rule: SplitRule | None = None,
    *,
    strata: pd.Series | pd.DataFrame | None = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Follow roles that are given, but keep every patient in one of them.

    Of a patient with several roles the test images stand, else the validation images; the others
    become ``unused``. Where no image is for validation, patients are drawn from train.
    """
    rule = rule or SplitRule()
    group = patient_groups(images, linked)
    stated = official.set_index("image_id")["role"].reindex(group.index).astype("str")
    rank = stated.map({role: place for place, role in enumerate(_PRECEDENCE)})
    overlap = rank > rank.groupby(group).transform("min")
    role = stated.fillna("unused").mask(overlap, "unused")
    learning = is_member(role, ["train", "val"])
    learning &= ~is_member(group, group[is_member(group.index, unverified(images))])
    drawn = "val" not in set(role) and "train" in set(role) and rule.val > 0
    draw = replace(rule, test=0.0, val=rule.val if drawn else 0.0)
    table = from_states(group[learning].map(draw_roles(group[learning], strata, draw)))
    fold = table.set_index("image_id")["fold"].reindex(group.index)
    if drawn:
        role[table["image_id"]] = table["role"].to_numpy()
    split = pd.DataFrame(
        {"image_id": group.index.to_numpy(), "role": role.to_numpy(), "fold": fold.array}
    )
    how: dict[str, Any] = {
        "method": "as given" + (", validation drawn by patient from the given train" * drawn),
        "rule": {**asdict(rule), "test": 0.0},
        "n_patients_in_two_roles": int(group[overlap].nunique()),
        "n_images_unused": int(overlap.sum()),
        "n_images_without_role": int(stated.isna().sum()),
    }
    return split, {**how, "notes": _notes(how, role)}


def _notes(how: dict[str, Any], role: pd.Series) -> list[str]:
    notes = []
    if how["n_images_unused"]:
        notes.append(
            f"{counted(how['n_patients_in_two_roles'], 'patient')} (those who share an image "
            "count as one) "
            f"stand in more than one role: {how['n_images_unused']:,} of their images are unused "
            "here, so that test and then validation stay whole"
        )
    if how["n_images_without_role"]:
        notes.append(f"{counted(how['n_images_without_role'], 'image', 'have')} no role: unused")
    n_val, n_judged = int((role == "val").sum()), int((role != "unused").sum())
    if 0 < n_val < max(_FEW_IMAGES, _FEW_SHARE * n_judged):
        notes.append(
            f"validation has {counted(n_val, 'image')}, too few to choose a threshold or an epoch "
            "on; "
            "draw another with cxr split --from"
        )
    return notes


def read_split_file(
    path: Path,
    images: pd.DataFrame,
    linked: pd.Series | pd.DataFrame | None = None,
    *,
    strict: bool = False,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read the user's own split: ``image_id,role[,fold]`` or ``patient_id,role[,fold]``."""
    text = read_text_csv(path, ("role",))
    key = next((k for k in ("image_id", "patient_id") if k in text.columns), None)
    if key is None:
        raise InputError(f"{path}: needs a column image_id or patient_id beside role")
    rows = pd.DataFrame(
        {key: text[key], "role": _roles(text["role"], path), "fold": _folds(text, path)}
    )
    known = _known_rows(rows, images, path, strict=strict)
    table = images[["image_id", "patient_id"]].sort_values("image_id", ignore_index=True)
    table = table.merge(known, on=key, how="left")
    _require_one_role(table, linked, path)
    lacking = table["role"].isna()
    n_lacking = int(lacking.sum())
    if strict and lacking.any():
        first = table.loc[lacking, "image_id"].iloc[0]
        raise InputError(
            f"{path}: gives no role to image {first!r} ({n_lacking} such images; without "
            "--strict they are unused)"
        )
    n_unknown = len(rows) - len(known)
    notes = []
    if n_lacking:
        notes.append(f"{path.name} gives no role to {counted(n_lacking, 'image')}: unused")
    if n_unknown:
        notes.append(f"{path.name} names {n_unknown:,} ids that are not in this data set: ignored")
    how: dict[str, Any] = {
        "method": "from a file",
        "file": path.name,
        "by": key,
        "n_images_without_role": n_lacking,
        "n_ids_unknown": n_unknown,
        "notes": notes,
    }
    return table.assign(role=table["role"].fillna("unused"))[["image_id", "role", "fold"]], how


def _roles(text: pd.Series, path: Path) -> pd.Series:
    roles = text.str.lower().map(_ROLE_WORDS)
    if roles.isna().any():
        line, value = first_line(roles.isna()), text[roles.isna()].iloc[0]
        raise InputError(f"{path}: line {line}: role={value!r}; use train, val, test or unused")
    return roles.astype("str")


def _folds(text: pd.DataFrame, path: Path) -> pd.Series:
    if "fold" not in text.columns:
        return pd.Series(pd.NA, index=text.index, dtype="Int64")
    folds = to_numbers(text["fold"], path, "fold")
    wrong = folds.notna() & ((folds < 0) | (folds % 1 != 0) | (folds > 1e6))
    judged = text["role"].str.lower().map(_ROLE_WORDS)
    wrong |= folds.notna() & is_member(judged, ["test", "unused"])
    if wrong.any():
        raise InputError(
            f"{path}: line {first_line(wrong)}: fold={text['fold'][wrong].iloc[0]!r}; a fold is a "
            "whole number from 0 on, and empty on test and unused images"
        )
    return folds.astype("Int64")


def _known_rows(
    rows: pd.DataFrame, images: pd.DataFrame, path: Path, *, strict: bool
) -> pd.DataFrame:
    """The rows whose id is in the data set; an id that appears more than once is an error."""
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
    if unknown.any() and (strict or not known.any()):
        example = images[column].iloc[0]
        shown = f"{example.split(':')[0]}:..." if ":" in example else repr(example)
        raise InputError(
            f"{path}: line {first_line(unknown)}: {column} {ids[unknown].iloc[0]!r} is not in the "
            f"data set ({int(unknown.sum())} such lines); its {column}s look like {shown}"
        )
    return rows[known]


def _require_one_role(
    table: pd.DataFrame, linked: pd.Series | pd.DataFrame | None, path: Path
) -> None:
    """Refuse a patient, or an image, with two roles or two folds; unused counts for nothing."""
    used = table[table["role"].notna() & (table["role"] != "unused")]
    place = used["role"] + used["fold"].astype("str").radd(" of fold ").fillna("")
    owners = [("patient", used["patient_id"])]
    owners += [("image", keys.reindex(used["image_id"])) for keys in key_columns(linked)]
    for what, owner in owners:
        pairs = pd.DataFrame(
            {"owner": owner.to_numpy(), "place": place.to_numpy(), "image": used["image_id"]}
        ).dropna(subset="owner")
        pairs = pairs.drop_duplicates(["owner", "place"])
        repeated = pairs["owner"].duplicated()
        if not repeated.any():
            continue
        rows = pairs[pairs["owner"] == pairs.loc[repeated, "owner"].iloc[0]].iloc[:2]
        both = " and ".join(rows["place"])
        name = repr(rows["owner"].iloc[0])
        if what == "image":
            name = " = ".join(repr(image) for image in rows["image"])
        raise InputError(
            f"{path}: {what} {name} is in {both} ({int(repeated.sum())} such {what}s); a {what} "
            "has one role and fold: correct the file, or make the smaller part unused"
        )
