"""Splits that keep every patient whole: train, validation, test, and folds for cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.text_lookup import is_member
from data_prep.duplicates.patient_groups import key_columns, patient_groups
from data_prep.splits.balance import balanced_parts, hash_places


def unverified(images: pd.DataFrame) -> pd.Series:
    """Ids of the images of which it is doubtful who they show."""
    if "patient_id_source" not in images.columns:
        return images["image_id"].iloc[:0]
    return images.loc[images["patient_id_source"] == "mapped_unverified", "image_id"]


METHODS = ("balanced", "hash")
_PARTS = np.array(["test", "val", "train"])
_TEST = 0  # its place in _PARTS
_UNUSED = "unused -"


@dataclass(frozen=True)
class SplitRule:
    """How a split is drawn.

    Attributes:
        val: Share of patients for validation, in [0, 1).
        test: Share of patients for test, in [0, 1].
        folds: Number of folds that the train and validation patients are assigned to, at least 2.
        seed: Seed of the draw.
        method: ``balanced``: each role gets its share of every stratum. ``hash``: the role follows
            from the patient's id and the seed alone, so it stays when images are added; strata
            come out even only as far as chance has it.

    Raises:
        InputError: The shares do not fit together, there are fewer than 2 folds, or there is no
            such method.
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
    strata: pd.Series | pd.DataFrame | None = None,
    *,
    val: float = 0.15,
    test: float = 0.2,
    folds: int = 5,
    seed: int = 0,
    method: str = "balanced",
    linked: pd.Series | pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Give every image a role such that a patient never has two.

    Balanced, scikit-learn's `StratifiedGroupKFold` assigns patients to equal folds, which are put
    together to roles, so that each role gets its share of patients, of images and of every
    stratum. The result depends on ids and seed, not on the order of rows.

    Args:
        images: Reads ``image_id``, ``patient_id`` and, where there is one, ``patient_id_source``.
            An image ``mapped_unverified`` is never judged on, since who it shows is doubtful: its
            patient goes to train in every fold; by hash, the image is ``unused`` where its patient
            does not train.
        strata: What to balance, indexed by ``image_id``; see
            `data_prep.splits.balance.balanced_parts`.
        val: As in `SplitRule`, like all that follow but the last.
        test: Share of patients for test.
        folds: Number of folds.
        seed: Seed of the draw.
        method: ``balanced`` or ``hash``.
        linked: Keys of each image, indexed by ``image_id``; patients who share one (an image that
            stands under two names) stay together. By hash their role is that of the id that sorts
            first: a link that is found later is the one thing that can change a role.

    Returns:
        ``image_id, role, fold``, one row an image, sorted by ``image_id``. ``fold`` is missing on
        test images and on those that always train.

    Raises:
        InputError: `SplitRule` refuses the rule.

    Example:
        >>> images = pd.DataFrame({"image_id": list("abcdef"), "patient_id": list("uuvwxy")})
        >>> split = split_by_patient(images, val=0.2, test=0.2, seed=1)
        >>> split.loc[split["image_id"].isin(["a", "b"]), "role"].nunique()
        1
    """
    rule = SplitRule(val, test, folds, seed, method)
    nothing = pd.DataFrame({"image_id": [], "role": [], "fold": []})
    return extend_split(nothing, images, strata, rule, linked)


def extend_split(
    old: pd.DataFrame,
    images: pd.DataFrame,
    strata: pd.Series | pd.DataFrame | None = None,
    rule: SplitRule | None = None,
    linked: pd.Series | pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Give roles to the images that were added to a data set; the old ones keep theirs.

    New images of a known patient take that patient's role and fold, and so do patients who share a
    image with one. New patients are drawn by the rule: balanced, so that old and new together
    approach its shares. ``unused`` is what would otherwise put an image or a patient into two
    roles (the added image shows that two old patients are one), and a doubtful image of a patient
    who does not train.

    Args:
        old: ``image_id, role, fold`` of the old images.
        images: Old and new images, as for `split_by_patient`.
        strata: As for `split_by_patient`.
        rule: How new patients are drawn.
        linked: As for `split_by_patient`.

    Returns:
        As `split_by_patient`. Patients all of whose old images are ``unused`` count as new.

    Example:
        >>> images = pd.DataFrame({"image_id": list("abcd"), "patient_id": list("uvuw")})
        >>> old = pd.DataFrame({"image_id": ["a", "b"], "role": ["test", "train"], "fold": None})
        >>> extend_split(old, images)["role"].tolist()
        ['test', 'train', 'test', 'train']
    """
    rule = rule or SplitRule()
    group = patient_groups(images, linked)
    patient = images.set_index("image_id")["patient_id"].reindex(group.index)
    doubtful = pd.Series(is_member(group.index, unverified(images)), index=group.index)
    was = old.set_index("image_id").reindex(group.index)
    is_new = was["role"].isna()
    # A role and a fold in one word: two images that differ in either must not be linked.
    state = was["role"].astype("str") + " " + was["fold"].astype("Int64").astype("str").fillna("-")
    judged = state[is_member(was["role"], _PARTS)]
    if len(judged):
        given = patient.map(_single(judged, patient)).astype("str")
        given = given.where(given.notna(), group.map(_single(judged, group)).astype("str"))
        state = state.where(~is_new, given)
    if rule.method == "balanced":
        always = group[state.isna() & doubtful].unique()
        state[state.isna() & is_member(group, always)] = "train -"
    # What has a place already counts by patient, so that old and new together come out even.
    unit = group.where(state.isna(), patient)
    drawn = draw_roles(unit[state != _UNUSED], strata, rule, state.groupby(unit).first().dropna())
    state = state.where(state.notna(), unit.map(drawn).astype("str"))
    state[is_new & doubtful & ~state.str.startswith("train")] = _UNUSED
    if len(judged):
        state[is_new & _is_split_up(state, linked)] = _UNUSED
    return from_states(state)


