"""Test images by what came of them: cases that a reader should see, and all images of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

CASES_PER_KIND = 4
MISSED_BY_ALL = "No system calls it positive"
MOST_CASES = 20
"""Largest number of cases of all kinds together; with many kinds, each has fewer."""


class Cases(NamedTuple):
    """Test images with one kind of outcome; `total` counts those that are not shown, too.

    `n_boxed` counts those of `total` where it is known if the point of the one system that calls
    them positive lies on a lesion, and `on_lesion` those where it does; 0 for other kinds.
    """

    kind: str
    image_ids: tuple[str, ...]
    total: int
    n_boxed: int = 0
    on_lesion: int = 0


class ImageKind(NamedTuple):
    """Test images of one kind, the worst first; `key` names the kind in addresses of a page."""

    key: str
    title: str
    image_ids: tuple[str, ...]

    def named(self, names: Mapping[str, str]) -> ImageKind:
        """Return the kind with other names of its images, empty for an image without one."""
        return self._replace(image_ids=tuple(names.get(image, "") for image in self.image_ids))


def missed_key(name: str) -> str:
    """Return the key of the positive images that a system calls negative."""
    return f"missed-{name}"


def false_alarm_key(name: str) -> str:
    """Return the key of the negative images that a system calls positive."""
    return f"false-alarms-{name}"


def image_kinds(
    label: pd.Series, called: pd.DataFrame, score: pd.DataFrame, located: pd.DataFrame
) -> list[ImageKind]:
    """Return the images that each system decides wrongly, those in dispute, and the right ones.

    All are by image id, and the tables by system: True where it calls an image positive, its
    score, and True where its point lies on a lesion (missing where that is unknown). Systems that
    decide nothing, and images without a label or a decision, are left out; right images come in
    random order.
    """
    called = called.dropna(axis="columns", how="all").dropna().astype(bool)
    label = label.loc[called.index].dropna() >= 1
    called = called.loc[label.index]
    names = list(called.columns)
    if called.empty:
        return []
    score = score.loc[called.index, names].astype("Float64")
    located = located.loc[called.index, names].astype("boolean")
    wrong = called & located.eq(False).fillna(False).astype(bool)
    rank = score.rank(pct=True)
    kinds = []
    for name in names:
        missed = label & ~called[name]
        kinds.append((missed_key(name), f"Missed by {name}", missed, -score[name]))
    for name in names:
        alarm = ~label & called[name]
        kinds.append((false_alarm_key(name), f"False alarms of {name}", alarm, score[name]))
    for name in names:
        place = label & wrong[name]
        kinds.append((f"elsewhere-{name}", f"{name} points elsewhere", place, score[name]))
    gap = rank.max(axis=1) - rank.min(axis=1)
    kinds.append(("disagree", "The systems disagree", called.nunique(axis=1) > 1, gap))
    right = called.eq(label, axis=0).all(axis=1) & ~(wrong.any(axis=1) & label)
    chance = pd.Series(np.random.default_rng(0).random(len(label)), label.index)
    kinds.append(("right", "All are right" if len(names) > 1 else "Right", right, chance))
    return [
        ImageKind(key, title, tuple(map(str, worst.index)))
        for key, title, chosen, strength in kinds
        if len(worst := strength[chosen].sort_values(ascending=False, kind="stable"))
    ]


def select_cases(
    decisions: pd.DataFrame,
    systems: Sequence[str],
    policy: str,
    *,
    alone: Sequence[str] | None = None,
    per_kind: int = CASES_PER_KIND,
    seed: int = 0,
) -> list[Cases]:
    """Select example images: misses, wrong places, false alarms, and right decisions.

    The most confident errors come first, by the rank of a score among the scores of its system,
    because scores of two systems have no common scale; of those that one system finds alone, the
    ones with boxes come before the others. An image is shown once, with the first of its kinds.
    `systems` are those that join no others; systems without decisions are left out.
    What one system alone calls positive is a kind for those of `alone`, or for all.
    """
    column = f"decision_{policy}"
    if column not in decisions:
        return []
    rows = decisions.dropna(subset=["label", column])
    called = rows.pivot(index="image_id", columns="system", values=column)
    called = called[[name for name in systems if name in called]].dropna().astype(bool)
    if called.empty:
        return []
    wide = rows.pivot(index="image_id", columns="system", values="score").loc[called.index]
    rank = wide[called.columns].rank(pct=True)
    label = rows.drop_duplicates("image_id").set_index("image_id")["label"].loc[called.index] >= 1
    located = called.astype("boolean").mask(called.notna())  # unknown
    if "localised" in rows:
        located = rows.pivot(index="image_id", columns="system", values="localised")
        located = located.loc[called.index, called.columns].astype("boolean")
    wrong = called & located.eq(False).fillna(False).astype(bool)
    finders = [name for name in systems if name in called and (alone is None or name in alone)]
    kinds = list(_kinds(called, finders, rank, label, wrong, np.random.default_rng(seed)))
    shown: set[str] = set()
    cases = []
    count = min(per_kind, max(1, MOST_CASES // sum(chosen.any() for _, chosen, _ in kinds)))
    for kind, chosen, strength in kinds:
        left = strength[chosen].drop(list(shown), errors="ignore")
        left = left.sort_values(ascending=False, kind="stable")
        finder = next((name for name in systems if kind == _only(name)), None)
        points = located.loc[chosen, finder].dropna() if finder else pd.Series(dtype="boolean")
        boxed_first = np.argsort(~left.index.isin(points.index), kind="stable")
        picked = tuple(map(str, left.index[boxed_first][:count]))
        shown |= set(picked)
        if picked:
            total = int(chosen.sum())
            cases.append(Cases(kind, picked, total, len(points), int(points.sum())))
    return cases


def _only(name: str) -> str:
    """Return the kind of the images that one system alone calls positive."""
    return f"Only {name} calls it positive"


def _kinds(
    called: pd.DataFrame,
    finders: Sequence[str],
    rank: pd.DataFrame,
    label: pd.Series,
    wrong: pd.DataFrame,
    rng: np.random.Generator,
) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """Yield each kind of outcome with its images, and their strength: the highest come first."""
    several = called.shape[1] > 1
    for name in finders if several else ():
        others = called.drop(columns=name).any(axis=1)
        gap = rank[name] - rank.drop(columns=name).mean(axis=1)
        yield _only(name), label & called[name] & ~others, gap
    yield MISSED_BY_ALL if several else "Missed", label & ~called.any(axis=1), -rank.mean(axis=1)
    found_wrong = label & wrong.any(axis=1)
    yield "Called positive, points elsewhere", found_wrong, rank.where(wrong).max(axis=1)
    alarm = ~label & called.any(axis=1)
    yield "False alarms", alarm, rank.where(called).max(axis=1)
    right = called.eq(label, axis=0).all(axis=1) & ~found_wrong
    # Positive and negative images in turn, each in random order.
    chance = pd.Series(rng.random(len(right)), right.index)
    turn = chance[right].groupby(label[right]).rank() - 0.5 * label[right]
    yield "All are right" if several else "Right", right, -turn.reindex(right.index)
