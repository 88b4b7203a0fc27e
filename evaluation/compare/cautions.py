"""What may make an answer wrong: leaks, chance, guesses without the lungs, data of another kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from data_prep.audit.audit import split_errors
from data_prep.store.predictions import Predictions
from evaluation.compare.estimates import Estimates, row_interval
from evaluation.decisions.test_set import TestSet
from evaluation.metrics.evaluation_set import Note
from evaluation.metrics.words import ends_words, listing, number
from evaluation.systems.eligibility import training_sets
from evaluation.systems.shortcuts import BEYOND_SHORTCUT, SHORTCUT

_CHANCE = 0.5


@dataclass(frozen=True)
class Background:
    """What is known of the data behind a comparison.

    Attributes:
        data_name: Name of the data set that systems are judged on.
        synthetic: How many of the judged images are synthetic.
        audit: Errors that ``cxr check`` found, of the whole set or of the split that is judged;
            `None` where it has not looked at that split.
        elsewhere: Per system the other data sets that it was trained on; none of those unknown.
    """

    data_name: str = ""
    synthetic: int = 0
    audit: tuple[str, ...] | None = None
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        test_set: TestSet,
        image_ids: pd.Index,
        systems: Mapping[str, Mapping[str, Predictions]],
    ) -> Background:
        """Read it from the data set's folder and from the predictions."""
        dataset, images = test_set.dataset, test_set.images
        judged = images["image_id"].isin(image_ids).to_numpy()
        here = dataset.ids["content_id"]
        errors = split_errors(dataset, test_set.split)
        trained_on = {
            name: [
                title
                for model in models.values()
                for title, content in training_sets(model)
                if content != here
            ]
            for name, models in systems.items()
        }
        return cls(
            data_name=dataset.name,
            synthetic=int((dataset.synthetic.to_numpy() & judged).sum()),
            audit=None if errors is None else tuple(problem.said for problem in errors),
            elsewhere={
                name: tuple(dict.fromkeys(titles)) for name, titles in trained_on.items() if titles
            },
        )

    @property
    def audit_words(self) -> str:
        """What the audit says of the roles of patients and images.

        Example:
            >>> Background(audit=()).audit_words
            'each patient has one role (cxr check found no error)'
        """
        if self.audit is None:
            return "whether each patient has one role was not checked (run cxr check)"
        if not self.audit:
            return "each patient has one role (cxr check found no error)"
        return f"the audit found errors: {'; '.join(self.audit)}"


def cautions(
    background: Background,
    figures: Estimates,
    failures: pd.DataFrame,
    notes: Sequence[Note] = (),
) -> tuple[str, ...]:
    """What may make the answer wrong, the most harmful first; of the notes their cautions."""
    parts = [
        f"The audit of this data set found an error: {error}." for error in background.audit or ()
    ]
    if background.data_name and background.audit is None:
        parts.append(
            "Whether a patient is in both training and test data was not checked (run cxr check)."
        )
    parts += _against_chance(figures)
    parts += _against_shortcuts(failures)
    parts += _trained_elsewhere(background)
    if background.synthetic:
        parts.append("Synthetic images: the figures say nothing about patients.")
    parts += [note.text for note in notes if note.caution]
    return tuple(parts)


def _against_chance(figures: Estimates) -> list[str]:
    """Systems whose AUROC's interval holds 0.5, or lies below it."""
    aurocs = {name: figures.of(name, "auroc") for name in figures.systems}
    bounded = {name: auroc for name, auroc in aurocs.items() if auroc.bounded}
    groups = {
        "not shown to be better than chance": [
            name for name, auroc in bounded.items() if auroc.low <= _CHANCE <= auroc.high
        ],
        "worse than chance": [name for name, auroc in bounded.items() if auroc.high < _CHANCE],
    }
    parts = []
    for said, names in groups.items():
        values = [
            f"{name} ({number(aurocs[name].estimate)}, 95 % interval {ends_words(aurocs[name])})"
            for name in names
        ]
        if values:
            were = "was" if len(values) == 1 else "were"
            parts.append(f"By AUROC, {listing(values)} {were} {said} (0.5).")
    return parts


def _against_shortcuts(failures: pd.DataFrame) -> list[str]:
    """Systems that were not shown to exceed the label predicted from metadata and image borders."""
    if failures.empty:
        return []
    gaps = failures[failures["topic"] == BEYOND_SHORTCUT]
    if gaps.empty:
        return []
    fact = str(gaps["group"].iloc[0])
    of_fact = failures[(failures["topic"] == SHORTCUT) & (failures["group"] == fact)]
    guess = row_interval(of_fact.iloc[0])
    values = []
    for _, row in gaps.iterrows():
        gap = row_interval(row)
        if gap.excludes_zero and gap.estimate > 0:
            continue
        tested = f", 95 % interval {ends_words(gap)}" if gap.bounded else ", not tested"
        values.append(f"{row['system']} (difference {number(gap.estimate)}{tested})")
    if not values:
        return []
    were = "was" if len(values) == 1 else "were"
    return [
        f"The label can be predicted without the lungs, from {fact}, with AUROC "
        f"{number(guess.estimate)} (5-fold, by patient); on the same pairs of images, those of one "
        f"fold, {listing(values)} {were} not shown to exceed that."
    ]


def _trained_elsewhere(background: Background) -> list[str]:
    """Systems that were trained on other data than they are judged on, one sentence."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, sets in background.elsewhere.items():
        groups.setdefault(sets, []).append(name)
    here = background.data_name
    said = [
        f"{listing(names)} {'was' if len(names) == 1 else 'were'} trained on data set "
        + listing([f"“{title}”" + " (other images)" * (title == here) for title in sets])
        for sets, names in groups.items()
    ]
    return [f"{'; '.join(said)}; judged on “{here}”."] if said else []
