"""Selection of the cases that a reader should see: where each system fails, and a random sample."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.evaluation.verdict.verdict_parts import JointSystem

CASES_PER_CATEGORY = 4
"""Number of cases of each kind that a report draws."""
MOST_CASES = 20
"""Largest number of cases of all kinds together; with many kinds, each has fewer."""


@dataclass(frozen=True)
class CaseCategory:
    """Test images with one kind of outcome, such as misses, shown below one heading of the report.

    Attributes:
        key: Short name of the kind for addresses on the page, such as ``all-miss``.
        order: Text that says how the images are ordered.
        image_ids: Ids of the images that are shown, in this order.
        total: Number of test images with this kind of outcome; not all of them are shown.
    """

    key: str
    title: str
    order: str
    image_ids: tuple[str, ...]
    total: int


_WIDEST_GAP = "widest gap in rank first"


class _Kind(NamedTuple):
    """Kind of outcome: key, title and order of its category, its images and their ranks.

    ``total`` counts the images of which `chosen` are shown; None counts the chosen ones.
    """

    key: str
    title: str
    order: str
    chosen: npt.NDArray[np.bool_]  # (N,)
    strength: npt.NDArray[np.float64]  # (N,) the highest are shown first
    total: int | None = None


@dataclass(frozen=True)
class _DecisionTable:
    """Decisions as arrays: rows are images in the order of their ids, columns are systems."""

    image_ids: npt.NDArray[np.object_]
    systems: tuple[str, ...]
    label: npt.NDArray[np.float64]  # (N,)
    called: npt.NDArray[np.bool_]  # (N, S)
    confidence: npt.NDArray[np.float64]  # (N, S) rank of the score within the system, 0 to 1
    misplaced: npt.NDArray[np.bool_]  # (N, S) called positive at a location known to be wrong
    kind: npt.NDArray[np.object_]  # (N,) x_class or ""


def select_cases(
    decisions: pd.DataFrame,
    systems: list[str],
    policy: str,
    *,
    per_category: int = CASES_PER_CATEGORY,
    seed: int = 0,
    joint: JointSystem | None = None,
    made_of_others: Collection[str] = (),
) -> list[CaseCategory]:
    """Select example images for the report: misses, wrong locations, false alarms, right decisions.

    The most confident errors come first. Confidence is the rank of an image's score among all
    scores of the same system, because scores of two systems have no common scale. Systems without
    decisions by the rule `policy` are left out. The kinds of outcome that at least one image has
    are in the report's order; there are none without decisions.

    `decisions` has one row for each image and system with ``image_id``, ``system``, ``label`` (1.0,
    0.0 or NaN), ``score`` and ``decision_POLICY`` (True if called positive). Optional columns are
    ``localised`` (True if the system points at a lesion) and ``x_class`` (kind of image, such as
    ``normal``). Each kind has at most `per_category` images, and fewer if all kinds together would
    have more than 20. `seed` draws some of the images that all systems decide rightly.

    With a `joint` system, images on which it decides otherwise than a member are shown, too.
    `made_of_others` names the systems that join others of them; where exactly one of the others
    finds an image, they are not counted.
    """
    if f"decision_{policy}" not in decisions:
        return []
    table = _arrange(decisions, systems, policy)
    if not table.systems or not len(table.image_ids):
        return []
    for count in range(per_category, 0, -1):
        categories = _categories(table, count, seed, joint, made_of_others)
        if sum(len(category.image_ids) for category in categories) <= MOST_CASES:
            break
    return [category for category in categories if category.image_ids]


def _categories(
    table: _DecisionTable,
    count: int,
    seed: int,
    joint: JointSystem | None,
    made_of_others: Collection[str],
) -> list[CaseCategory]:
    """Pick the images of each kind; an image is shown once, with the first of its kinds."""
    kinds = [
        *_one_finds(table, made_of_others),
        _all_miss(table),
        _wrong_place(table),
        *_false_alarms(table),
        *(_changes(table, joint) if joint else ()),
    ]
    is_shown = np.zeros(len(table.image_ids), dtype=bool)
    categories = []
    for kind in kinds:
        members = np.flatnonzero(kind.chosen & ~is_shown)
        # Ties are in the order of the ids.
        ranked = members[np.argsort(-kind.strength[members], kind="stable")][:count]
        is_shown[ranked] = True
        total = int(kind.chosen.sum()) if kind.total is None else kind.total
        image_ids = tuple(str(table.image_ids[row]) for row in ranked)
        categories.append(CaseCategory(kind.key, kind.title, kind.order, image_ids, total))
    return [*categories, _agreement(table, count, np.random.default_rng(seed))]


def disagreement(decisions: pd.DataFrame, systems: list[str]) -> dict[str, float]:
    """Compute for each image how differently the systems rank it, from 0 (equal ranks) to 1.

    Each system's scores are replaced by their ranks among all images, from 0 to 1, because scores
    of two systems have no common scale. The value of an image is its highest minus its lowest rank
    over the systems. `decisions` has ``image_id``, ``system`` and ``score``.

    Example:
        >>> frame = pd.DataFrame({"image_id": ["a", "b"] * 2, "system": list("AABB"),
        ...                       "score": [0.1, 0.2, 0.9, 0.3]})
        >>> disagreement(frame, ["A", "B"])
        {'a': 0.5, 'b': 0.5}
    """
    rows = decisions[decisions["system"].isin(systems)].drop_duplicates(["image_id", "system"])
    ranks = rows.pivot(index="image_id", columns="system", values="score").rank(pct=True)
    gaps = (ranks.max(axis=1) - ranks.min(axis=1)).fillna(0.0)
    return dict(zip(map(str, gaps.index), gaps.round(4).tolist(), strict=True))


def _arrange(decisions: pd.DataFrame, systems: list[str], policy: str) -> _DecisionTable:
    column = f"decision_{policy}"
    decided = decisions[decisions["label"].notna()]
    names = [
        name for name in systems if decided.loc[decided["system"] == name, column].notna().any()
    ]
    decided = decided[decided["system"].isin(names)].drop_duplicates(["image_id", "system"])

    def matrix(name: str) -> pd.DataFrame:
        wide = decided.pivot(index="image_id", columns="system", values=name)
        return wide.reindex(columns=names)

    called = matrix(column).dropna().sort_index()
    ids = called.index
    calls = called.to_numpy(dtype=bool)
    first = decided.drop_duplicates("image_id").set_index("image_id").reindex(ids)
    wrong = np.zeros(calls.shape, dtype=bool)
    if "localised" in decided:
        hit = matrix("localised").reindex(ids).to_numpy(dtype=object)
        is_known = ~pd.isna(hit)
        wrong[is_known] = ~hit[is_known].astype(bool)
    kinds = first["x_class"].fillna("") if "x_class" in first else pd.Series("", first.index)
    ranks = matrix("score").reindex(ids).rank(pct=True).fillna(0.0)
    return _DecisionTable(
        image_ids=ids.to_numpy(dtype=object),
        systems=tuple(names),
        label=first["label"].to_numpy(dtype=np.float64),
        called=calls,
        confidence=ranks.to_numpy(dtype=np.float64),
        misplaced=wrong & calls,
        kind=kinds.to_numpy(dtype=object),
    )


def _all_systems(table: _DecisionTable) -> str:
    """Return the subject of a title about all systems."""
    return {1: table.systems[0], 2: "Both"}.get(len(table.systems), "All")


def _changes(table: _DecisionTable, joint: JointSystem) -> list[_Kind]:
    """Select images on which a joint system decides otherwise than a member, right ones first."""
    if not {joint.name, *joint.members} <= set(table.systems):
        return []
    position = table.systems.index(joint.name)
    others = [table.systems.index(member) for member in joint.members]
    right = table.called == (table.label == 1)[:, None]
    gaps = np.abs(table.confidence[:, [position]] - table.confidence[:, others])
    kinds = []
    for key, is_right in (("corrects", True), ("misleads", False)):
        differs = (right[:, [position]] == is_right) & (right[:, others] != is_right)
        title = f"{joint.name} is wrong where a member is right"
        if is_right:
            title = f"{joint.name} is right where a member is wrong"
        strength = np.where(differs, gaps, 0).max(axis=1)
        kinds.append(_Kind(key, title, _WIDEST_GAP, differs.any(axis=1), strength))
    return kinds


def _all_miss(table: _DecisionTable) -> _Kind:
    missed = (table.label == 1) & ~table.called.any(axis=1)
    verb = "misses" if len(table.systems) == 1 else "miss"
    title = f"{_all_systems(table)} {verb} it"
    strength = -table.confidence.mean(axis=1)
    return _Kind("all-miss", title, "lowest scores first", missed, strength)


def _one_finds(table: _DecisionTable, made_of_others: Collection[str]) -> list[_Kind]:
    """Select positive images that one system calls positive and no other single system does.

    All of them are counted; those with a wrong location are shown among the images of this kind.
    """
    single = [p for p, name in enumerate(table.systems) if name not in made_of_others]
    kinds = []
    for position in single if len(single) > 1 else ():
        others = [other for other in single if other != position]
        only = (table.label == 1) & table.called[:, position]
        only &= ~table.called[:, others].any(axis=1)
        misplaced = only & table.misplaced[:, position]
        gap = table.confidence[:, position] - table.confidence[:, others].mean(axis=1)
        name = table.systems[position]
        title = f"Only {name} finds it"
        if len(single) < len(table.systems):
            title = f"{name} finds it, no other single system does"
            if len(others) == 1:
                title = f"{name} finds it, {table.systems[others[0]]} misses it"
        order = _WIDEST_GAP
        if misplaced.any():
            order += f"; those with a wrong location ({misplaced.sum():,}) are below"
        key = f"only-{position + 1}"
        kinds.append(_Kind(key, title, order, only & ~misplaced, gap, int(only.sum())))
    return kinds


def _wrong_place(table: _DecisionTable) -> _Kind:
    chosen = (table.label == 1) & table.misplaced.any(axis=1)
    strength = np.where(table.misplaced, table.confidence, 0).max(axis=1, initial=0)
    title = "Right image, wrong location"
    return _Kind("wrong-place", title, "most confident first", chosen, strength)


def _false_alarms(table: _DecisionTable) -> list[_Kind]:
    """Select false alarms, in separate categories for normal, abnormal and other images."""
    alarm = (table.label == 0) & table.called.any(axis=1)
    strength = np.where(table.called, table.confidence, 0).max(axis=1, initial=0)
    normal = table.kind == "normal"
    not_normal = table.kind == "not_normal"
    return [
        _Kind(key, title, "highest ranks first", alarm & group, strength)
        for key, title, group in (
            ("alarm-normal", "False alarms on normal images", normal),
            (
                "alarm-not-normal",
                "False alarms on images that are abnormal in another way",
                not_normal,
            ),
            ("alarm-other", "False alarms", ~(normal | not_normal)),
        )
    ]


def _agreement(table: _DecisionTable, count: int, rng: np.random.Generator) -> CaseCategory:
    """Sample images that all systems call rightly, half of them positive and half negative."""
    right = (table.called == (table.label == 1)[:, None]).all(axis=1)
    right &= ~((table.label == 1) & table.misplaced.any(axis=1))
    chance = rng.random(len(table.image_ids))
    sampled: list[int] = []
    counts = []
    for label, size in ((1, (count + 1) // 2), (0, count // 2)):
        members = np.flatnonzero(right & (table.label == label))
        drawn = members[np.argsort(chance[members], kind="stable")][:size]
        sampled += drawn.tolist()
        counts.append(len(drawn))
    n_positive, n_negative = counts
    verb = "is" if len(table.systems) == 1 else "are"
    return CaseCategory(
        key="agreement",
        title=f"{_all_systems(table)} {verb} right",
        order=f"a random sample (positive: {n_positive}, negative: {n_negative})",
        image_ids=tuple(str(table.image_ids[row]) for row in sampled),
        total=int(right.sum()),
    )
