"""The parts that a learning curve learns from, and whether they can be learned from and judged."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from data_prep.splits.subsets import add_nested_parts, draw_nested_parts
from data_prep.store.dataset import DataSet, Target


def add_parts(
    dataset: DataSet,
    target: Target,
    splits: Sequence[str],
    shares: Sequence[float],
    seeds: Sequence[int],
) -> dict[tuple[str, float, int], str]:
    """Draw the parts, check that each can be learned from and judged, and only then add them.

    Args:
        dataset: Where they are added.
        target: What is learned.
        splits: What they are parts of.
        shares: Of the patients who train and validate, ascending.
        seeds: Of the draws.

    Returns:
        Name of the split of each split, share and seed.

    Raises:
        InputError: A part cannot be learned from or judged; then none is added.
    """
    labels = dataset.labels(target).dropna() == 1
    boxed = labels[labels.index.isin(dataset.boxes_trusted(target))]
    if not boxed.any():
        raise InputError(
            f"curve: target '{target.name}' has no positive image whose lesions are all boxed; a "
            "detector cannot learn it"
        )
    drawn = {split: draw_nested_parts(dataset, target, split, shares, seeds) for split in splits}
    for split, parts in drawn.items():
        _require_judgeable(labels, dataset.image_ids("test", split), split)
        for (share, _), part in parts.items():
            _require_learnable(boxed, part, split, share)
        for seed in seeds:
            _require_growing(boxed, {share: parts[share, seed] for share in shares}, split)
    return {
        (split, share, seed): name
        for split, parts in drawn.items()
        for (share, seed), name in add_nested_parts(dataset, split, parts).items()
    }


def require_different_tests(dataset: DataSet, splits: Sequence[str]) -> None:
    """Refuse splits that test the same patients: they are no folds of one study."""
    images = dataset.images.set_index("image_id")["patient_id"]
    owners = images.fillna(images.index.to_series())
    seen: dict[str, set[str]] = {}
    for split in splits:
        tested = set(owners.loc[dataset.image_ids("test", split)])
        for other, known in seen.items():
            if split == other or not known.isdisjoint(tested):
                raise InputError(
                    f"curve: splits '{other}' and '{split}' test images of the same patients; give "
                    "one split, or folds (cxr split --folds K --test-folds)"
                )
        seen[split] = tested


def _require_judgeable(labels: pd.Series, test: pd.Index, split: str) -> None:
    """Refuse a split whose test images cannot judge anything."""
    judged = labels[labels.index.isin(test)]
    n_positive = int(judged.sum())
    if not 0 < n_positive < len(judged):
        raise InputError(
            f"curve: split '{split}' tests {counted(n_positive, 'positive')} and "
            f"{counted(len(judged) - n_positive, 'negative image')}, and needs both; make another "
            "split with cxr split"
        )


def _require_learnable(boxed: pd.Series, part: pd.DataFrame, split: str, share: float) -> None:
    """Refuse a part of which a role lacks positive or negative images that are wholly boxed."""
    for role in ("train", "val"):
        positive = boxed[boxed.index.isin(part.loc[part["role"] == role, "image_id"])]
        n_positive = int(positive.sum())
        if not 0 < n_positive < len(positive):
            advice = "give larger --sizes" if share < 1 else "make another split with cxr split"
            raise InputError(
                f"curve: a share of {share:g} of split '{split}' leaves role '{role}' "
                f"{counted(n_positive, 'positive')} and "
                f"{counted(len(positive) - n_positive, 'negative image')} with all boxes; {advice}"
            )


def _require_growing(boxed: pd.Series, parts: Mapping[float, pd.DataFrame], split: str) -> None:
    """Refuse shares so near to one another that they keep the same patients."""
    counts = {}
    for share, part in parts.items():
        kept = part.loc[part["role"].isin(["train", "val"]), "image_id"]
        counts[share] = int(boxed.index.isin(kept).sum())
    for fewer, more in itertools.pairwise(sorted(counts)):
        if counts[fewer] == counts[more]:
            raise InputError(
                f"curve --sizes: {fewer:g} and {more:g} keep the same patients of split '{split}'; "
                "give sizes further apart"
            )
