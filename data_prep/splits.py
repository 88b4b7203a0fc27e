"""Splits by patient into train, validation, test and folds: drawn, as published, or the user's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.ids import TEXT, is_member, positions
from cxr_compare.data_prep.base.records import Digests, Items, Record
from cxr_compare.data_prep.base.tables import REFERENCE_READER, ROLE_NAMES
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line
from cxr_compare.data_prep.copies import Links, patient_groups

_PARTS = ("test", "val", "train")  # of several published roles, a patient keeps the first
_MOST_LEVELS = 50  # values of a text column that are balanced; rarer ones are not
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
            raise InputError(
                f"split: val={self.val:g} and test={self.test:g} must be shares from 0 to 1 that "
                "sum to at most 1"
            )
        if self.folds < 2 or self.seed < 0:
            raise InputError(
                f"split: folds={self.folds} and seed={self.seed}; at least 2 folds are needed, and "
                "a seed from 0 on"
            )


class DrawnBy(Record):
    """The fields of the `SplitRule` with which a split was drawn."""

    val: float
    test: float
    folds: int
    seed: int


class SplitOrigin(Record):
    """Method by which each image of a split was assigned to train, validation or test."""

    method: str
    rule: DrawnBy | None = None
    notes: Items[str] = ()
    file: str | None = None


class SplitInfo(Record, kind="split"):
    """Content of ``splits/NAME.json``, which is written after the table of the split."""

    name: str
    split_id: str
    how: SplitOrigin
    n_images: dict[str, int]
    files: Digests


Split = tuple[pd.DataFrame, SplitOrigin]
"""A split table, ``image_id, role, fold``, and how it was made."""


def _image_classes(images: pd.DataFrame, findings: pd.DataFrame) -> pd.Series:
    """Return the class of each image, indexed by ``image_id``; missing if nothing is known.

    The class is the column ``x_class`` if the data set states one. Otherwise it is the rarest
    finding that is present on the image, or ``absent`` if no finding is present.
    """
    ids = pd.Index(images["image_id"])
    is_reference = findings["reader"] == REFERENCE_READER
    absent = findings.loc[is_reference & (findings["state"] == "absent"), "image_id"]
    present = findings.loc[is_reference & (findings["state"] == "present")]
    finding, names = pd.factorize(present["finding"], sort=True)
    rarest_first = np.argsort(np.bincount(finding, minlength=len(names)), kind="stable")
    rank_of_finding = np.argsort(rarest_first)
    row = positions(present["image_id"], ids)
    rank = np.full(len(ids), len(names))
    np.minimum.at(rank, row[row >= 0], rank_of_finding[finding[row >= 0]])
    rank[(rank == len(names)) & ~is_member(ids, absent)] = -1
    class_names = pd.array([*names[rarest_first], "absent"], dtype=TEXT)
    classes = pd.Series(class_names.take(rank, allow_fill=True), index=ids)
    if "x_class" not in images.columns:
        return classes
    stated = images.set_index("image_id")["x_class"].astype(TEXT)
    return stated.where(stated.notna(), classes)


def image_strata(images: pd.DataFrame, findings: pd.DataFrame) -> pd.DataFrame:
    """Return the strata that a split balances, one column each, indexed by ``image_id``.

    They are ``class``, the source, the publisher's set and the view if images differ in them, and
    for each finding whether it is present on the image.
    """
    strata = _image_classes(images, findings).rename("class").to_frame()
    for column in ("source", "x_set", "view"):
        if column in images.columns:
            strata[column] = images[column].astype(TEXT).to_numpy()
    several = [c for c in strata.columns if c == "class" or strata[c].nunique(dropna=False) > 1]
    present = findings.loc[
        (findings["reader"] == REFERENCE_READER) & (findings["state"] == "present"),
        ["image_id", "finding"],
    ]
    code, names = pd.factorize(present["finding"], sort=True)
    if len(names) < 2:
        return strata[several]
    row = positions(present["image_id"], strata.index)
    flags = np.zeros((len(strata), len(names)), dtype=bool)
    flags[row[row >= 0], code[row >= 0]] = True
    columns = [f"present: {name}" for name in names]
    return strata[several].join(pd.DataFrame(flags, index=strata.index, columns=columns))


def balanced_parts(
    group: pd.Series, strata: pd.DataFrame, shares: np.ndarray, seed: int, fixed: np.ndarray
) -> np.ndarray:
    """Assign groups of N images to P parts, each with its share of groups, images and strata.

    Groups come one by one, the largest first. Each goes to the part in which the sum of squares
    grows least: of what it was given of groups, images and strata, as shares of the whole, divided
    by what it lacked at the start. The sum is least if every part gets what it lacks. A group, such
    as the images of a patient, is never divided; the seed orders groups of one size.

    `group` and `strata` are indexed by ``image_id``. The sum of the shares,
    ``(P,)``, is 1. `fixed` is the part of each image that has one already, -1 for the others,
    ``(N,)``; the other images of its group get the same part. The result is the part of each image,
    from 0, ``(N,)``.
    """
    code, names = pd.factorize(group, sort=True)
    part = np.full(len(names), -1)
    part[code[fixed >= 0]] = fixed[fixed >= 0]
    counts = _counts(group.index, code, len(names), strata, len(shares))
    has = np.zeros((len(shares), counts.shape[1]))
    np.add.at(has, part[part >= 0], counts[part >= 0])
    used = shares > 1e-9
    lacking = np.maximum(shares[:, None] - has, _LEAST * np.where(used, shares, 1.0)[:, None])
    order = np.random.default_rng(seed).permutation(len(names))
    # Groups of one order of magnitude come in random order, so that each seed gives another draw.
    size = np.log2(counts.sum(axis=1).round(_DECIMALS)).astype(int)
    order = order[np.argsort(-size[order], kind="stable")]
    free = order[part[order] < 0]
    empty = set(np.flatnonzero(used)) - set(part.tolist())
    # A part's growth is the sum of (2 sums + added) added / lacking over groups, images and strata.
    growth_alone = counts**2 @ (1 / lacking).T
    growth_alone[:, ~used] = np.inf
    slope = np.zeros_like(has)  # 2 sums / lacking
    for left, number in zip(range(len(free), 0, -1), free, strict=True):
        growth = (slope @ counts[number] + growth_alone[number]).round(_DECIMALS)
        if left <= len(empty):  # no part stays empty where there are groups enough
            growth[[p for p in range(len(shares)) if p not in empty]] = np.inf
        chosen = growth.argmin()
        part[number] = chosen
        slope[chosen] += 2 * counts[number] / lacking[chosen]
        empty.discard(chosen)
    return part[code]


def _counts(
    image_ids: pd.Index, code: np.ndarray, n_groups: int, strata: pd.DataFrame, n_parts: int
) -> np.ndarray:
    """Return what each group has of groups, images and strata, as shares of all: ``(G, S)``.

    A stratum in fewer groups than there are parts cannot be spread over them and is left out.
    """
    columns = [np.ones(n_groups), np.bincount(code, minlength=n_groups).astype(float)]
    rows = positions(image_ids, strata.index)
    for name in strata.columns:
        if strata[name].dtype == bool:
            level = np.where((rows >= 0) & strata[name].to_numpy()[rows], 0, -1)
        else:
            texts = pd.Series(strata[name].astype(TEXT).array.take(rows, allow_fill=True))
            level = pd.factorize(texts, sort=True, use_na_sentinel=False)[0]
        common = np.argsort(-np.bincount(level[level >= 0]), kind="stable")[:_MOST_LEVELS]
        columns += [np.bincount(code[level == value], minlength=n_groups) for value in common]
    counts = np.column_stack(columns).astype(np.float64)
    spread = (counts > 0).sum(axis=0) >= n_parts
    spread[:2] = True
    return counts[:, spread] / np.maximum(counts[:, spread].sum(axis=0), 1)


def _doubtful(images: pd.DataFrame, group: pd.Series) -> np.ndarray:
    """Return True for images of groups whose patient is doubtful: these train, and never test."""
    source = images.get("patient_id_source", pd.Series(index=images.index, dtype=TEXT))
    doubtful = images.loc[(source == "mapped_unverified").fillna(False), "image_id"]
    return is_member(group, group[is_member(group.index, doubtful)])


def draw(
    images: pd.DataFrame, strata: pd.DataFrame, rule: SplitRule, links: Links = None
) -> pd.DataFrame:
    """Draw the roles and folds of images by patient; `links` are keys of copies."""
    group = patient_groups(images, links)
    fixed = np.where(_doubtful(images, group), _PARTS.index("train"), -1)
    role = _drawn_roles(group, strata, rule, fixed)
    return _with_folds(role, images, group, strata, rule)


def _drawn_roles(
    group: pd.Series, strata: pd.DataFrame, rule: SplitRule, fixed: np.ndarray
) -> pd.Series:
    shares = np.array([rule.test, rule.val, max(1 - rule.test - rule.val, 0.0)])
    part = balanced_parts(group, strata, shares, rule.seed, fixed)
    return pd.Series(np.array(_PARTS)[part], group.index, TEXT)


def _with_folds(
    role: pd.Series, images: pd.DataFrame, group: pd.Series, strata: pd.DataFrame, rule: SplitRule
) -> pd.DataFrame:
    """Return a split with the folds of training and validation; doubtful patients have none."""
    fold = pd.Series(pd.NA, index=group.index, dtype="Int64")
    learning = is_member(role.astype(TEXT), ["train", "val"]) & ~_doubtful(images, group)
    if learning.any():
        equal = np.full(rule.folds, 1 / rule.folds)
        free = np.full(int(learning.sum()), -1)
        fold[learning] = balanced_parts(group[learning], strata, equal, rule.seed + 1, free)
    table = pd.DataFrame({"image_id": group.index, "role": role.array, "fold": fold.array})
    return table.astype({"image_id": TEXT, "role": TEXT})


def draw_split(
    images: pd.DataFrame,
    findings: pd.DataFrame,
    stated: pd.DataFrame,
    rule: SplitRule,
    links: Links = None,
) -> Split:
    """Draw the split of a data set, or adopt the roles that its source states."""
    strata = image_strata(images, findings)
    if (stated["role"] != "unused").any():
        return adopt(stated, images, strata, rule)
    free = images[~is_member(images["image_id"], stated["image_id"])]
    unused = stated.assign(fold=pd.array([pd.NA] * len(stated), dtype="Int64"))
    split = pd.concat([draw(free, strata, rule, links), unused])
    how = SplitOrigin(method="by patient, balanced", rule=DrawnBy(**asdict(rule)))
    return split.sort_values("image_id", ignore_index=True), how


def adopt(
    stated: pd.DataFrame,
    images: pd.DataFrame,
    strata: pd.DataFrame,
    rule: SplitRule,
    links: Links = None,
) -> Split:
    """Adopt roles that somebody states, but keep each patient in one role.

    A patient in two roles keeps those of test, else of validation; the others are unused. Without
    validation images these are drawn from those of training.
    """
    group = patient_groups(images, links)
    given = stated.set_index("image_id")["role"].reindex(group.index).astype(TEXT)
    role, notes = _in_one_role(given, group)
    is_drawn = "val" not in set(role) and "train" in set(role) and rule.val > 0
    if given.isna().any():
        n_without = counted(int(given.isna().sum()), "image", "have")
        notes.append(f"{n_without} no role and are unused")
    if is_drawn:
        free = group[(role == "train").to_numpy() & ~_doubtful(images, group)]
        drawn = replace(rule, test=0.0)
        role[free.index] = _drawn_roles(free, strata, drawn, np.full(len(free), -1))
    n_val = int((role == "val").sum())
    if 0 < n_val < max(50, 0.01 * int((role != "unused").sum())):
        notes.append(
            f"validation has {counted(n_val, 'image')}, too few to choose a threshold or an epoch; "
            "draw another split with cxr split --from"
        )
    method = "as given" + (", validation drawn by patient from the given train" if is_drawn else "")
    made_by = DrawnBy(**asdict(replace(rule, test=0.0)))
    how = SplitOrigin(method=method, rule=made_by, notes=tuple(notes))
    return _with_folds(role, images, group, strata, rule), how


def _in_one_role(given: pd.Series, group: pd.Series) -> tuple[pd.Series, list[str]]:
    """Make the images unused whose patient, or whose copy, has a role that goes first."""
    rank = given.map({role: place for place, role in enumerate(_PARTS)})
    overlap = rank > rank.groupby(group).transform("min")
    role = given.fillna("unused").mask(overlap, "unused").astype(TEXT)
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
    key = next((k for k in ("image_id", "patient_id") if k in text.columns), None)
    columns = [column for column in text.columns if column in ("role", name)]
    if key is None or len(columns) != 1:
        raise InputError(
            f"{path}: a split needs a column image_id or patient_id, and one column "
            f"{' or '.join(dict.fromkeys(['role', name]))} with train, val, test or unused; it has "
            f"{', '.join(text.columns[:20])}"
        )
    stated = text[columns[0]]
    roles = stated.str.lower().map(ROLE_NAMES).astype(TEXT)
    refuse_line(roles.isna(), path, "; use train, val, test or unused", stated)
    ids = text[key]
    refuse_line(ids.duplicated(), path, " appears more than once; keep one line", ids)
    known = is_member(ids, images[key])
    if not known.any():
        example = images[key].iloc[0]
        shown = f"{example.split(':')[0]}:..." if ":" in example else repr(example)
        reason = f" is not in the data set, whose {key}s look like {shown}"
        refuse_line(pd.Series(~known, ids.index), path, reason, ids)
    rows = pd.DataFrame({key: ids, "role": roles})[known]
    table = images[["image_id", "patient_id"]].sort_values("image_id", ignore_index=True)
    table = table.merge(rows, on=key, how="left")
    used = table[table["role"].notna() & (table["role"] != "unused")]
    n_roles = used.groupby("patient_id")["role"].nunique()
    shared = n_roles.index[n_roles > 1]
    if len(shared):
        both = " and ".join(used.loc[used["patient_id"] == shared[0], "role"].unique())
        raise InputError(
            f"{path}: patient {shared[0]!r} is in {both} ({len(shared)} such patients); a patient "
            "has one role: correct the file, or make the smaller part unused"
        )
    n_lacking = int(table["role"].isna().sum())
    notes = []
    if n_lacking:
        lacking = counted(n_lacking, "image")
        notes.append(f"{path.name} gives no role to {lacking}, which are unused")
    if not known.all():
        n_unknown = int((~known).sum())
        notes.append(
            f"{path.name} names {n_unknown:,} ids that are not in this data set; they are ignored"
        )
    split = table[["image_id"]].assign(role=table["role"].fillna("unused").astype(TEXT))
    split["fold"] = pd.array([pd.NA] * len(split), dtype="Int64")
    return split, SplitOrigin(method="from a file", file=path.name, notes=tuple(notes))


def require_clean(split: pd.DataFrame, images: pd.DataFrame, links: Links, name: str) -> None:
    """Refuse a split in which a patient, or a copy of an image, is in two roles or folds."""
    used = split[split["role"] != "unused"]
    group = patient_groups(images, links).reindex(used["image_id"]).to_numpy()
    role = used["role"] + " " + used["fold"].astype(TEXT).fillna("")
    n_roles = role.groupby(group).nunique()
    shared = n_roles.index[n_roles > 1]
    if len(shared):
        rows = used[group == shared[0]].drop_duplicates(["role", "fold"])[:2]
        both = " and ".join(f"{row.image_id} in {row.role}" for row in rows.itertuples())
        raise InputError(
            f"split '{name}': {shared[0]} is in two roles or folds: {both} ({len(shared)} such "
            "patients); a patient, and all copies of an image, have one: correct the split, or "
            "make the smaller part unused"
        )
