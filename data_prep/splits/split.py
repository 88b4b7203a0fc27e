"""Splits by patient into train, validation, test and folds: drawn, extended or as published.

Copies of an image stay together, whoever they belong to.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.patient_groups import key_columns, patient_groups
from cxr_compare.data_prep.splits.balance import Labels, balanced_parts, image_strata
from cxr_compare.data_prep.store.dataset_info import DrawnBy, SplitOrigin

_PARTS = ("test", "val", "train")  # of several published roles, a patient keeps the first
_FEW_IMAGES = 50
_FEW_SHARE = 0.01


@dataclass(frozen=True)
class SplitRule:
    """Options by which patients are drawn at random for training, validation and test.

    Attributes:
        val: Share of all patients for validation, in [0, 1).
        test: Share of all patients for test, in [0, 1].
        folds: Number of cross-validation folds, at least 2, to which train and validation patients
            are assigned in addition.
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
        if self.folds < 2:
            raise InputError(f"split: folds={self.folds}; at least 2 are needed")
        if self.seed < 0:
            raise InputError(f"split: seed={self.seed}; give a whole number from 0 on")


def draw_split(
    images: pd.DataFrame,
    findings: pd.DataFrame,
    stated: pd.DataFrame,
    rule: SplitRule,
    linked: Labels = None,
) -> tuple[pd.DataFrame, SplitOrigin]:
    """Draw the split of a data set, or adopt the roles that its source states.

    `stated` has columns ``image_id, role`` of images whose role is fixed; if all these roles are
    ``unused``, the roles of the other images are drawn. `linked` has keys that copies of an image
    share, indexed by ``image_id``. The split has ``image_id``, ``role`` and ``fold``.
    """
    strata = image_strata(images, findings)
    if (stated["role"] != "unused").any():
        return official_split(stated, images, None, rule, strata=strata)
    free = images[~is_member(images["image_id"], stated["image_id"])]
    split = split_by_patient(free, strata, rule, linked)
    unused = stated.assign(fold=pd.array([pd.NA] * len(stated), dtype="Int64"))
    how = SplitOrigin(
        method="by patient, balanced",
        rule=DrawnBy(**asdict(rule)),
        balanced=tuple(map(str, strata.columns)),
    )
    return pd.concat([split, unused]).sort_values("image_id", ignore_index=True), how


def split_by_patient(
    images: pd.DataFrame,
    strata: Labels = None,
    rule: SplitRule | None = None,
    linked: Labels = None,
) -> pd.DataFrame:
    """Draw a split of new images: `extend_split` of none."""
    nothing = pd.DataFrame({"image_id": [], "role": [], "fold": []})
    return extend_split(nothing, images, strata, rule, linked)


def extend_split(
    old: pd.DataFrame,
    images: pd.DataFrame,
    strata: Labels = None,
    rule: SplitRule | None = None,
    linked: Labels = None,
) -> pd.DataFrame:
    """Assign images that were added to a data set to train, validation and test.

    Old images keep their role and fold. New images get those of their patient, or else of the
    patient with whom they share an image. Other new patients are drawn by the rule, so that old
    and new patients together approach its shares. A new image is ``unused`` if it would put a
    patient or an image into two roles, or if its patient is doubtful and not in training. The
    result depends on ids and seed, not on the order of rows.

    `old` and the result have columns ``image_id, role, fold``; `images` has old and new images.
    Strata (None balances none) and `linked`, the keys that copies of an image share, are indexed by
    ``image_id``.
    """
    group = patient_groups(images, linked)
    patient = images.set_index("image_id")["patient_id"].reindex(group.index)
    doubtful = _doubtful(images, group.index)
    roles = old.set_index("image_id")[["role", "fold"]].reindex(group.index)
    roles = roles.astype({"role": TEXT, "fold": "Int64"})
    is_new = roles["role"].isna()
    placed = roles[is_member(roles["role"], _PARTS)]
    for owner in (patient, group):
        open_ids = roles.index[roles["role"].isna()]
        of_owner = _common_roles(placed, owner).reindex(owner[open_ids])
        for column in ("role", "fold"):
            roles.loc[open_ids, column] = of_owner[column].array
    only_train = is_member(group, group[roles["role"].isna() & doubtful])
    roles.loc[only_train & roles["role"].isna(), "role"] = "train"
    # Images with a role are counted by patient, so that old and new patients are balanced together.
    unit = group.where(roles["role"].isna(), patient)
    has_folds = placed.empty or bool(placed["fold"].notna().any())
    roles = _draw(roles, unit, strata, rule or SplitRule(), has_folds=has_folds)
    lost = is_new & doubtful & (roles["role"] != "train")
    if len(placed):
        lost |= is_new & _is_split_up(roles, linked)
    roles.loc[lost, "role"] = "unused"
    roles.loc[lost, "fold"] = pd.NA
    return roles.reset_index()


