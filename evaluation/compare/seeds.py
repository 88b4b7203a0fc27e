"""Several training seeds of one system: figures are means over them, intervals resample them too.

A replicate of a system with ``S`` seeds is ``mean + sqrt(S / (S - 1)) x (drawn mean - mean)``:
the seeds' figures on the resampled patients, averaged over all seeds, and over ``S`` seeds drawn
with replacement. Without the factor, that of the rescaled bootstrap, so few seeds would look
closer together than they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from data_prep.contracts.errors import InputError
from evaluation.metrics.evaluation_set import Note

if TYPE_CHECKING:
    from data_prep.store.predictions import Predictions
    from evaluation.compare.scorecard import Scorecard
    from evaluation.metrics.evaluation_set import EvaluationSet, MetricKey
    from evaluation.statistics.bootstrap import Resamples
    from evaluation.statistics.ranking import Floats

_OF_SEEDS = 7919
"""Makes the draws of seeds others than those of patients."""


def name_models(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
) -> dict[str, dict[str, Predictions]]:
    """Name every trained model of every system."""
    named: dict[str, dict[str, Predictions]] = {}
    for name, given in systems.items():
        each = list(given) if isinstance(given, Sequence) else [given]
        if not each:
            raise InputError(f"compare: system {name} has no predictions")
        _check_seeds(name, each)
        labels = (
            [name] if len(each) == 1 else [f"{name} #{place + 1}" for place in range(len(each))]
        )
        named[name] = dict(zip(labels, each, strict=True))
    labels = [label for models in named.values() for label in models]
    if len(set(labels)) < len(labels):
        raise InputError("compare: a system is called as a seed of another; rename it")
    return named


def seed_notes(systems: Mapping[str, Sequence[object]]) -> list[Note]:
    """Tell of systems with several seeds; models by system."""
    return [
        Note(
            "seeds",
            f"Figures of {name} are means over {len(models)} training seeds; its curves, "
            "confusion matrices and pictures are those of the first.",
        )
        for name, models in systems.items()
        if len(models) > 1
    ]


def _check_seeds(name: str, members: Sequence[Predictions]) -> None:
    """Refuse the same training twice, which would make a recipe look steadier than it is."""
    ids = [str(member.info.get("inference_id")) for member in members]
    for place, known in enumerate(ids):
        if known in ids[:place]:
            raise InputError(
                f"{members[place].folder}: {name} has these predictions already "
                f"({members[ids.index(known)].folder}); give each training seed once"
            )
    kinds = {member.kind for member in members}
    if len(kinds) > 1:
        raise InputError(
            f"{members[0].folder}: the seeds of {name} are not of one kind "
            f"({' and '.join(sorted(kinds))}); compare them as two systems"
        )


@dataclass(frozen=True)
class SeedMean:
    """The figures of several seeds of one system, as one scorecard.

    Attributes:
        cards: One per seed, on the same images.
    """

    cards: Sequence[Scorecard]

    @property
    def judged(self) -> EvaluationSet:
        """The images."""
        return self.cards[0].judged

    def estimates(self) -> dict[MetricKey, float | None]:
        """Means over the seeds; undefined where any seed's figure is."""
        each = [card.estimates() for card in self.cards]
        means: dict[MetricKey, float | None] = {}
        for figure in dict.fromkeys(name for figures in each for name in figures):
            values = [figures.get(figure) for figures in each]
            known = [value for value in values if value is not None]
            means[figure] = float(np.mean(known)) if len(known) == len(each) else None
        return means

    def missing(self) -> dict[MetricKey, str]:
        """Figures that a seed cannot have, with the reason."""
        return {
            figure: f"seed {place + 1}: {reason}"
            for place, card in enumerate(self.cards)
            for figure, reason in card.missing().items()
        }


def mean_replicates(
    drawn: Mapping[tuple[str, int, MetricKey], Floats],
    seeds: Mapping[str, int],
    resamples: Resamples,
) -> dict[tuple[str, MetricKey], Floats]:
    """Replicates per system out of those per model.

    Source:
        Field and Welsh 2007, resampling both levels; Rao and Wu 1988, the factor.
    """
    joined: dict[tuple[str, MetricKey], Floats] = {}
    for place, (name, count) in enumerate(seeds.items()):
        keys = [key for system, seed, key in drawn if system == name and not seed]
        rng = np.random.default_rng([resamples.seed, _OF_SEEDS, place])
        shares = rng.multinomial(count, np.full(count, 1 / count), resamples.n_replicates) / count
        for key in keys:
            parts = [drawn.get((name, seed, key)) for seed in range(count)]
            known = [part for part in parts if part is not None]
            if len(known) < count:
                continue
            if count == 1:
                joined[name, key] = known[0]
                continue
            values = np.stack(known, axis=1)  # (R, seeds)
            mean = values.mean(axis=1)
            factor = np.sqrt(count / (count - 1))
            joined[name, key] = mean + factor * ((shares * values).sum(axis=1) - mean)
    return joined
