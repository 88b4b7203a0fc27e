"""Test images by what came of them: cases that a reader should see, and all images of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.evaluation.verdict.prose import listing

CASES_PER_KIND = 4
_ELSEWHERE, _ALARMS = "Called, beside the lesion", "False alarms"
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


class CaseTitles(NamedTuple):
    """Titles of the kinds of cases; `only` has that of what each system alone calls positive."""

    only: dict[str, str]
    missed: str
    elsewhere: str
    false_alarms: str
    right: str


class ImageKind(NamedTuple):
    """Test images of one kind, the worst first; `key` names the kind in addresses of a page."""

    key: str
    title: str
    image_ids: tuple[str, ...]

    def named(self, names: Mapping[str, str]) -> ImageKind:
        """Return the kind with other names of its images, empty for an image without one."""
        return self._replace(image_ids=tuple(names.get(image, "") for image in self.image_ids))


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
        kinds.append((f"missed-{name}", f"Missed by {name}", missed, -score[name]))
    for name in names:
        alarm = ~label & called[name]
        kinds.append((f"false-alarms-{name}", f"False alarms of {name}", alarm, score[name]))
    for name in names:
        place = label & wrong[name]
        kinds.append(
            (f"elsewhere-{name}", f"{name}: called, beside the lesion", place, score[name])
        )
    gap = rank.max(axis=1) - rank.min(axis=1)
    kinds.append(("disagree", "The systems disagree", called.nunique(axis=1) > 1, gap))
    title, right = _right(case_titles(names, has_joint=False).right, label, called, wrong)
    chance = pd.Series(np.random.default_rng(0).random(len(label)), label.index)
    kinds.append(("right", title, right, chance))
    return [
        ImageKind(key, title, tuple(map(str, worst.index)))
        for key, title, chosen, strength in kinds
        if len(worst := strength[chosen].sort_values(ascending=False, kind="stable"))
    ]


def _right(
    title: str, label: pd.Series, called: pd.DataFrame, wrong: pd.DataFrame
) -> tuple[str, pd.Series]:
    """Return title and images of right decisions; the title says if wrong places are left out.

    These count as right in the confusion matrices, beside which the number of images stands.
    """
    right = called.eq(label, axis=0).all(axis=1)
    elsewhere = label & wrong.any(axis=1)
    left_out = ", and on the lesion" if (right & elsewhere).any() else ""
    return f"{title}{left_out}", right & ~elsewhere


def case_titles(names: Sequence[str], *, has_joint: bool) -> CaseTitles:
    """Return the titles of cases of systems that join no others.

    Beside a joint system, whose answers no kind counts, the titles say whose answers they mean.
    """
    names = list(names)
    if len(names) == 1:
        return CaseTitles({}, "Missed", _ELSEWHERE, _ALARMS, "Right")
    missed = "Neither says positive" if len(names) == 2 else "None says positive"
    right = "Both right" if len(names) == 2 else "All right"
    if not has_joint:
        only = {name: f"Only {name} says positive" for name in names}
        return CaseTitles(only, missed, _ELSEWHERE, _ALARMS, right)
    if len(names) == 2:
        of = " or ".join(names)
        only = {name: f"{name} positive, {other} not" for name, other in (names, names[::-1])}
        missed, right = f"Missed by {listing(names)}", f"{listing(names)} right"
    else:
        of = "a single system"
        only = {name: f"Only {name} of the single systems says positive" for name in names}
        missed, right = "Missed by all single systems", "All single systems right"
    return CaseTitles(only, missed, f"{_ELSEWHERE}: {of}", f"{_ALARMS} of {of}", right)


def select_cases(
    decisions: pd.DataFrame,
    systems: Sequence[str],
    policy: str,
    *,
    alone: Sequence[str] | None = None,
    has_joint: bool = False,
    per_kind: int = CASES_PER_KIND,
    seed: int = 0,
) -> list[Cases]:
    """Select example images: misses, wrong places, false alarms, and right decisions.

    The most confident errors come first, by the rank of a score among the scores of its system,
    because scores of two systems have no common scale; of those that one system finds alone, the
    ones with boxes come before the others. An image is shown once, with the first of its kinds.
    `systems` are those that join no others; systems without decisions are left out.
    What one system alone calls positive is a kind for those of `alone`, or for all. `has_joint`
    says that a system beside them joins some.
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
    titles = case_titles(list(called.columns), has_joint=has_joint)
    finders = {title: name for name, title in titles.only.items() if alone is None or name in alone}
    rng = np.random.default_rng(seed)
    kinds = list(_kinds(called, finders, titles, rank, label, wrong, rng))
    shown: set[str] = set()
    cases = []
    count = min(per_kind, max(1, MOST_CASES // sum(chosen.any() for _, chosen, _ in kinds)))
    for kind, chosen, strength in kinds:
        left = strength[chosen].drop(list(shown), errors="ignore")
        left = left.sort_values(ascending=False, kind="stable")
        points = pd.Series(dtype="boolean")
        if kind in finders:
            points = located.loc[chosen, finders[kind]].dropna()
        boxed_first = np.argsort(~left.index.isin(points.index), kind="stable")
        picked = tuple(map(str, left.index[boxed_first][:count]))
        shown |= set(picked)
        if picked:
            total = int(chosen.sum())
            cases.append(Cases(kind, picked, total, len(points), int(points.sum())))
    return cases


def further_errors(
    decisions: pd.DataFrame, systems: Sequence[str], policy: str, shown: Sequence[str]
) -> list[str]:
    """Return the images that some system decides wrongly, the surest errors first; not `shown`.

    How sure an error is follows from the rank of its score among those of its system.
    """
    column = f"decision_{policy}"
    rows = decisions[decisions["system"].isin(systems)].dropna(subset=["label", column])
    positive = rows["label"] >= 1
    sure = (rows.groupby("system")["score"].rank(pct=True) - positive).abs()
    wrong = rows.assign(sure=sure)[positive != rows[column].astype(bool)]
    order = wrong.groupby("image_id")["sure"].max().sort_values(ascending=False, kind="stable")
    return [image for image in map(str, order.index) if image not in {*shown}]


def _kinds(
    called: pd.DataFrame,
    finders: Mapping[str, str],
    titles: CaseTitles,
    rank: pd.DataFrame,
    label: pd.Series,
    wrong: pd.DataFrame,
    rng: np.random.Generator,
) -> Iterator[tuple[str, pd.Series, pd.Series]]:
    """Yield each kind of outcome with its images, and their strength: the highest come first."""
    for title, name in finders.items():
        others = called.drop(columns=name).any(axis=1)
        gap = rank[name] - rank.drop(columns=name).mean(axis=1)
        yield title, label & called[name] & ~others, gap
    yield titles.missed, label & ~called.any(axis=1), -rank.mean(axis=1)
    found_wrong = label & wrong.any(axis=1)
    yield titles.elsewhere, found_wrong, rank.where(wrong).max(axis=1)
    alarm = ~label & called.any(axis=1)
    yield titles.false_alarms, alarm, rank.where(called).max(axis=1)
    title, right = _right(titles.right, label, called, wrong)
    # Positive and negative images in turn, each in random order.
    chance = pd.Series(rng.random(len(right)), right.index)
    turn = chance[right].groupby(label[right]).rank() - 0.5 * label[right]
    yield title, right, -turn.reindex(right.index)
