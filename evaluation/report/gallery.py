"""Choose the cases that a reader should see: where each system fails, and an honest sample."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

CASES_PER_CATEGORY = 8
"""Drawn of each kind; the first four stand in the report, the others on linked pages."""


@dataclass(frozen=True)
class Category:
    """One kind of case.

    Args:
        key: Short name, used in file names and anchors.
        title: What these cases have in common.
        order: How the shown ones were picked, in words.
        image_ids: The cases shown.
        total: How many such cases the test set has.
    """

    key: str
    title: str
    order: str
    image_ids: tuple[str, ...]
    total: int


@dataclass(frozen=True)
class _Table:
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
) -> list[Category]:
    """Pick the gallery's cases at one policy's thresholds.

    Failures come most confident first, by each score's rank within its system (scores of two
    systems have no common scale). Systems without a decision at this policy are left out.

    Args:
        decisions: Columns ``image_id, system, label, score, decision_<policy>`` and, where known,
            ``localised`` and ``x_class``; one row an image and system.
        systems: Which systems, in which order.
        policy: Threshold policy.
        per_category: Cases of each kind.
        seed: Of the random sample of agreement.

    Returns:
        The categories that have a case, in reading order; none where nobody decided.

    Example:
        >>> rows = [("a", "X", 1, 0.9, True), ("a", "Y", 1, 0.1, False)]
        >>> frame = pd.DataFrame(
        ...     rows, columns=["image_id", "system", "label", "score", "decision_max_f1"]
        ... )
        >>> [(each.title, each.image_ids) for each in select_cases(frame, ["X", "Y"], "max_f1")]
        [('Only X finds it', ('a',))]
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

    Args:
        decisions: ``image_id, system, score``.
        systems: Whose ranks.

    Returns:
        By image; 0 where fewer than two systems score it.

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


def _arrange(decisions: pd.DataFrame, systems: list[str], policy: str) -> _Table:
    column = f"decision_{policy}"
    decided = decisions[decisions["label"].notna()]
    names = tuple(
        name for name in systems if decided.loc[decided["system"] == name, column].notna().any()
    )
    decided = decided[decided["system"].isin(names)].drop_duplicates(["image_id", "system"])
    called = decided.pivot(index="image_id", columns="system", values=column).reindex(
        columns=list(names)
    )
    called = called.dropna().sort_index()

    def matrix(name: str) -> pd.DataFrame:
        wide = decided.pivot(index="image_id", columns="system", values=name)
        return wide.reindex(index=called.index, columns=list(names))

    first = decided.drop_duplicates("image_id").set_index("image_id").reindex(called.index)
    calls = called.to_numpy(dtype=bool)
    placed = matrix("localised") if "localised" in decided else called * np.nan
    wrong = placed.map(lambda value: not pd.isna(value) and not bool(value)).to_numpy(dtype=bool)
    kinds = first["x_class"].fillna("") if "x_class" in first else pd.Series("", first.index)
    return _Table(
        image_ids=called.index.to_numpy(dtype=object),
        systems=names,
        label=first["label"].to_numpy(dtype=np.float64),
        called=calls,
        confidence=matrix("score").rank(pct=True).fillna(0.0).to_numpy(dtype=np.float64),
        misplaced=wrong & calls,
        kind=kinds.to_numpy(dtype=object),
    )


def _misses(table: _Table, count: int) -> list[Category]:
    """Positive images that all miss, and those that exactly one system finds."""
    found = table.called.sum(axis=1)
    positive = table.label == 1
    all_miss = {1: f"{table.systems[0]} misses it", 2: "Both miss it"}.get(
        len(table.systems), "All miss it"
    )
    categories = [
        _pick(
            table,
            "all-miss",
            all_miss,
            positive & (found == 0),
            -table.confidence.mean(axis=1),
            count,
            "lowest scores first",
        )
    ]
    if len(table.systems) == 1:
        return categories
    for position, name in enumerate(table.systems):
        only = positive & (found == 1) & table.called[:, position]
        only &= ~table.misplaced[:, position]  # those are shown as "wrong place"
        others = (table.confidence.sum(axis=1) - table.confidence[:, position]) / (
            len(table.systems) - 1
        )
        gap = table.confidence[:, position] - others
        key, title = f"only-{position + 1}", f"Only {name} finds it"
        categories.append(_pick(table, key, title, only, gap, count, "widest gap in rank first"))
    return categories


def _wrong_place(table: _Table, count: int) -> Category:
    chosen = (table.label == 1) & table.misplaced.any(axis=1)
    strength = np.where(table.misplaced, table.confidence, 0).max(axis=1, initial=0)
    title, order = "Right image, wrong place", "most confident first"
    return _pick(table, "wrong-place", title, chosen, strength, count, order)


def _false_alarms(table: _Table, count: int) -> list[Category]:
    """Confident false alarms, on normal and on abnormal images apart where the set says so."""
    alarm = (table.label == 0) & table.called.any(axis=1)
    strength = np.where(table.called, table.confidence, 0).max(axis=1, initial=0)
    groups = [
        ("normal", "Confident false alarms on normal images", table.kind == "normal"),
        (
            "not-normal",
            "Confident false alarms on images that are abnormal in another way",
            table.kind == "not_normal",
        ),
    ]
    rest = ~(groups[0][2] | groups[1][2])
    groups.append(("other", "Confident false alarms", rest))
    order = "most confident first"
    return [
        _pick(table, f"alarm-{key}", title, alarm & group, strength, count, order)
        for key, title, group in groups
    ]


def _agreement(table: _Table, count: int, rng: np.random.Generator) -> Category:
    """A random sample of images that all call rightly, half positive and half negative."""
    right = (table.called == (table.label == 1)[:, None]).all(axis=1)
    right &= ~((table.label == 1) & table.misplaced.any(axis=1))
    chance = rng.random(len(table.image_ids))
    halves = []
    for label, size in ((1, (count + 1) // 2), (0, count // 2)):
        members = np.flatnonzero(right & (table.label == label))
        halves += list(members[np.argsort(chance[members], kind="stable")][:size])
    who = {1: f"{table.systems[0]} is right", 2: "Both are right"}.get(
        len(table.systems), "All are right"
    )
    return Category(
        "agreement",
        f"{who}: a random sample",
        "drawn at random with a fixed seed, half of them positive",
        tuple(str(table.image_ids[row]) for row in halves),
        int(right.sum()),
    )


def _pick(
    table: _Table,
    key: str,
    title: str,
    chosen: npt.NDArray[np.bool_],
    strength: npt.NDArray[np.float64],
    count: int,
    order: str,
) -> Category:
    """Take the strongest of the chosen images; ties in the order of their ids."""
    members = np.flatnonzero(chosen)
    ranked = members[np.argsort(-strength[members], kind="stable")][:count]
    ids = tuple(str(table.image_ids[row]) for row in ranked)
    return Category(key, title, order, ids, len(members))
