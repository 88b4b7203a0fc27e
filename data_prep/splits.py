"""Splits by patient into train, validation, test and folds: drawn, as published, or the user's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, as_typed, counted
from cxr_compare.data_prep.base.ids import TEXT, is_member
from cxr_compare.data_prep.base.records import Items, Record
from cxr_compare.data_prep.base.tables import FINDING_KEY, REFERENCE_READER
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line, to_roles
from cxr_compare.data_prep.copies import Links, patient_groups

_PARTS = ("test", "val", "train")  # of several stated roles, a patient keeps the first
_LEAST = 0.001  # share of its share of which a part that is full still lacks
_DECIMALS = 15  # sums are compared without the rounding errors in which processors differ


@dataclass(frozen=True)
class SplitRule:
    """Options by which patients are drawn at random for training, validation and test.

    Attributes:
        val: Share of patients for validation.
        test: Share of patients for test.
        folds: Number of folds of training and validation.
        seed: Random seed of the draw.
    """

    val: float = 0.15
    test: float = 0.2
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.val < 1 and 0 <= self.test <= 1 and self.val + self.test <= 1):
            given = as_typed({"val": self.val, "test": self.test})
            raise InputError(f"{given}: give shares from 0 to 1 that sum to at most 1")
        if self.folds < 2 or self.seed < 0:
            given = as_typed({"folds": self.folds, "seed": self.seed})
            raise InputError(f"{given}: at least 2 folds are needed, and a seed from 0 on")


class SplitOrigin(Record):
    """Method by which each image of a split was assigned to train, validation or test."""

    method: str
    rule: dict[str, Any] | None = None
    notes: Items[str] = ()
    file: str | None = None


class SplitInfo(Record, kind="split"):
    """Content of ``splits/NAME.json``, beside the table of the split."""

    how: SplitOrigin


Split = tuple[pd.DataFrame, SplitOrigin]
"""A split table, ``image_id, role, fold``, and how it was made."""


def image_strata(images: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Return what a split balances, one column each, indexed by ``image_id``.

    They are the class of the image, the source, the publisher's set and the view if images differ
    in them, and for each of several findings whether it is present. The class is the column
    ``x_class`` if the data set states one, else the rarest finding that is present, or ``absent``.
    """
    by_id = images.set_index("image_id")
    reference = findings[findings["reader"] == REFERENCE_READER]
    present = reference.loc[reference["state"] == "present", FINDING_KEY]
    count = present.groupby("finding")["finding"].transform("size")
    by_rarity = present.assign(count=count).sort_values(["count", "finding"])
    rarest = by_rarity.drop_duplicates("image_id").set_index("image_id")["finding"]
    absent = reference.loc[reference["state"] == "absent", "image_id"]
    classes = pd.Series("absent", by_id.index, TEXT).where(is_member(by_id.index, absent))
    classes = rarest.reindex(by_id.index).fillna(classes)
    if "x_class" in by_id:
        classes = by_id["x_class"].astype(TEXT).fillna(classes)
    strata = classes.astype(TEXT).rename("class").to_frame()
    for column in ("source", "x_set", "view"):
        if column in by_id and by_id[column].nunique(dropna=False) > 1:
            strata[column] = by_id[column].astype(TEXT)
    names = sorted(present["finding"].unique())
    for name in names if len(names) > 1 else ():
        of_name = present.loc[present["finding"] == name, "image_id"]
        strata[f"present: {name}"] = is_member(by_id.index, of_name)
    return strata


def _balanced_parts(
    group: pd.Series, strata: pd.DataFrame, shares: np.ndarray, seed: int, fixed: np.ndarray
) -> np.ndarray:
    """Assign groups of N images to P parts, each with its share of groups, images and strata.

    Groups come one by one, the largest first. Each goes to the part in which the sum of squares
    grows least: of what it was given of groups, images and strata, as shares of the whole, divided
    by what it lacked at the start. The sum is least if every part gets what it lacks. A group, such
    as the images of a patient, is never divided; the seed orders groups of one size.

    `group` and `strata` are indexed by ``image_id``. The sum of the shares, ``(P,)``, is 1. `fixed`
    is the part of each image that has one already, -1 for the others, ``(N,)``; the other images of
    its group get the same part. The result is the part of each image, from 0, ``(N,)``.
    """
    code, names = pd.factorize(group, sort=True)
    part = np.full(len(names), -1)
    part[code[fixed >= 0]] = fixed[fixed >= 0]
    counts = _counts(code, strata.loc[group.index], len(shares))
    assigned = np.zeros((len(shares), counts.shape[1]))
    np.add.at(assigned, part[part >= 0], counts[part >= 0])
    used = shares > 1e-9
    lacking = np.maximum(shares[:, None] - assigned, _LEAST * np.where(used, shares, 1.0)[:, None])
    order = np.random.default_rng(seed).permutation(len(names))
    # Groups of one order of magnitude come in random order, so that each seed gives another draw.
    size = np.log2(counts.sum(axis=1).round(_DECIMALS)).astype(int)
    order = order[np.argsort(-size[order], kind="stable")]
    free = order[part[order] < 0]
    empty = set(np.flatnonzero(used)) - set(part.tolist())
    # A part's growth is the sum of (2 sums + added) added / lacking over groups, images and strata.
    growth_alone = counts**2 @ (1 / lacking).T
    growth_alone[:, ~used] = np.inf
    slope = np.zeros_like(assigned)  # 2 sums / lacking
    for n_left, number in zip(range(len(free), 0, -1), free, strict=True):
        growth = (slope @ counts[number] + growth_alone[number]).round(_DECIMALS)
        if n_left <= len(empty):  # no part stays empty where there are groups enough
            growth[[p for p in range(len(shares)) if p not in empty]] = np.inf
        chosen = growth.argmin()
        part[number] = chosen
        slope[chosen] += 2 * counts[number] / lacking[chosen]
        empty.discard(chosen)
    return part[code]


