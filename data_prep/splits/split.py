"""Assignment of each patient to train, validation, test or a fold, by a seeded hash.

All images of a patient have the same role and fold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.patient_groups import key_columns, patient_groups
from cxr_compare.data_prep.splits.balanced_folds import Labels, balanced_parts


def hash_to_unit_interval(names: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """Map each name to a number in [0, 1) by a keyed hash, which does not depend on other names.

    Args:
        names: Names, such as patient ids.
        seed: Seed of the hash.
        purpose: Any text, such as ``role``. Another text gives other numbers, independent of the
            first.

    Returns:
        Numbers, float64, in the order of the names. Equal arguments give equal numbers.

    Example:
        >>> hash_to_unit_interval(["nih:00000001"], 0, "role").round(4).tolist()
        [0.5362]
    """
    key = f"{purpose}:{seed}".encode()
    digests = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in names)
    return np.array([(int.from_bytes(d, "big") >> 11) / 2**53 for d in digests], dtype=np.float64)


def _unverified(images: pd.DataFrame) -> pd.Series:
    """Return the ids of the images whose patient is doubtful."""
    if "patient_id_source" not in images.columns:
        return images["image_id"].iloc[:0]
    return images.loc[images["patient_id_source"] == "mapped_unverified", "image_id"]


METHODS = ("balanced", "hash")
_PARTS = np.array(["test", "val", "train"])
_TEST = 0  # index in _PARTS
_UNUSED = "unused -"
# If a patient has several published roles, the first of these is kept.
_PRECEDENCE = ("test", "val", "train")
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
        seed: Random seed of the draw.
        method: With ``balanced``, each of train, validation and test gets its share of every group
            of patients with the same label and other facts. With ``hash`` the assignment follows
            from the patient's id and the seed alone, so it stays when images are added, but such
            groups are balanced only by chance.

    Example:
        >>> SplitRule(val=0.1, test=0.2, folds=5).method
        'balanced'
    """

    val: float = 0.15
    test: float = 0.2
    folds: int = 5
    seed: int = 0
    method: str = "balanced"

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
        if self.method not in METHODS:
            raise InputError(f"split: method={self.method!r}; choose {' or '.join(METHODS)}")


