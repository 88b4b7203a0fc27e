"""Selection of the cases that a reader should see: where each system fails, and a random sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

CASES_PER_CATEGORY = 8
"""Drawn of each kind; the first four stand in the report, the others on linked pages."""


@dataclass(frozen=True)
class CaseCategory:
    """One kind of case."""

    key: str
    title: str
    order: str
    image_ids: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class _DecisionTable:
    """Decisions as arrays: rows are images (sorted), columns systems."""

    image_ids: npt.NDArray[np.object_]
    systems: tuple[str, ...]
    label: npt.NDArray[np.float64]  # (N,)
    called: npt.NDArray[np.bool_]  # (N, S)
    confidence: npt.NDArray[np.float64]  # (N, S) rank of the score within its system, 0 to 1
    misplaced: npt.NDArray[np.bool_]  # (N, S) called positive, and the place is known to be wrong
    kind: npt.NDArray[np.object_]  # (N,) x_class or ""


def select_cases(
    decisions: pd.DataFrame,
    systems: list[str],
    policy: str,
    *,
    per_category: int = CASES_PER_CATEGORY,
    seed: int = 0,
) -> list[CaseCategory]:
    """Pick the gallery's cases at one policy's thresholds.

    Failures come most confident first, by each score's rank within its system (scores of two
    systems have no common scale). Systems without a decision at this policy are left out.
    """
    if f"decision_{policy}" not in decisions:
        return []
    table = _arrange(decisions, systems, policy)
    if not table.systems or not len(table.image_ids):
        return []
    categories = [
        *_misses(table, per_category),
        _wrong_place(table, per_category),
        *_false_alarms(table, per_category),
        _agreement(table, per_category, np.random.default_rng(seed)),
    ]
    return [category for category in categories if category.image_ids]


def disagreement(decisions: pd.DataFrame, systems: list[str]) -> dict[str, float]:
    """How far apart the systems see each image: the range of its ranks, 0 to 1.

    Scores of two systems have no common scale; their ranks within each system do.

    Example:
        >>> frame = pd.DataFrame({"image_id": ["a", "b"] * 2, "system": list("AABB"),
        ...                       "score": [0.1, 0.2, 0.9, 0.3]})
        >>> disagreement(frame, ["A", "B"])
        {'a': 0.5, 'b': 0.5}
    """
    known = decisions[decisions["system"].isin(systems)].drop_duplicates(["image_id", "system"])
    ranks = known.pivot(index="image_id", columns="system", values="score").rank(pct=True)
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
    for column in ("localised", "localised_tolerant"):  # the second excuses a map within its cell
        if column in decided:
            hit = matrix(column).reindex(ids).to_numpy(dtype=object)
            known = ~pd.isna(hit)
            wrong[known] = ~hit[known].astype(bool)
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


def _all(table: _DecisionTable, one: str, two: str, more: str) -> str:
    """Who is meant by all systems, with the words for one, two and more of them."""
    words = {1: f"{table.systems[0]} {one}", 2: f"Both {two}"}
    return words.get(len(table.systems), f"All {more}")


def _misses(table: _DecisionTable, count: int) -> list[CaseCategory]:
    """Positive images that all miss, and those that exactly one system finds."""
    n_found = table.called.sum(axis=1)
    positive = table.label == 1
    title = _all(table, "misses it", "miss it", "miss it")
    missed = positive & (n_found == 0)
    strength = -table.confidence.mean(axis=1)
    categories = [_pick(table, "all-miss", title, missed, strength, count, "lowest scores first")]
    if len(table.systems) == 1:
        return categories
    for position, name in enumerate(table.systems):
        own = table.confidence[:, position]
        only = positive & (n_found == 1) & table.called[:, position]
        only &= ~table.misplaced[:, position]  # those are shown as "wrong place"
        gap = own - (table.confidence.sum(axis=1) - own) / (len(table.systems) - 1)
        key = f"only-{position + 1}"
        title = f"Only {name} finds it"
        categories.append(_pick(table, key, title, only, gap, count, "widest gap in rank first"))
    return categories


def _wrong_place(table: _DecisionTable, count: int) -> CaseCategory:
    chosen = (table.label == 1) & table.misplaced.any(axis=1)
    strength = np.where(table.misplaced, table.confidence, 0).max(axis=1, initial=0)
    title = "Right image, wrong place"
    order = "most confident first"
    return _pick(table, "wrong-place", title, chosen, strength, count, order)


def _false_alarms(table: _DecisionTable, count: int) -> list[CaseCategory]:
    """False alarms, on normal and on abnormal images apart where the set says so."""
    alarm = (table.label == 0) & table.called.any(axis=1)
    strength = np.where(table.called, table.confidence, 0).max(axis=1, initial=0)
    normal = table.kind == "normal"
    not_normal = table.kind == "not_normal"
    groups = (
        ("normal", " on normal images", normal),
        ("not-normal", " on images that are abnormal in another way", not_normal),
        ("other", "", ~(normal | not_normal)),
    )
    order = "highest ranks first"
    return [
        _pick(table, f"alarm-{key}", f"False alarms{on}", alarm & group, strength, count, order)
        for key, on, group in groups
    ]


def _agreement(table: _DecisionTable, count: int, rng: np.random.Generator) -> CaseCategory:
    """A random sample of images that all call rightly, half positive and half negative."""
    right = (table.called == (table.label == 1)[:, None]).all(axis=1)
    right &= ~((table.label == 1) & table.misplaced.any(axis=1))
    chance = rng.random(len(table.image_ids))
    halves: list[int] = []
    counts = []
    for label, size in ((1, (count + 1) // 2), (0, count // 2)):
        members = np.flatnonzero(right & (table.label == label))
        drawn = members[np.argsort(chance[members], kind="stable")][:size]
        halves += drawn.tolist()
        counts.append(len(drawn))
    return CaseCategory(
        "agreement",
        f"{_all(table, 'is right', 'are right', 'are right')}: a random sample",
        f"{counts[0]} positive and {counts[1]} negative, drawn at random with a fixed seed",
        tuple(str(table.image_ids[row]) for row in halves),
        int(right.sum()),
    )


def _pick(
    table: _DecisionTable,
    key: str,
    title: str,
    chosen: npt.NDArray[np.bool_],
    strength: npt.NDArray[np.float64],
    count: int,
    order: str,
) -> CaseCategory:
    """Take the strongest of the chosen images; ties in the order of their ids."""
    members = np.flatnonzero(chosen)
    ranked = members[np.argsort(-strength[members], kind="stable")][:count]
    ids = tuple(str(table.image_ids[row]) for row in ranked)
    return CaseCategory(key, title, order, ids, len(members))
