"""Splits that keep every patient whole: train, validation, test, and folds for cross-validation."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.ids import is_member
from cxr_compare.data_prep.contracts.text import TEXT
from cxr_compare.data_prep.duplicates.near_duplicates import key_columns, patient_groups

Labels = pd.Series | pd.DataFrame | None
"""By image id, in one column or several: strata to balance, or keys that copies share."""

_MOST_LEVELS = 50  # of one text column; rarer ones are not balanced on their own
# enough equal folds for any shares to this precision
_MOST_FOLDS = 50
_SHARE_ERROR = 0.002
_JOININGS = 200  # ways tried of putting folds together to parts
# numpy's isclose, by which scikit-learn calls folds as good
_NEAR = 1e-8
_NEAR_SHARE = 1e-5
_ROUNDING = 1e-12  # more than two ways of computing a standard deviation of shares differ by


def _balanced_parts(
    group: pd.Series,
    strata: Labels,
    shares: np.ndarray,
    rng: np.random.Generator,
    held: np.ndarray | None = None,
) -> np.ndarray:
    """Assign groups to parts so that each part gets its share of groups, images and every stratum.

    Groups are assigned to equal folds as by scikit-learn's `StratifiedGroupKFold`. It knows one
    class a sample, so an image comes in once for each stratum that it is of. Folds are then put
    together to parts, in the one of 200 random ways that comes closest to the shares.
    """
    code, names = pd.factorize(group, sort=True)
    part = np.full(len(names), -1) if held is None else held.copy()
    free = part < 0
    there = np.bincount(part[code][~free[code]], minlength=len(shares))
    lacking = np.clip(shares * len(group) - there, 0, None)
    sizes = _fold_counts(lacking / lacking.sum() if lacking.any() else shares, int(free.sum()))
    n_folds = int(sizes.sum())
    part_of_fold = np.repeat(np.arange(len(shares)), sizes)
    if n_folds < 2 or not sizes.max() < n_folds:
        part[free] = sizes.argmax()
        return part
    row, stratum = _samples(group.index, code, strata)
    owner = code[row]
    order = rng.permutation(len(names))
    fold = np.full(len(names), -1)
    n_strata = int(stratum.max()) + 1
    cell = owner * n_strata + stratum
    samples = np.bincount(cell, minlength=len(names) * n_strata).reshape(-1, n_strata)
    # Strata with fewer images than folds cannot be spread over them; joining counts them, too.
    common = samples[free].sum(axis=0) >= n_folds
    drawn = np.flatnonzero(free)
    drawn = drawn[np.argsort(order[drawn])]
    fold[drawn] = _equal_folds(samples[np.ix_(drawn, common)].astype(np.float64), n_folds)
    counts = np.zeros((n_folds, n_strata))
    before = np.zeros((len(shares), n_strata))
    np.add.at(counts, fold[free], samples[free])
    rest = np.flatnonzero(~free)
    np.add.at(before, part[rest], samples[rest])
    ways = _JOININGS if sizes.max() > 1 or len(rest) else 1  # equal shares are all alike
    tried = [rng.permutation(part_of_fold) for _ in range(ways)]
    best = min(tried, key=lambda parts: _unevenness(before, counts, parts, shares))
    part[free] = best[fold[free]]
    return part


def _equal_folds(samples: np.ndarray, n_folds: int) -> np.ndarray:
    """Return the fold of each group, from its number of samples in each stratum, ``(G, S)``.

    The folds are those that scikit-learn's `StratifiedGroupKFold` gives, group by group; a test
    holds them to that. Its own loop computes a variance from scratch for each group and fold: it
    draws the roles of RSNA's 26,684 images in 12.6 s and of NIH's 112,120 in 40.4 s, where this
    takes 0.8 s and 1.8 s.

    Groups whose strata differ most come first; each goes where the shares of the strata then vary
    least between folds, and where two folds are as good, to the one with fewer samples. Variances
    are updated from sums of whole numbers. Where these leave it open which fold is better, they are
    computed as scikit-learn does, whose rounding decides.
    """
    of_stratum = samples.sum(axis=0)
    weight = 1 / (n_folds * of_stratum * len(of_stratum))
    held = np.zeros((n_folds, samples.shape[1]))
    spread = np.empty((n_folds, samples.shape[1]))
    total = np.zeros_like(of_stratum)
    squares = np.zeros_like(of_stratum)
    sizes = samples.sum(axis=1).tolist()
    held_sizes = [0.0] * n_folds
    fold = np.empty(len(samples), dtype=np.int64)
    for group in np.argsort(-np.std(samples, axis=1), kind="stable").tolist():
        added = samples[group]
        total += added
        twice = 2 * n_folds * added
        alone = n_folds * added * added
        np.multiply(held, twice, out=spread)
        spread += squares + alone - total * total  # n_folds squared times the variance
        values = (np.sqrt(spread, out=spread) @ weight).tolist()
        best = _better_fold(values, held_sizes, _ROUNDING)
        if best < 0:
            share = np.repeat((held / of_stratum)[None], n_folds, axis=0)
            own = np.arange(n_folds)
            share[own, own] = (held + added) / of_stratum
            best = _better_fold(share.std(axis=1).mean(axis=1).tolist(), held_sizes, 0.0)
        fold[group] = best
        squares += twice * held[best] + alone
        held[best] += added
        held_sizes[best] += sizes[group]
    return fold


def _better_fold(values: list[float], sizes: list[float], rounding: float) -> int:
    """The fold of the least value, of near ones the smaller; -1 where rounding would decide.

    A value that is within ``rounding`` of the least, or of being near it, leaves that open; with a
    rounding of 0 every comparison counts as it is.
    """
    best = 0
    least = values[0]
    fewest = sizes[0]
    near = _NEAR + _NEAR_SHARE * least
    for number in range(1, len(values)):
        more = values[number] - least
        if more > near + rounding:
            continue
        if more >= -rounding and sizes[number] >= fewest:
            if abs(more) < rounding:
                return -1
            continue
        if more > near - rounding and rounding:
            return -1
        best = number
        least = values[number]
        fewest = sizes[number]
        near = _NEAR + _NEAR_SHARE * least
    return best


def _fold_counts(shares: np.ndarray, n_groups: int) -> np.ndarray:
    """Folds of each part: as few equal folds as give the shares, at least one a part."""
    wanted = shares > 1e-9
    if n_groups <= wanted.sum():
        largest = np.argsort(-shares, kind="stable")[:n_groups]
        return np.isin(np.arange(len(shares)), largest).astype(int)
    best = wanted.astype(int)
    least = np.inf
    for n_folds in range(int(wanted.sum()), min(_MOST_FOLDS, n_groups) + 1):
        sizes = np.where(wanted, np.maximum(np.round(shares * n_folds), 1), 0).astype(int)
        sizes[shares.argmax()] += n_folds - sizes.sum()
        error = np.abs(sizes / n_folds - shares).max() if sizes[wanted].min() > 0 else np.inf
        if error < least - 1e-12:
            best = sizes
            least = error
        if least <= _SHARE_ERROR:
            break
    return best


def _samples(
    image_ids: pd.Index, code: np.ndarray, strata: Labels
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of images and the stratum that each row stands for."""
    chosen = [np.unique(code, return_index=True)[1], np.arange(len(code))]  # groups, images
    frame = pd.DataFrame(index=image_ids) if strata is None else pd.DataFrame(strata)
    frame = frame.reindex(image_ids)
    for name in frame.columns:
        if pd.DataFrame(strata)[name].dtype == bool:
            chosen.append(np.flatnonzero(frame[name].eq(True)))
            continue
        level = pd.factorize(frame[name].astype(TEXT), sort=True, use_na_sentinel=False)[0]
        common = np.argsort(-np.bincount(level), kind="stable")[:_MOST_LEVELS]
        chosen += [np.flatnonzero(level == value) for value in common]
    chosen = [rows for rows in chosen if len(rows)]
    return np.concatenate(chosen), np.repeat(np.arange(len(chosen)), [len(r) for r in chosen])