def split_by_patient(
    images: pd.DataFrame,
    strata: Labels = None,
    rule: SplitRule | None = None,
    linked: Labels = None,
) -> pd.DataFrame:
    """Assign images to train, validation and test so that no patient is in two of them.

    With the method ``balanced``, patients are assigned to equal folds as by scikit-learn's
    `StratifiedGroupKFold`, and the folds are joined to the three sets (roles). Each set then gets
    its share of patients, of images and of every stratum. The result depends on ids and seed, not
    on the order of rows.

    Args:
        images: Table with columns ``image_id`` and ``patient_id``. An optional column
            ``patient_id_source`` says which patients are uncertain.
        strata: Kinds (strata) of each image, such as class and view: a Series or a table, indexed
            by ``image_id``. Each set gets its share of every stratum. None balances none.
        rule: Shares of patients, number of folds, seed and method of the draw; None takes the
            defaults of `SplitRule`.
        linked: Key of each image, indexed by ``image_id``. Copies of an image have the same key,
            and so get into the same set. None if no copies are known.

    Returns:
        A table with columns ``image_id``, ``role`` (train, val, test or unused) and ``fold``.
    """
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

    Old images keep their role (train, val, test or unused). New images of an old patient get the
    role and fold of the patient. So do new patients who share an image with an old patient. Other
    new patients are drawn by the rule; with the method ``balanced``, old and new patients together
    approach the shares. An image becomes ``unused`` if it would otherwise put an image or a patient
    into two roles, for example because it shows that two old patients are one. An image becomes
    ``unused``, too, if its patient is uncertain and not in training.

    Args:
        old: Table of the old images, with columns ``image_id, role, fold``.
        images: Images table with old and new images.
        strata: Kinds (strata) of each image, such as class and view: a Series or a table, indexed
            by ``image_id``. Each role gets its share of every stratum. None balances none.
        rule: Shares, number of folds, seed and method of the draw of new patients; None takes the
            defaults of `SplitRule`.
        linked: Key of each image, indexed by ``image_id``. Copies of an image have the same key,
            and so get the same role. None if no copies are known.

    Returns:
        A table with columns ``image_id, role, fold`` for all images.
    """
    rule = rule or SplitRule()
    group = patient_groups(images, linked)
    patient = images.set_index("image_id")["patient_id"].reindex(group.index)
    doubtful = pd.Series(is_member(group.index, _unverified(images)), index=group.index)
    was = old.set_index("image_id").reindex(group.index)
    is_new = was["role"].isna()
    # The state is role and fold as one text: images that differ in either must not be linked.
    state = was["role"].astype(TEXT) + " " + was["fold"].astype("Int64").astype(TEXT).fillna("-")
    evaluated = state[is_member(was["role"], _PARTS)]
    if len(evaluated):
        inherited = patient.map(_single(evaluated, patient)).astype(TEXT)
        by_group = group.map(_single(evaluated, group)).astype(TEXT)
        inherited = inherited.where(inherited.notna(), by_group)
        state = state.where(~is_new, inherited)
    if rule.method == "balanced":
        always = group[state.isna() & doubtful].unique()
        state[state.isna() & is_member(group, always)] = "train -"
    # Images with a role are counted by patient, so that old and new patients are balanced together.
    unit = group.where(state.isna(), patient)
    drawn = _draw_roles(unit[state != _UNUSED], strata, rule, state.groupby(unit).first().dropna())
    of_unit = drawn.array.take(positions(unit, drawn.index), allow_fill=True)
    state = state.where(state.notna(), pd.Series(of_unit, index=state.index))
    state[is_new & doubtful & ~state.str.startswith("train")] = _UNUSED
    if len(evaluated):
        state[is_new & _is_split_up(state, linked)] = _UNUSED
    return _from_states(state)


def _draw_roles(
    group: pd.Series, strata: Labels, rule: SplitRule, fixed: pd.Series | None = None
) -> pd.Series:
    """Draw a role and a fold for each group of images; `fixed` are the states of some groups."""
    names = pd.Index(np.sort(group.unique()))
    states = pd.Series(index=names, dtype=TEXT) if fixed is None else fixed
    role, fold = _read_states(states, names)
    n_folds = max(rule.folds, int(fold.max(initial=-1)) + 1)
    is_fixed = role >= 0
    foldless = is_fixed & (fold < 0)  # always trains, or the old split has no folds
    if fixed is not None and len(fixed) and foldless[is_fixed].all():
        foldless[:] = True
    shares = np.array([rule.test, rule.val, max(1 - rule.test - rule.val, 0.0)])
    if rule.method == "hash":
        drawn = np.searchsorted(
            shares.cumsum()[:2], hash_to_unit_interval(names, rule.seed, "role"), "right"
        )
        drawn_fold = (hash_to_unit_interval(names, rule.seed, "fold") * n_folds).astype(int)
        role = np.where(is_fixed, role, drawn)
        fold = np.where(fold < 0, drawn_fold, fold)
    else:
        rng = np.random.default_rng(rule.seed)
        role = balanced_parts(group, strata, shares, rng, role)
        learning = (role != _TEST) & ~foldless
        of_learning = group[is_member(group, names[learning])]
        equal = np.full(n_folds, 1 / n_folds)
        fold[learning] = balanced_parts(of_learning, strata, equal, rng, fold[learning])
    fold_texts = np.where((role == _TEST) | foldless, "-", fold.astype(str))
    texts = np.char.add(np.char.add(_PARTS[role], " "), fold_texts)
    return pd.Series(texts, index=names, dtype=TEXT)


def _read_states(state: pd.Series, names: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Return the codes of role and fold, -1 where there is none."""
    parts = state.reindex(names).str.split(" ", expand=True).reindex(columns=[0, 1])
    role = pd.Index(_PARTS).get_indexer(parts[0])
    return role, pd.to_numeric(parts[1], errors="coerce").fillna(-1).to_numpy(dtype=int, copy=True)


def _from_states(state: pd.Series) -> pd.DataFrame:
    """Build the split table from the state of each image, as `_draw_roles` writes it."""
    code, texts = pd.factorize(state)
    parts = [text.split(" ") for text in texts]
    roles = pd.array([role for role, _ in parts], dtype=TEXT)
    folds = pd.array([None if fold == "-" else int(fold) for _, fold in parts], dtype="Int64")
    return pd.DataFrame(
        {
            "image_id": state.index.to_numpy(),
            "role": roles.take(code, allow_fill=True),
            "fold": folds.take(code, allow_fill=True),
        }
    )


