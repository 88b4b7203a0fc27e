"""Splits that keep every patient whole: train, validation, test, and folds for cross-validation."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from data_prep.errors import InputError
from data_prep.membership import is_member

# Multiples of the golden ratio, modulo 1, fill [0, 1) more evenly than any other sequence, over
# every run of consecutive terms (three-distance theorem).
_GOLDEN = (5**0.5 - 1) / 2


def split_by_patient(
    images: pd.DataFrame,
    strata: pd.Series | None = None,
    *,
    val: float = 0.15,
    test: float = 0.2,
    folds: int = 5,
    seed: int = 0,
    linked: pd.Series | None = None,
) -> pd.DataFrame:
    """Give every image a role such that a patient never has two.

    Patients are sorted by stratum and number of images, shuffled among equals, and dealt to the
    roles by a golden-ratio sequence, so that each role gets its share of every stratum and of
    the patients with many images. The result depends on ids and seed, not on the order of rows.

    Args:
        images: Reads ``image_id``, ``patient_id`` and, where there is one, ``patient_id_source``.
            A patient with an image ``mapped_unverified`` goes to train in every fold, since who
            that image shows is doubtful.
        strata: Class of each image, indexed by ``image_id``; missing is a class of its own. A
            patient counts for the rarest class among the images.
        val: Share of patients for validation, in [0, 1).
        test: Share of patients for test, in [0, 1].
        folds: Number of folds that the train and validation patients are dealt to, at least 2.
        seed: Seed of the shuffle.
        linked: A key of each image, indexed by ``image_id``; patients who share one (a picture
            that stands under two names) stay together.

    Returns:
        ``image_id, role, fold``, one row an image, sorted by ``image_id``. ``fold`` is missing on
        test images and on those that always train.

    Raises:
        InputError: The shares do not fit together, or there are fewer than 2 folds.

    Example:
        >>> images = pd.DataFrame({"image_id": list("abcdef"), "patient_id": list("uuvwxy")})
        >>> split = split_by_patient(images, val=0.2, test=0.2, seed=1)
        >>> split.loc[split["image_id"].isin(["a", "b"]), "role"].nunique()
        1
    """
    require_shares(val, test, folds)
    group = _groups(images, linked)
    doubtful = group[is_member(group.index, _unverified(images))].unique()
    free = group[~is_member(group, doubtful)]
    rng = np.random.default_rng(seed)
    table = _in_order(free, strata, rng)
    place = (np.arange(len(table)) * _GOLDEN + rng.random()) % 1.0
    table["role"] = np.select([place < test, place < test + val], ["test", "val"], "train")
    _fill_empty_roles(table, {"test": test, "val": val, "train": 1 - val - test})
    learning = table.index[table["role"] != "test"]
    fold = pd.Series(np.arange(len(learning)) % folds, index=learning)
    return pd.DataFrame(
        {
            "image_id": group.index.to_numpy(),
            "role": group.map(table["role"]).fillna("train").to_numpy(),
            "fold": group.map(fold).astype("Int64").to_numpy(),
        }
    )


def require_shares(val: float, test: float, folds: int) -> None:
    """Check the shares and folds of a split.

    Raises:
        InputError: The shares do not fit together, or there are fewer than 2 folds.
    """
    if not (0 <= val < 1 and 0 <= test <= 1 and val + test <= 1):
        raise InputError(
            f"split: val={val:g} and test={test:g} must be shares from 0 to 1 that sum to at most 1"
        )
    if folds < 2:
        raise InputError(f"split: folds={folds}; at least 2 are needed")


def _unverified(images: pd.DataFrame) -> pd.Series:
    if "patient_id_source" not in images.columns:
        return images["image_id"].iloc[:0]
    return images.loc[images["patient_id_source"] == "mapped_unverified", "image_id"]


def _groups(images: pd.DataFrame, linked: pd.Series | None) -> pd.Series:
    """Name the group of each image: its patient, or the first of several linked patients.

    Returns:
        Group names, indexed by ``image_id``, sorted by it.
    """
    patient = images.set_index("image_id")["patient_id"].sort_index()
    if linked is None:
        return patient
    codes, names = pd.factorize(patient, sort=True)
    key_codes = pd.factorize(linked.reindex(patient.index))[0]
    known = key_codes >= 0
    # Patients and keys are the two kinds of nodes of one graph; its components are the groups.
    edges = (codes[known], key_codes[known] + len(names))
    n_nodes = len(names) + len(patient)
    graph = coo_array((np.ones(known.sum(), dtype=np.int8), edges), shape=(n_nodes, n_nodes))
    component = connected_components(graph, directed=False)[1][: len(names)]
    first = pd.Series(np.arange(len(names))).groupby(component).transform("min").to_numpy()
    return pd.Series(np.asarray(names)[first[codes]], index=patient.index)


def _in_order(group: pd.Series, strata: pd.Series | None, rng: np.random.Generator) -> pd.DataFrame:
    """Sort groups by their rarest class and number of images, equals in a seeded random order.

    Returns:
        Indexed by group, with ``rarest`` (rank of its rarest class, 0 the rarest of all), ``size``
        and ``n_rarest`` (images in total, and of that class).
    """
    rank = pd.Series(0, index=group.index)
    if strata is not None:
        named = strata.reindex(group.index).astype("str").fillna("")
        counts = named.value_counts().to_dict()
        order = sorted(counts, key=lambda name: (counts[name], name))
        rank = named.map({name: position for position, name in enumerate(order)})
    images = pd.DataFrame({"rank": rank.to_numpy(), "group": group.to_numpy()})
    images["is_rarest"] = images["rank"] == images.groupby("group")["rank"].transform("min")
    table = images.groupby("group").agg(
        rarest=("rank", "min"), size=("rank", "size"), n_rarest=("is_rarest", "sum")
    )
    shuffled = table.iloc[rng.permutation(len(table))]
    return shuffled.sort_values(["rarest", "size", "n_rarest"], kind="stable")


def _fill_empty_roles(table: pd.DataFrame, shares: dict[str, float]) -> None:
    """Give each wanted role at least one group, where there are enough, in place."""
    for role, share in shares.items():
        counts = table["role"].value_counts()
        if share > 1e-9 and role not in counts.index and len(table) and counts.iloc[0] > 1:
            donors = table.index[table["role"] == counts.index[0]]
            table.loc[donors[len(donors) // 2], "role"] = role


def follow_given_roles(
    given: pd.DataFrame, images: pd.DataFrame, strata: pd.Series | None, *, val: float, seed: int
) -> pd.DataFrame:
    """Keep the roles that a data set came with; take validation from train where it has none.

    Args:
        given: ``image_id, role`` for every image.
        images: As for `split_by_patient`.
        strata: As for `split_by_patient`.
        val: Share of the training patients that becomes validation, if none is given.
        seed: Seed of that draw.

    Returns:
        As `split_by_patient`; ``fold`` is missing where the role was given.
    """
    split = given[["image_id", "role"]].assign(fold=pd.array([None] * len(given), dtype="Int64"))
    roles = set(given["role"])
    if "train" in roles and "val" not in roles and val > 0:
        training = given.loc[given["role"] == "train", "image_id"]
        pool = images[is_member(images["image_id"], training)]
        drawn = split_by_patient(pool, strata, val=val, test=0.0, seed=seed)
        split = pd.concat([split[split["role"] != "train"], drawn])
    return split.sort_values("image_id", ignore_index=True)


def fold_split(split: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Turn one fold into the validation role, all others into train; test stays.

    Args:
        split: As from `split_by_patient`.
        fold: Fold to validate on.

    Returns:
        The same rows with new roles.

    Example:
        >>> split = pd.DataFrame({"image_id": ["a", "b"], "role": "train", "fold": [0, 1]})
        >>> fold_split(split, 1)["role"].tolist()
        ['train', 'val']
    """
    roles = split["role"].where(is_member(split["role"], ["test", "unused"]), "train")
    return split.assign(role=roles.mask((split["fold"] == fold).fillna(False).astype(bool), "val"))
