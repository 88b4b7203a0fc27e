"""Strata that a split balances, and the greedy draw that balances them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.ids import is_member, positions
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.contracts.text import TEXT

Labels = pd.Series | pd.DataFrame | None
"""Strata to balance or keys that copies share, in one or more columns, indexed by image id."""

_MOST_LEVELS = 50  # values of a text column that are balanced; rarer ones are not
_LEAST = 0.001  # share of its share of which a part that is full still lacks
_DECIMALS = 15  # sums are compared without the rounding errors in which processors differ


def image_classes(images: pd.DataFrame, findings: pd.DataFrame) -> pd.Series:
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
    strata = image_classes(images, findings).rename("class").to_frame()
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
    group: pd.Series, strata: Labels, shares: np.ndarray, seed: int, fixed: np.ndarray
) -> np.ndarray:
    """Assign groups of N images to P parts, each with its share of groups, images and strata.

    Groups come one by one, the largest first. Each goes to the part in which the sum of squares
    grows least: of what it was given of groups, images and strata, as shares of the whole, divided
    by what it lacked at the start. The sum is least if every part gets what it lacks. A group, such
    as the images of a patient, is never divided; the seed orders groups of one size.

    `group` and `strata` (None balances none) are indexed by ``image_id``. The sum of the shares,
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
    image_ids: pd.Index, code: np.ndarray, n_groups: int, strata: Labels, n_parts: int
) -> np.ndarray:
    """Return what each group has of groups, images and strata, as shares of all: ``(G, S)``.

    A stratum in fewer groups than there are parts cannot be spread over them and is left out.
    """
    columns = [np.ones(n_groups), np.bincount(code, minlength=n_groups).astype(float)]
    frame = pd.DataFrame(index=image_ids) if strata is None else pd.DataFrame(strata)
    rows = positions(image_ids, frame.index)
    for name in frame.columns:
        if frame[name].dtype == bool:
            level = np.where((rows >= 0) & frame[name].to_numpy()[rows], 0, -1)
        else:
            texts = pd.Series(frame[name].astype(TEXT).array.take(rows, allow_fill=True))
            level = pd.factorize(texts, sort=True, use_na_sentinel=False)[0]
        common = np.argsort(-np.bincount(level[level >= 0]), kind="stable")[:_MOST_LEVELS]
        columns += [np.bincount(code[level == value], minlength=n_groups) for value in common]
    counts = np.column_stack(columns).astype(np.float64)
    spread = (counts > 0).sum(axis=0) >= n_parts
    spread[:2] = True
    return counts[:, spread] / np.maximum(counts[:, spread].sum(axis=0), 1)