def _unevenness(
    before: np.ndarray, counts: np.ndarray, parts: np.ndarray, shares: np.ndarray
) -> float:
    """Chi-square of samples by part and stratum, rounded so that no machine's last bit decides."""
    found = before.copy()
    np.add.at(found, parts, counts)
    used = shares > 1e-9
    expected = np.outer(shares, found.sum(axis=0))[used]
    return round(float(((found[used] - expected) ** 2 / expected).sum()), 6)


def _hash_places(names: Iterable[str], seed: int, purpose: str) -> np.ndarray:
    """Place each name in [0, 1) by a keyed hash: whatever other names there are, it stays.

    Example:
        >>> _hash_places(["nih:00000001"], 0, "role").round(4).tolist()
        [0.5362]
    """
    key = f"{purpose}:{seed}".encode()
    digests = (hashlib.blake2b(name.encode(), digest_size=8, key=key).digest() for name in names)
    return np.array([(int.from_bytes(d, "big") >> 11) / 2**53 for d in digests], dtype=np.float64)


def _unverified(images: pd.DataFrame) -> pd.Series:
    """Ids of the images of which it is doubtful who they show."""
    if "patient_id_source" not in images.columns:
        return images["image_id"].iloc[:0]
    return images.loc[images["patient_id_source"] == "mapped_unverified", "image_id"]