def _counts(code: np.ndarray, strata: pd.DataFrame, n_parts: int) -> np.ndarray:
    """Return what each group has of groups, images and strata, as shares of all: ``(G, S)``.

    A stratum in fewer groups than there are parts cannot be spread over them and is left out.
    """
    n_groups = code.max(initial=-1) + 1
    columns = [np.ones(n_groups), np.bincount(code)]
    for name in strata.columns:
        column = strata[name]
        if column.dtype == bool:
            columns.append(np.bincount(code[column], minlength=n_groups))
            continue
        level = pd.factorize(column, sort=True, use_na_sentinel=False)[0]
        common = np.argsort(-np.bincount(level), kind="stable")
        columns += [np.bincount(code[level == value], minlength=n_groups) for value in common]
    counts = np.column_stack(columns).astype(np.float64)
    spread = (counts > 0).sum(axis=0) >= n_parts
    spread[:2] = True
    return counts[:, spread] / np.maximum(counts[:, spread].sum(axis=0), 1)


def _doubtful(images: pd.DataFrame, group: pd.Series) -> np.ndarray:
    """Return True for images of groups whose patient is doubtful: these train, and never test."""
    source = images.set_index("image_id")["patient_id_source"].reindex(group.index)
    return is_member(group, group[source == "mapped_unverified"])


def draw_split(
    images: pd.DataFrame,
    findings: pd.DataFrame,
    stated: pd.DataFrame,
    rule: SplitRule,
    links: Links = None,
) -> Split:
    """Draw the roles and folds of images by patient, or adopt the roles that their source states.

    `stated` has the images whose role is fixed; `links` are keys that copies of an image share.
    """
    if (stated["role"] != "unused").any():
        return adopt(stated, images, findings, rule, links)
    strata = image_strata(images, findings)
    free = images[~is_member(images["image_id"], stated["image_id"])]
    group = patient_groups(free, links)
    only_train = _doubtful(free, group)
    counted_by = group.mask(only_train, free.set_index("image_id")["patient_id"])
    fixed = np.where(only_train, _PARTS.index("train"), -1)
    role = _drawn_roles(counted_by, strata, rule, fixed)
    split = _with_folds(role, free, group, strata, rule)
    split = pd.concat([split, _without_folds(stated)]).sort_values("image_id", ignore_index=True)
    return split, SplitOrigin(method="by patient, balanced", rule=asdict(rule))


def _drawn_roles(
    group: pd.Series, strata: pd.DataFrame, rule: SplitRule, fixed: np.ndarray
) -> pd.Series:
    shares = np.array([rule.test, rule.val, max(1 - rule.test - rule.val, 0.0)])
    part = _balanced_parts(group, strata, shares, rule.seed, fixed)
    return pd.Series(np.array(_PARTS)[part], group.index, TEXT)


def _with_folds(
    role: pd.Series, images: pd.DataFrame, group: pd.Series, strata: pd.DataFrame, rule: SplitRule
) -> pd.DataFrame:
    """Return a split with the folds of training and validation; doubtful patients have none."""
    fold = pd.Series(pd.NA, group.index, "Int64")
    learning = is_member(role, ["train", "val"]) & ~_doubtful(images, group)
    if learning.any():
        equal, free = np.full(rule.folds, 1 / rule.folds), np.full(learning.sum(), -1)
        fold[learning] = _balanced_parts(group[learning], strata, equal, rule.seed + 1, free)
    table = pd.DataFrame({"image_id": group.index, "role": role.array, "fold": fold.array})
    return table.astype({"image_id": TEXT, "role": TEXT})


def _without_folds(roles: pd.DataFrame) -> pd.DataFrame:
    return roles.assign(fold=pd.array([pd.NA] * len(roles), "Int64"))