def _single(state: pd.Series, owner: pd.Series) -> pd.Series:
    """Return the state of each owner's images, or ``unused -`` if they have several states."""
    pairs = pd.DataFrame({"owner": owner, "state": state}).dropna().drop_duplicates()
    once = pairs.drop_duplicates("owner").set_index("owner")["state"]
    return once.mask(
        is_member(once.index, pairs.loc[pairs["owner"].duplicated(), "owner"]), _UNUSED
    )


def _is_split_up(state: pd.Series, linked: Labels) -> np.ndarray:
    """Return True for images that share a key with images of another state."""
    is_split_up = np.zeros(len(state), dtype=bool)
    evaluated = state[state != _UNUSED]
    for keys in key_columns(linked):
        keys = keys.reindex(state.index)
        several = _single(evaluated, keys)
        is_split_up |= is_member(keys, several.index[several == _UNUSED])
    return is_split_up


def official_split(
    official: pd.DataFrame,
    images: pd.DataFrame,
    linked: Labels = None,
    rule: SplitRule | None = None,
    *,
    strata: Labels = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Adopt a published assignment to train, validation and test, but keep patients in one set.

    If a patient has images in several sets (roles), the test images are kept, or else the
    validation images, and the other images become ``unused``. If there are no validation images,
    validation patients are drawn from the training patients.

    Args:
        official: Table with columns ``image_id, role`` (train, val or test) as published.
        images: Images table: one row for each image, with patient, path and size.
        linked: Key of each image, indexed by ``image_id``. Copies of an image have the same key,
            and so get the same role. None if no copies are known.
        rule: Shares, number of folds, seed and method by which validation patients and folds are
            drawn; None takes the defaults of `SplitRule`.
        strata: Kinds (strata) of each image, such as class and view: a Series or a table, indexed
            by ``image_id``. Each role gets its share of every stratum. None balances none.

    Returns:
        Two values: a table with ``image_id``, ``role`` and ``fold`` (number of the cross-validation
        fold), and a JSON-ready record of the method with notes for the user.
    """
    rule = rule or SplitRule()
    group = patient_groups(images, linked)
    stated = official.set_index("image_id")["role"].reindex(group.index).astype(TEXT)
    rank = stated.map({role: place for place, role in enumerate(_PRECEDENCE)})
    overlap = rank > rank.groupby(group).transform("min")
    role = stated.fillna("unused").mask(overlap, "unused")
    learning = is_member(role, ["train", "val"])
    learning &= ~is_member(group, group[is_member(group.index, _unverified(images))])
    drawn = "val" not in set(role) and "train" in set(role) and rule.val > 0
    draw = replace(rule, test=0.0, val=rule.val if drawn else 0.0)
    table = _from_states(group[learning].map(_draw_roles(group[learning], strata, draw)))
    fold = table.set_index("image_id")["fold"].reindex(group.index)
    if drawn:
        role[table["image_id"]] = table["role"].to_numpy()
    split = pd.DataFrame(
        {"image_id": group.index.to_numpy(), "role": role.to_numpy(), "fold": fold.array}
    )
    how: dict[str, Any] = {
        "method": "as given, validation drawn by patient from the given train"
        if drawn
        else "as given",
        "rule": {**asdict(rule), "test": 0.0},
        "n_patients_in_two_roles": int(group[overlap].nunique()),
        "n_images_unused": int(overlap.sum()),
        "n_images_without_role": int(stated.isna().sum()),
    }
    return split, {**how, "notes": _official_notes(how, role)}


def _official_notes(how: dict[str, Any], role: pd.Series) -> list[str]:
    notes = []
    if how["n_images_unused"]:
        notes.append(
            f"{counted(how['n_patients_in_two_roles'], 'patient', 'have')} more than one role "
            "(patients who share an image count as one). "
            f"{how['n_images_unused']:,} of their images are unused here, so that test and then "
            "validation stay complete"
        )
    if how["n_images_without_role"]:
        notes.append(
            f"{counted(how['n_images_without_role'], 'image', 'have')} no role and are unused"
        )
    n_val = int((role == "val").sum())
    n_evaluated = int((role != "unused").sum())
    if 0 < n_val < max(_FEW_IMAGES, _FEW_SHARE * n_evaluated):
        notes.append(
            f"validation has {counted(n_val, 'image')}, too few to choose a threshold or an epoch; "
            "draw another split with cxr split --from"
        )
    return notes