def _draw(
    roles: pd.DataFrame, unit: pd.Series, strata: Labels, rule: SplitRule, *, has_folds: bool
) -> pd.DataFrame:
    """Draw the roles and folds that are missing; a unit has one role and one fold."""
    used = (roles["role"] != "unused").fillna(True)
    roles = roles[used]
    unit = unit[used]
    shares = np.array([rule.test, rule.val, max(1 - rule.test - rule.val, 0.0)])
    without_fold = roles["role"].notna() & roles["fold"].isna()
    part = balanced_parts(
        unit, strata, shares, rule.seed, pd.Index(_PARTS).get_indexer(pd.Index(roles["role"]))
    )
    role = pd.Series(np.array(_PARTS, dtype=object)[part], index=roles.index, dtype=TEXT)
    fold = roles["fold"].copy()
    learning = (role != "test") & ~without_fold
    if has_folds and learning.any():
        n_folds = max(rule.folds, int(fold.max()) + 1 if fold.notna().any() else 0)
        equal = np.full(n_folds, 1 / n_folds)
        known = fold[learning].fillna(-1).to_numpy(dtype=int)
        fold[learning] = balanced_parts(unit[learning], strata, equal, rule.seed + 1, known)
    drawn = pd.DataFrame({"role": role, "fold": fold})
    return drawn.reindex(used.index).fillna({"role": "unused"})


def _doubtful(images: pd.DataFrame, image_ids: pd.Index) -> np.ndarray:
    """Return True for the images whose patient is doubtful: they train and are never evaluated."""
    if "patient_id_source" not in images.columns:
        return np.zeros(len(image_ids), dtype=bool)
    source = images.set_index("image_id")["patient_id_source"]
    return (source.reindex(image_ids) == "mapped_unverified").fillna(False).to_numpy(dtype=bool)


def _common_roles(roles: pd.DataFrame, owner: pd.Series) -> pd.DataFrame:
    """Return role and fold of each owner; ``unused`` if its images differ in them."""
    pairs = roles.assign(owner=owner.reindex(roles.index)).dropna(subset="owner").drop_duplicates()
    common = pairs.drop_duplicates("owner").set_index("owner")
    several = pairs.loc[pairs["owner"].duplicated(), "owner"].unique()
    common.loc[several, "role"] = "unused"
    common.loc[several, "fold"] = pd.NA
    return common


def _is_split_up(roles: pd.DataFrame, linked: Labels) -> np.ndarray:
    """Return True for images that share a key with images of another role or fold."""
    is_split_up = np.zeros(len(roles), dtype=bool)
    evaluated = roles[roles["role"] != "unused"]
    for keys in key_columns(linked):
        common = _common_roles(evaluated, keys)
        several = common.index[common["role"] == "unused"]
        is_split_up |= is_member(keys.reindex(roles.index), several)
    return is_split_up


def official_split(
    official: pd.DataFrame,
    images: pd.DataFrame,
    linked: Labels = None,
    rule: SplitRule | None = None,
    *,
    strata: Labels = None,
) -> tuple[pd.DataFrame, SplitOrigin]:
    """Adopt a published assignment to train, validation and test, but keep patients in one set.

    If a patient has images in several sets (roles), the test images are kept, or else the
    validation images, and the other images become ``unused``. If there are no validation images,
    validation patients are drawn by the rule from the training patients. `official` has ``image_id,
    role`` (train, val or test) as published; the rest is as for `extend_split`.
    """
    rule = rule or SplitRule()
    group = patient_groups(images, linked)
    stated = official.set_index("image_id")["role"].reindex(group.index).astype(TEXT)
    rank = stated.map({role: place for place, role in enumerate(_PARTS)})
    overlap = rank > rank.groupby(group).transform("min")
    role = stated.fillna("unused").mask(overlap, "unused")
    learning = is_member(role, ["train", "val"])
    learning &= ~is_member(group, group[_doubtful(images, group.index)])
    drawn = "val" not in set(role) and "train" in set(role) and rule.val > 0
    free = pd.DataFrame(
        {"role": pd.Series(dtype=TEXT), "fold": pd.Series(dtype="Int64")},
        index=group.index[learning],
    )
    draw = replace(rule, test=0.0, val=rule.val if drawn else 0.0)
    free = _draw(free, group[learning], strata, draw, has_folds=True)
    if drawn:
        role[free.index] = free["role"]
    fold = free["fold"].reindex(group.index)
    split = pd.DataFrame({"image_id": group.index, "role": role.array, "fold": fold.array})
    by_patient = ", validation drawn by patient from the given train" if drawn else ""
    how = SplitOrigin(
        method=f"as given{by_patient}",
        rule=DrawnBy(**asdict(replace(rule, test=0.0))),
        n_patients_in_two_roles=int(group[overlap].nunique()),
        n_images_unused=int(overlap.sum()),
        n_images_without_role=int(stated.isna().sum()),
    )
    return split, how.with_values(notes=_official_notes(how, role))


def _official_notes(how: SplitOrigin, role: pd.Series) -> list[str]:
    notes = []
    if how.n_images_unused:
        notes.append(
            f"{counted(how.n_patients_in_two_roles, 'patient', 'have')} more than one role "
            "(patients who share an image count as one). "
            f"{how.n_images_unused:,} of their images are unused here, so that test and then "
            "validation stay complete"
        )
    if how.n_images_without_role:
        notes.append(
            f"{counted(how.n_images_without_role, 'image', 'have')} no role and are unused"
        )
    n_val = int((role == "val").sum())
    n_evaluated = int((role != "unused").sum())
    if 0 < n_val < max(_FEW_IMAGES, _FEW_SHARE * n_evaluated):
        notes.append(
            f"validation has {counted(n_val, 'image')}, too few to choose a threshold or an epoch; "
            "draw another split with cxr split --from"
        )
    return notes