def draw_roles(
    group: pd.Series,
    strata: pd.Series | pd.DataFrame | None,
    rule: SplitRule,
    held: pd.Series | None = None,
) -> pd.Series:
    """Draw a role and a fold for each group of images."""
    names = pd.Index(np.sort(group.unique()))
    role, fold = _read_states(pd.Series(index=names, dtype="str") if held is None else held, names)
    n_folds = max(rule.folds, int(fold.max(initial=-1)) + 1)
    is_held = role >= 0
    foldless = is_held & (fold < 0)  # always trains, or the old split has no folds
    if held is not None and len(held) and foldless[is_held].all():
        foldless[:] = True
    shares = np.array([rule.test, rule.val, max(1 - rule.test - rule.val, 0.0)])
    if rule.method == "hash":
        drawn = np.searchsorted(shares.cumsum()[:2], hash_places(names, rule.seed, "role"), "right")
        drawn_fold = (hash_places(names, rule.seed, "fold") * n_folds).astype(int)
        role, fold = np.where(is_held, role, drawn), np.where(fold < 0, drawn_fold, fold)
    else:
        rng = np.random.default_rng(rule.seed)
        role = balanced_parts(group, strata, shares, rng, role)
        learning = (role != _TEST) & ~foldless
        of_learning = group[is_member(group, names[learning])]
        equal = np.full(n_folds, 1 / n_folds)
        fold[learning] = balanced_parts(of_learning, strata, equal, rng, fold[learning])
    words = np.where((role == _TEST) | foldless, "-", fold.astype("str"))
    return pd.Series(np.char.add(np.char.add(_PARTS[role], " "), words), index=names, dtype="str")


def _read_states(state: pd.Series, names: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Codes of role and fold, -1 where there is none."""
    words = state.reindex(names).str.split(" ", expand=True).reindex(columns=[0, 1])
    role = pd.Index(_PARTS).get_indexer(words[0])
    return role, pd.to_numeric(words[1], errors="coerce").fillna(-1).to_numpy(dtype=int, copy=True)


def from_states(state: pd.Series) -> pd.DataFrame:
    """The split table of the state of each image, as `draw_roles` writes it."""
    known = {word: word.split(" ") for word in state.unique()}
    fold = state.map({word: None if f == "-" else int(f) for word, (_, f) in known.items()})
    return pd.DataFrame(
        {
            "image_id": state.index.to_numpy(),
            "role": state.map({word: role for word, (role, _) in known.items()}).to_numpy(),
            "fold": fold.astype("Int64").array,
        }
    )


def _single(state: pd.Series, owner: pd.Series) -> pd.Series:
    """The state of each owner's images; ``unused -`` where they have several."""
    pairs = pd.DataFrame({"owner": owner, "state": state}).dropna().drop_duplicates()
    once = pairs.drop_duplicates("owner").set_index("owner")["state"]
    return once.mask(
        is_member(once.index, pairs.loc[pairs["owner"].duplicated(), "owner"]), _UNUSED
    )


def _is_split_up(state: pd.Series, linked: pd.Series | pd.DataFrame | None) -> np.ndarray:
    """Whether an image shares a key with images of another state."""
    found = np.zeros(len(state), dtype=bool)
    judged = state[state != _UNUSED]
    for keys in key_columns(linked):
        keys = keys.reindex(state.index)
        several = _single(judged, keys)
        found |= is_member(keys, several.index[several == _UNUSED])
    return found


def fold_split(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Turn one fold into the validation role, all others into train; test stays.

    Example:
        >>> split = pd.DataFrame({"image_id": ["a", "b"], "role": "train", "fold": [0, 1]})
        >>> fold_split(split, 1)["role"].tolist()
        ['train', 'val']
    """
    roles = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    return split.assign(role=roles.mask(_is_fold(split, fold), "val"))


def fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Turn one fold into the test role, the next into validation, all others into train.

    Over all folds each image is tested once, validated once, and trained on otherwise.

    Example:
        >>> split = pd.DataFrame({"image_id": list("abc"), "role": "train", "fold": [0, 1, 2]})
        >>> fold_as_test(split, 2, folds=3)["role"].tolist()
        ['val', 'train', 'test']
    """
    roles = fold_split(split, (fold + 1) % folds)["role"]
    return split.assign(role=roles.mask(_is_fold(split, fold), "test"))


def _is_fold(split: pd.DataFrame, fold: int) -> pd.Series:
    return (split["fold"] == fold).fillna(False).astype(bool)
