# annex studies
"""Parts of a split with growing shares of its patients, for learning curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.contracts.tables import frame_digest
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.duplicates.patient_groups import patient_groups
from cxr_compare.data_prep.splits.balance import image_strata
from cxr_compare.data_prep.splits.stored_splits import dataset_links, write_splits
from cxr_compare.data_prep.store.dataset_info import SplitOrigin

_ANNOTATED = ("train", "val")


def nested_parts(
    split: pd.DataFrame, group: pd.Series, strata: pd.Series, shares: Sequence[float], seed: int = 0
) -> dict[float, pd.DataFrame]:
    """Return smaller splits for a learning curve, which use a share of the training patients.

    A split assigns images to train, validation and test. Training and validation set keep a share,
    in (0, 1], of their patients; test images stay. The patients of each stratum are put into a
    random order, and the orders of all strata are merged so that the first patients always contain
    every stratum in proportion. A smaller split keeps the first patients of this order, so its
    images are also in each larger one. A patient is kept with all images or with none; others get
    the role ``unused``.

    `split` has ``image_id``, ``role`` and ``fold``. `group` is the patient group (one patient, or
    patients with copies of the same image) and `strata` the class or another kind of like images,
    both indexed by ``image_id``.
    """
    for share in shares:
        if not 0 < share <= 1:
            raise InputError(f"share {share:g}: give shares above 0 and up to 1, such as 0.25")
    owner = split["image_id"].map(group)
    ranks_by_role = {}
    for role in _ANNOTATED:
        patients = pd.DataFrame({"group": owner, "stratum": split["image_id"].map(strata)})
        patients = patients[split["role"] == role].fillna({"stratum": ""})
        stratum = patients.groupby("group", sort=True)["stratum"].max()  # the last of several
        # Roles must not depend on each other, so each has a random generator of its own.
        rng = np.random.default_rng([seed, _ANNOTATED.index(role)])
        ranks_by_role[role] = _balanced_ranks(stratum, rng)
    parts = {}
    for share in shares:
        kept = split["role"].copy()
        for role, ranks in ranks_by_role.items():
            chosen = ranks.index[ranks < max(1, round(share * len(ranks)))]
            kept[(split["role"] == role) & ~owner.isin(chosen)] = "unused"
        parts[share] = split.assign(role=kept)
    return parts


def _balanced_ranks(stratum: pd.Series, rng: np.random.Generator) -> pd.Series:
    """Rank the groups, from 0, in an order whose prefixes are balanced over strata."""
    key = pd.Series(0.0, index=stratum.index)
    for _, members in stratum.groupby(stratum, sort=True):
        # The random start avoids that a stratum of one patient always falls into the same half.
        ranks = rng.permutation(len(members)) + rng.random()
        key[members.index] = ranks / len(members)
    return key.rank(method="first").astype(int) - 1


def _part_name(split: str, seed: int, share: float) -> str:
    """Return the name of the split that holds a part; the whole split keeps its name."""
    return split if share == 1 else f"{split}.part-{share:g}-seed-{seed}"


def draw_nested_parts(
    dataset: DataSet,
    target: Target,
    splits: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
) -> dict[str, dict[tuple[float, int], pd.DataFrame]]:
    """Draw smaller splits for a learning curve (see `nested_parts`), without writing them.

    Each keeps the proportion of images that are positive for the target; all shares are drawn for
    each seed. The tables are by name of the whole split, and then by share and seed.
    """
    group = patient_groups(dataset.images, dataset_links(dataset))
    label = dataset.labels(target).map({0.0: "negative", 1.0: "positive"}).fillna("")
    classes = image_strata(dataset.images, dataset.findings)["class"].fillna("")
    strata = label + " " + classes.reindex(label.index)
    parts: dict[str, dict[tuple[float, int], pd.DataFrame]] = {}
    for name in splits:
        whole = dataset.split(name)
        parts[name] = {}
        for seed in seeds:
            for share, part in nested_parts(whole, group, strata, shares, seed).items():
                parts[name][share, seed] = part
    return parts


def add_nested_parts(
    dataset: DataSet, split: str, parts: Mapping[tuple[float, int], pd.DataFrame]
) -> dict[tuple[float, int], str]:
    """Write the smaller splits from `draw_nested_parts` into a data set, and return their names.

    The parts are those of one whole split, from which their names are made. A split of that name
    that exists already and differs is refused.
    """
    names = {}
    new = {}
    for (share, seed), table in parts.items():
        name = names[share, seed] = _part_name(split, seed, share)
        stored_id = dataset.ids.split_ids.get(name)
        if stored_id is None:
            new[name] = table
        elif stored_id != frame_digest(table, ["image_id", "role"]):
            raise InputError(
                f"{dataset.folder}: split '{name}' is not the part of '{split}' that its name "
                "says; was the split drawn anew? Remove it from the folder's splits, or choose "
                "another --split"
            )
    if new:
        how = SplitOrigin(method=f"nested parts of split '{split}', by patient")
        write_splits(dataset.folder, new, how, replaces=False)
    return names


# end of annex studies
