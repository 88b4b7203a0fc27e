"""Test images by what came of them: cases that a reader should see, and all images of a kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import counted

CASES_PER_KIND = 4
_ELSEWHERE, _ALARMS = "Called, off the lesion", "False alarms"
MOST_CASES = 20
"""Largest number of cases of all kinds together; with many kinds, each has fewer."""


@dataclass(frozen=True)
class Outcomes:
    """Outcomes of the test images of known label that all of some systems decide.

    Attributes:
        label: True for a positive image, by image id.
        called: True where a system (column) calls an image positive.
        score: Score of each system.
        located: True where the point of a system lies on a lesion; missing where that is unknown.
    """

    label: pd.Series
    called: pd.DataFrame
    score: pd.DataFrame
    located: pd.DataFrame

    @classmethod
    def of(cls, decisions: pd.DataFrame, systems: Sequence[str], policy: str) -> Outcomes:
        """Read the table of decisions; systems without decisions are left out."""
        label = decisions.drop_duplicates("image_id").set_index("image_id")["label"]
        wide = (
            decisions.reindex(columns=["image_id", "system", name])
            .pivot(index="image_id", columns="system", values=name)
            .reindex(columns=[*systems])
            for name in (f"decision_{policy}", "score", "localised")
        )
        return cls.of_tables(label, *wide)

    @classmethod
    def of_tables(
        cls, label: pd.Series, called: pd.DataFrame, score: pd.DataFrame, located: pd.DataFrame
    ) -> Outcomes:
        """Leave out systems that decide nothing, and images without a label or a decision."""
        called = called.dropna(axis="columns", how="all").dropna().astype(bool)
        called = called.loc[label.reindex(called.index).notna()]
        score, located = (each.reindex_like(called) for each in (score, located))
        positive = label.loc[called.index] >= 1
        return cls(positive, called, score.astype("Float64"), located.astype("boolean"))

    @property
    def rank(self) -> pd.DataFrame:
        """Rank of each score among those of its system: scores of two have no common scale."""
        return self.score.rank(pct=True)

    @property
    def beside(self) -> pd.DataFrame:
        """True where a system calls a positive image and points beside its lesion."""
        wrong = self.called & self.located.eq(False).fillna(False).astype(bool)
        return wrong.mul(self.label, axis="index")

    @property
    def errors(self) -> list[str]:
        """Images that some system decides wrongly, the surest errors first."""
        sure = self.rank.sub(self.label.astype(float), axis="index").abs()
        wrong = sure.where(self.called.ne(self.label, axis="index")).max(axis=1).dropna()
        return [*map(str, wrong.sort_values(ascending=False, kind="stable").index)]

    def right(self, title: str) -> tuple[str, pd.Series]:
        """Return title and images of right decisions; the title says if places are left out.

        These count as right in the confusion matrices, beside which the number of images stands.
        """
        right = self.called.eq(self.label, axis="index").all(axis=1)
        elsewhere = self.beside.any(axis=1)
        left_out = ", none off the lesion" if (right & elsewhere).any() else ""
        return f"{title}{left_out}", right & ~elsewhere


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


def image_kinds(of: Outcomes) -> list[ImageKind]:
    """Return the images that each system decides wrongly, those in dispute, and the right ones.

    Right images come in random order.
    """
    label, called, score = of.label, of.called, of.score
    names = list(called.columns)
    if called.empty:
        return []
    kinds = []
    for name in names:
        missed = label & ~called[name]
        kinds.append((f"missed-{name}", f"Missed by {name}", missed, -score[name]))
    for name in names:
        alarm = ~label & called[name]
        kinds.append((f"false-alarms-{name}", f"False alarms of {name}", alarm, score[name]))
    for name in names:
        title = f"{name}: called, off the lesion"
        kinds.append((f"elsewhere-{name}", title, of.beside[name], score[name]))
    gap = of.rank.max(axis=1) - of.rank.min(axis=1)
    kinds.append(("disagree", "The systems disagree", called.nunique(axis=1) > 1, gap))
    chance = pd.Series(np.random.default_rng(0).random(len(label)), label.index)
    kinds.append(("right", *of.right(case_titles(names, has_joint=False).right), chance))
    return [
        ImageKind(key, title, tuple(map(str, worst.index)))
        for key, title, chosen, strength in kinds
        if len(worst := strength[chosen].sort_values(ascending=False, kind="stable"))
    ]


def case_titles(names: Sequence[str], *, has_joint: bool) -> CaseTitles:
    """Return the titles of cases of systems that join no others.

    Beside a joint system, whose answers no kind counts, the titles say whose answers they mean.
    """
    names = list(names)
    if len(names) == 1:
        return CaseTitles({}, "Missed", _ELSEWHERE, _ALARMS, "Right")
    if len(names) == 2:
        only = {name: f"{name} yes, {other} no" for name, other in (names, names[::-1])}
        of, missed, right = " or ".join(names), "Missed by both", "Both right"
    else:
        single = " single" if has_joint else ""
        only = {name: f"{name} yes, all other{single} systems no" for name in names}
        of, missed = f"a{single} system", f"Missed by all{single} systems"
        right = f"All{single} systems right"
    if not has_joint:
        return CaseTitles(only, missed, _ELSEWHERE, _ALARMS, right)
    return CaseTitles(only, missed, f"{_ELSEWHERE}: {of}", f"{_ALARMS} of {of}", right)


def select_cases(
    of: Outcomes,
    *,
    alone: Sequence[str] | None = None,
    has_joint: bool = False,
    per_kind: int = CASES_PER_KIND,
    seed: int = 0,
) -> pd.DataFrame:
    """Select example images: misses, wrong places, false alarms, and right decisions.

    The most confident errors come first, by the rank of a score; of those that one system finds
    alone, the ones with boxes come before the others. An image is shown once, with the first of its
    kinds. What one system alone calls positive is a kind for those of `alone`, or for all.
    `has_joint` says that a system beside them joins some.

    Returns:
        A row an image: ``kind``, ``image_id``, ``of`` (the number of all images of the kind),
        ``among`` (of which images these are), and for what one system alone calls positive
        ``n_boxed``, the number of these where it is known if its point lies on a lesion, and
        ``on_lesion``, that of those where it does; else 0.
    """
    titles = case_titles(list(of.called.columns), has_joint=has_joint)
    finders = {title: name for name, title in titles.only.items() if alone is None or name in alone}
    kinds = list(_kinds(of, finders, titles, np.random.default_rng(seed)))
    n_kinds = sum(chosen.any() for *_, chosen, _ in kinds)
    n_images, n_positive = len(of.label), int(of.label.sum())
    numbers_by_sign = {"positive": n_positive, "negative": n_images - n_positive, "": n_images}
    among = {
        sign: f"{number:,} {sign}" if sign else counted(number, "image")
        for sign, number in numbers_by_sign.items()
    }
    count = min(per_kind, max(1, MOST_CASES // max(n_kinds, 1)))
    shown: set[str] = set()
    rows = []
    for kind, sign, chosen, strength in kinds:
        left = strength[chosen].drop(list(shown), errors="ignore")
        left = left.sort_values(ascending=False, kind="stable")
        points = pd.Series(dtype="boolean")
        if kind in finders:
            points = of.located.loc[chosen, finders[kind]].dropna()
        boxed_first = np.argsort(~left.index.isin(points.index), kind="stable")
        picked = [*map(str, left.index[boxed_first][:count])]
        shown |= {*picked}
        numbers = int(chosen.sum()), among[sign], len(points), int(points.sum())
        rows += [(kind, image, *numbers) for image in picked]
    return pd.DataFrame(rows, columns=["kind", "image_id", "of", "among", "n_boxed", "on_lesion"])


def _kinds(
    of: Outcomes,
    finders: Mapping[str, str],
    titles: CaseTitles,
    rng: np.random.Generator,
) -> Iterator[tuple[str, str, pd.Series, pd.Series]]:
    """Yield each kind of outcome, the sign of images that may have it, those that do, the strength.

    The strongest images come first.
    """
    label, called, rank = of.label, of.called, of.rank
    if called.empty:
        return
    for title, name in finders.items():
        others = called.drop(columns=name).any(axis=1)
        gap = rank[name] - rank.drop(columns=name).mean(axis=1)
        yield title, "positive", label & called[name] & ~others, gap
    any_called, any_beside = called.any(axis=1), of.beside.any(axis=1)
    yield titles.missed, "positive", label & ~any_called, -rank.mean(axis=1)
    yield titles.elsewhere, "positive", any_beside, rank.where(of.beside).max(axis=1)
    yield titles.false_alarms, "negative", ~label & any_called, rank.where(called).max(axis=1)
    title, right = of.right(titles.right)
    # Positive and negative images in turn, each in random order.
    chance = pd.Series(rng.random(len(right)), right.index)
    turn = chance[right].groupby(label[right]).rank() - 0.5 * label[right]
    yield title, "", right, -turn.reindex(right.index)