METHODS = ("balanced", "hash")
_PARTS = np.array(["test", "val", "train"])
_TEST = 0  # its place in _PARTS
_UNUSED = "unused -"
# Where a patient has several roles, the first of these stands.
_PRECEDENCE = ("test", "val", "train")
_FEW_IMAGES = 50
_FEW_SHARE = 0.01


@dataclass(frozen=True)
class SplitRule:
    """How a split is drawn."""

    val: float = 0.15  # share of patients for validation, in [0, 1)
    test: float = 0.2  # share of patients for test, in [0, 1]
    # number of folds that the train and validation patients are assigned to, at least 2
    folds: int = 5
    seed: int = 0
    # `balanced`: each role gets its share of every stratum. `hash`: the role follows from the
    # patient's id and the seed alone, so it stays when images are added; strata come out even
    # only as far as chance has it
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
    """Give every image a role such that a patient never has two.

    Balanced, scikit-learn's `StratifiedGroupKFold` assigns patients to equal folds, which are put
    together to roles, so that each role gets its share of patients, of images and of every
    stratum. The result depends on ids and seed, not on the order of rows.
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
    """Give roles to the images that were added to a data set; the old ones keep theirs.

    New images of a known patient take that patient's role and fold, and so do patients who share a
    image with one. New patients are drawn by the rule: balanced, so that old and new together
    approach its shares. ``unused`` is what would otherwise put an image or a patient into two
    roles (the added image shows that two old patients are one), and a doubtful image of a patient
    who does not train.
    """
    rule = rule or SplitRule()
    group = patient_groups(images, linked)
    patient = images.set_index("image_id")["patient_id"].reindex(group.index)
    doubtful = pd.Series(is_member(group.index, _unverified(images)), index=group.index)
    was = old.set_index("image_id").reindex(group.index)
    is_new = was["role"].isna()
    # A role and a fold in one word: two images that differ in either must not be linked.
    state = was["role"].astype(TEXT) + " " + was["fold"].astype("Int64").astype(TEXT).fillna("-")
    evaluated = state[is_member(was["role"], _PARTS)]
    if len(evaluated):
        given = patient.map(_single(evaluated, patient)).astype(TEXT)
        given = given.where(given.notna(), group.map(_single(evaluated, group)).astype(TEXT))
        state = state.where(~is_new, given)
    if rule.method == "balanced":
        always = group[state.isna() & doubtful].unique()
        state[state.isna() & is_member(group, always)] = "train -"
    # What has a place already counts by patient, so that old and new together come out even.
    unit = group.where(state.isna(), patient)
    drawn = _draw_roles(unit[state != _UNUSED], strata, rule, state.groupby(unit).first().dropna())
    state = state.where(state.notna(), unit.map(drawn).astype(TEXT))
    state[is_new & doubtful & ~state.str.startswith("train")] = _UNUSED
    if len(evaluated):
        state[is_new & _is_split_up(state, linked)] = _UNUSED
    return _from_states(state)


def _draw_roles(
    group: pd.Series, strata: Labels, rule: SplitRule, held: pd.Series | None = None
) -> pd.Series:
    """Draw a role and a fold for each group of images."""
    names = pd.Index(np.sort(group.unique()))
    role, fold = _read_states(pd.Series(index=names, dtype=TEXT) if held is None else held, names)
    n_folds = max(rule.folds, int(fold.max(initial=-1)) + 1)
    is_held = role >= 0
    foldless = is_held & (fold < 0)  # always trains, or the old split has no folds
    if held is not None and len(held) and foldless[is_held].all():
        foldless[:] = True
    shares = np.array([rule.test, rule.val, max(1 - rule.test - rule.val, 0.0)])
    if rule.method == "hash":
        drawn = np.searchsorted(
            shares.cumsum()[:2], _hash_places(names, rule.seed, "role"), "right"
        )
        drawn_fold = (_hash_places(names, rule.seed, "fold") * n_folds).astype(int)
        role = np.where(is_held, role, drawn)
        fold = np.where(fold < 0, drawn_fold, fold)
    else:
        rng = np.random.default_rng(rule.seed)
        role = _balanced_parts(group, strata, shares, rng, role)
        learning = (role != _TEST) & ~foldless
        of_learning = group[is_member(group, names[learning])]
        equal = np.full(n_folds, 1 / n_folds)
        fold[learning] = _balanced_parts(of_learning, strata, equal, rng, fold[learning])
    words = np.where((role == _TEST) | foldless, "-", fold.astype(str))
    return pd.Series(np.char.add(np.char.add(_PARTS[role], " "), words), index=names, dtype=TEXT)


def _read_states(state: pd.Series, names: pd.Index) -> tuple[np.ndarray, np.ndarray]:
    """Codes of role and fold, -1 where there is none."""
    words = state.reindex(names).str.split(" ", expand=True).reindex(columns=[0, 1])
    role = pd.Index(_PARTS).get_indexer(words[0])
    return role, pd.to_numeric(words[1], errors="coerce").fillna(-1).to_numpy(dtype=int, copy=True)


def _from_states(state: pd.Series) -> pd.DataFrame:
    """The split table of the state of each image, as `_draw_roles` writes it."""
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


def _is_split_up(state: pd.Series, linked: Labels) -> np.ndarray:
    """Whether an image shares a key with images of another state."""
    found = np.zeros(len(state), dtype=bool)
    evaluated = state[state != _UNUSED]
    for keys in key_columns(linked):
        keys = keys.reindex(state.index)
        several = _single(evaluated, keys)
        found |= is_member(keys, several.index[several == _UNUSED])
    return found


def official_split(
    official: pd.DataFrame,
    images: pd.DataFrame,
    linked: Labels = None,
    rule: SplitRule | None = None,
    *,
    strata: Labels = None,
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Follow roles that are given, but keep every patient in one of them.

    Of a patient with several roles the test images stand, else the validation images; the others
    become ``unused``. Where no image is for validation, patients are drawn from train.
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
        "method": "as given" + (", validation drawn by patient from the given train" * drawn),
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
            f"{counted(how['n_patients_in_two_roles'], 'patient')} (those who share an image "
            "count as one) "
            f"stand in more than one role: {how['n_images_unused']:,} of their images are unused "
            "here, so that test and then validation stay whole"
        )
    if how["n_images_without_role"]:
        notes.append(f"{counted(how['n_images_without_role'], 'image', 'have')} no role: unused")
    n_val = int((role == "val").sum())
    n_evaluated = int((role != "unused").sum())
    if 0 < n_val < max(_FEW_IMAGES, _FEW_SHARE * n_evaluated):
        notes.append(
            f"validation has {counted(n_val, 'image')}, too few to choose a threshold or an epoch "
            "on; "
            "draw another with cxr split --from"
        )
    return notes


def fold_split(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Turn one fold into the validation role, all others into train; test stays."""
    roles = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    return split.assign(role=roles.mask(_is_fold(split, fold), "val"))


def fold_as_test(split: pd.DataFrame, fold: int, folds: int) -> pd.DataFrame:
    """Turn one fold into the test role, the next into validation, all others into train.

    Over all folds each image is tested once, validated once, and trained on otherwise.
    """
    roles = fold_split(split, (fold + 1) % folds)["role"]
    return split.assign(role=roles.mask(_is_fold(split, fold), "test"))


def _is_fold(split: pd.DataFrame, fold: int) -> pd.Series:
    return (split["fold"] == fold).fillna(False).astype(bool)
