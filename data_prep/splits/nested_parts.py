"""Nested parts of a split, for learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import frame_digest
from cxr_compare.data_prep.duplicates.patient_groups import patient_groups
from cxr_compare.data_prep.splits.draw_split import dataset_links
from cxr_compare.data_prep.splits.strata import image_strata
from cxr_compare.data_prep.splits.write_split import write_splits
from cxr_compare.data_prep.store.dataset import DataSet, Target

_ANNOTATED = ("train", "val")


def nested_parts(
    split: pd.DataFrame, group: pd.Series, strata: pd.Series, shares: Sequence[float], seed: int = 0
) -> dict[float, pd.DataFrame]:
    """Keep a share of the patients who train and validate; test images stay as they are.

    Patients of a stratum are put in a random order, and the orders of all strata are merged so that
    each prefix holds every stratum in proportion. A share is a prefix: a smaller one lies within a
    larger one, and a patient is in it with all images or with none.
    """
    if bad := [share for share in shares if not 0 < share <= 1]:
        raise InputError(f"share {bad[0]:g}: give shares above 0 and up to 1, such as 0.25")
    owner = split["image_id"].map(group)
    places = {}
    for role in _ANNOTATED:
        of_role = pd.DataFrame({"group": owner, "stratum": split["image_id"].map(strata)})
        of_role = of_role[split["role"] == role].fillna({"stratum": ""})
        stratum = of_role.groupby("group", sort=True)["stratum"].max()  # of several: the last
        # Each role and share must not depend on the others: a generator of its own.
        rng = np.random.default_rng([seed, _ANNOTATED.index(role)])
        places[role] = _places(stratum, rng)
    parts = {}
    for share in shares:
        kept = split["role"].copy()
        for role, place in places.items():
            chosen = place.index[place < max(1, round(share * len(place)))]
            kept[(split["role"] == role) & ~owner.isin(chosen)] = "unused"
        parts[share] = split.assign(role=kept)
    return parts


def _places(stratum: pd.Series, rng: np.random.Generator) -> pd.Series:
    """The place of each group, from 0, in an order whose prefixes hold every stratum alike."""
    key = pd.Series(0.0, index=stratum.index)
    for _, members in stratum.groupby(stratum, sort=True):
        # A random start for each stratum: one of a single patient is not always in the same half.
        ranks = rng.permutation(len(members)) + rng.random()
        key[members.index] = ranks / len(members)
    return key.rank(method="first").astype(int) - 1


def _part_name(split: str, seed: int, share: float) -> str:
    """Name of the split that holds a part; the whole split is itself."""
    return split if share == 1 else f"{split}.part-{share:g}-seed-{seed}"


def draw_nested_parts(
    dataset: DataSet,
    target: Target,
    splits: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
) -> dict[str, dict[tuple[float, int], pd.DataFrame]]:
    """Draw the parts of a data set's splits, see `nested_parts`; nothing is written."""
    group = patient_groups(dataset.images, dataset_links(dataset))
    label = dataset.labels(target).map({0.0: "negative", 1.0: "positive"}).fillna("")
    classes = image_strata(dataset.images, dataset.findings)["class"].fillna("")
    strata = label + " " + classes.reindex(label.index)
    return {
        split: {
            (share, seed): part
            for seed in seeds
            for share, part in nested_parts(whole, group, strata, shares, seed).items()
        }
        for split, whole in ((split, dataset.split(split)) for split in splits)
    }


def add_nested_parts(
    dataset: DataSet, split: str, parts: Mapping[tuple[float, int], pd.DataFrame]
) -> dict[tuple[float, int], str]:
    """Add the parts of a split to its data set; those that are there are checked, and stay."""
    names = {}
    new = {}
    for (share, seed), table in parts.items():
        name = names[share, seed] = _part_name(split, seed, share)
        known = dataset.ids["split_ids"].get(name)
        if known is None:
            new[name] = table
        elif known != frame_digest(table, ["image_id", "role"]):
            raise InputError(
                f"{dataset.folder}: split '{name}' is not the part of '{split}' that its name "
                "says; was the split drawn anew? Remove it from the folder's splits, or choose "
                "another --split"
            )
    if new:
        how = {"method": f"nested parts of split '{split}', by patient"}
        write_splits(dataset.folder, new, how, replaces=False)
    return names