def adopt(
    stated: pd.DataFrame,
    images: pd.DataFrame,
    findings: pd.DataFrame,
    rule: SplitRule,
    links: Links = None,
) -> Split:
    """Adopt roles that somebody states, but keep each patient in one role.

    A patient in two roles keeps those of test, else of validation; the others are unused. Without
    validation images these are drawn from those of training.
    """
    strata = image_strata(images, findings)
    group = patient_groups(images, links)
    stated_role = stated.set_index("image_id")["role"].reindex(group.index)
    role, notes = _in_one_role(stated_role, group)
    method, rule = "as given", replace(rule, test=0.0)
    if stated_role.isna().any():
        n_without = counted(int(stated_role.isna().sum()), "image", "have")
        notes.append(f"{n_without} no role and are unused")
    if "val" not in set(role) and "train" in set(role) and rule.val > 0:
        free = group[(role == "train") & ~_doubtful(images, group)]
        role[free.index] = _drawn_roles(free, strata, rule, np.full(len(free), -1))
        method = "as given, validation drawn by patient from the given train"
    n_val = int((role == "val").sum())
    if 0 < n_val < max(50, 0.01 * (role != "unused").sum()):
        notes.append(
            f"validation has {counted(n_val, 'image')}, too few to choose a threshold or an epoch "
            "(50 or more)"
        )
    how = SplitOrigin(method=method, rule=asdict(rule), notes=tuple(notes))
    return _with_folds(role, images, group, strata, rule), how


def _in_one_role(stated_role: pd.Series, group: pd.Series) -> tuple[pd.Series, list[str]]:
    """Make the images unused whose patient, or whose copy, has a role that goes first."""
    rank = stated_role.map({role: position for position, role in enumerate(_PARTS)})
    overlap = rank > rank.groupby(group).transform("min")
    role = stated_role.fillna("unused").mask(overlap, "unused").astype(TEXT)
    if not overlap.any():
        return role, []
    return role, [
        f"{counted(int(group[overlap].nunique()), 'patient', 'have')} more than one role (patients "
        f"who share an image count as one). {int(overlap.sum()):,} of their images are unused "
        "here, so that test and then validation stay complete"
    ]


def settle(split: Split, images: pd.DataFrame, links: Links) -> Split:
    """Return a split that was read from a file for images of which copies are known by now."""
    table, how = split
    table = table[is_member(table["image_id"], images["image_id"])].reset_index(drop=True)
    group = patient_groups(images, links).reindex(table["image_id"])
    role, notes = _in_one_role(pd.Series(table["role"].array, group.index), group)
    return table.assign(role=role.array), how.with_values(notes=(*how.notes, *notes))


def read_split_file(path: Path, images: pd.DataFrame, name: str = "role") -> Split:
    """Read the user's own assignment of images or patients to train, validation and test.

    A table of several splits has a column with the name of each in place of ``role``.
    """
    text = read_text_table(path, ())
    keys = [column for column in ("image_id", "patient_id") if column in text]
    columns = [column for column in text if column in ("role", name)]
    if not keys or len(columns) != 1:
        raise InputError(
            f"{path}: a split needs a column image_id or patient_id, and one column "
            f"{' or '.join(dict.fromkeys(['role', name]))} with train, val, test or unused; it has "
            f"{', '.join(text.columns[:20])}"
        )
    key = keys[0]
    roles = to_roles(text[columns[0]], path)
    ids, known_ids = (table[key].str.normalize("NFC") for table in (text, images))
    refuse_line(ids.duplicated(), path, " appears more than once; keep one line", ids)
    unknown = ~ids.isin(known_ids)
    if unknown.all():
        example = f" is not in the data set, whose {key}s look like {images[key].iloc[0]!r}"
        refuse_line(unknown, path, example, ids)
    role = known_ids.map(dict(zip(ids, roles, strict=True)))
    split = images[["image_id"]].assign(role=role.fillna("unused").astype(TEXT))
    split = _without_folds(split.sort_values("image_id", ignore_index=True))
    require_clean(split, images, None, str(path))
    notes = []
    if role.isna().any():
        lacking = counted(int(role.isna().sum()), "image")
        notes.append(f"{path.name} gives no role to {lacking}, which are unused")
    if unknown.any():
        notes.append(
            f"{path.name} names {unknown.sum():,} ids that are not in this data set; they are "
            "ignored"
        )
    return split, SplitOrigin(method="from a file", file=path.name, notes=tuple(notes))


def require_clean(split: pd.DataFrame, images: pd.DataFrame, links: Links, where: str) -> None:
    """Refuse a split in which a patient, or a copy of an image, is in two roles or folds."""
    used = split[split["role"] != "unused"]
    group = patient_groups(images[is_member(images["image_id"], used["image_id"])], links)
    used = used.assign(group=used["image_id"].map(group))
    used = used.drop_duplicates(["group", "role", "fold"])
    shared = used[used["group"].duplicated(keep=False)]
    if len(shared):
        first = shared["group"].iloc[0]
        rows = shared[shared["group"] == first][:2].itertuples()
        raise InputError(
            f"{where}: patient {first!r} is in two roles or folds: "
            f"{' and '.join(f'{row.image_id} in {row.role}' for row in rows)} "
            f"({shared['group'].nunique()} such patients); a patient, and all copies of an image, "
            "have one: correct the split, or make the smaller part unused"
        )
