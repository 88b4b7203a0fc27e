"""Test images by what came of them: the kinds of errors, what is right, and examples of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import counted

MOST_CASES = 28
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
    def of(cls, decisions: pd.DataFrame, systems: Sequence[str], decision: str) -> Outcomes:
        """Read a table with a row for each image and system, decided in the column `decision`.

        Systems that decide nothing are left out, and images without a label or a decision.
        """
        label = decisions.drop_duplicates("image_id").set_index("image_id")["label"]
        called, score, located = (
            decisions.reindex(columns=["image_id", "system", name])
            .pivot(index="image_id", columns="system", values=name)
            .reindex(columns=[*systems])
            for name in (decision, "score", "localised")
        )
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


class ImageKind(NamedTuple):
    """Test images of one kind, the worst first.

    Attributes:
        key: Name of the kind in addresses of a page.
        sign: ``positive`` or ``negative`` if only such images can be of the kind; else empty.
        system: System that the kind is of; empty for a kind of all systems.
    """

    key: str
    title: str
    image_ids: tuple[str, ...]
    sign: str = ""
    system: str = ""

    @classmethod
    def of(
        cls, key: str, title: str, strength: pd.Series, sign: str = "", system: str = ""
    ) -> ImageKind:
        """Return a kind of the images that have a strength, the strongest first."""
        worst_first = strength.sort_values(ascending=False, kind="stable")
        return cls(key, title, tuple(map(str, worst_first.index)), sign, system)


def image_kinds(of: Outcomes) -> list[ImageKind]:
    """Return the kinds of images that occur: errors, and what all systems decide rightly.

    The most confident errors come first, by the rank of a score; of what one system finds alone,
    the images where it is known if its point lies on a lesion come before the others. Of the right
    ones, positive and negative images come in turn, each in random order.
    """
    return [] if of.called.empty else [kind for kind in _kinds(of) if kind.image_ids]


def _kinds(of: Outcomes) -> Iterator[ImageKind]:
    """Yield all kinds, also those without images."""
    label, called, rank, beside = of.label, of.called, of.rank, of.beside
    names = list(called.columns)
    number = len(names)
    all_systems = "both" if number == 2 else f"all {number}"
    for name in names if number > 1 else ():
        others = called.drop(columns=name)
        rest = f"{others.columns[0]} no" if number == 2 else f"the other {number - 1} no"
        gap = (rank[name] - rank.drop(columns=name).mean(axis=1)).fillna(0)
        gap += 2 * of.located[name].notna()  # more than any difference of ranks
        found = gap[label & called[name] & ~others.any(axis=1)]
        yield ImageKind.of(f"only-{name}", f"{name} yes, {rest}", found, "positive", name)
    missed = label & ~called.any(axis=1)
    title = f"Missed by {all_systems}" if number > 1 else "Missed"
    yield ImageKind.of("missed", title, -rank.mean(axis=1)[missed], "positive")
    elsewhere = beside.any(axis=1)
    sureness = rank.where(beside).max(axis=1)
    yield ImageKind.of("elsewhere", "Called, off the lesion", sureness[elsewhere], "positive")
    for name in names:
        alarms = rank.loc[~label & called[name], name]
        yield ImageKind.of(
            f"false-alarms-{name}", f"False alarms of {name}", alarms, "negative", name
        )
    is_right = called.eq(label, axis="index").all(axis=1)
    title = f"{all_systems.capitalize()} right" if number > 1 else "Right"
    if (is_right & elsewhere).any():  # which the confusion matrices count as right
        title += ", none off the lesion"
    is_right &= ~elsewhere
    chance = pd.Series(np.random.default_rng(0).random(len(label)), label.index)[is_right]
    turn = chance.groupby(label[is_right]).rank() - 0.5 * label[is_right]
    yield ImageKind.of("right", title, -turn)


def select_cases(of: Outcomes, kinds: Sequence[ImageKind], per_kind: int) -> pd.DataFrame:
    """Select the first images of each kind; an image is shown once, with the first of its kinds.

    Returns:
        A row an image: ``kind``, ``image_id``, ``of`` (the number of all images of the kind),
        ``among`` (of which images these are), and for a kind of one system ``n_boxed``, the number
        of these where it is known if its point lies on a lesion, and ``on_lesion``, that of those
        where it does; else 0.
    """
    n_images, n_positive = len(of.label), int(of.label.sum())
    among = {
        "positive": f"{n_positive:,} positive",
        "negative": f"{n_images - n_positive:,} negative",
        "": counted(n_images, "image"),
    }
    count = min(per_kind, max(1, MOST_CASES // max(len(kinds), 1)))
    shown: set[str] = set()
    rows = []
    for kind in kinds:
        picked = [image for image in kind.image_ids if image not in shown][:count]
        shown |= {*picked}
        points = pd.Series(dtype="boolean")
        if kind.system:
            points = of.located.loc[[*kind.image_ids], kind.system].dropna()
        numbers = len(kind.image_ids), among[kind.sign], len(points), int(points.sum())
        rows += [(kind.title, image, *numbers) for image in picked]
    return pd.DataFrame(rows, columns=["kind", "image_id", "of", "among", "n_boxed", "on_lesion"])
