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

if TYPE_CHECKING:
    from data_prep.store.predictions import Predictions
    from evaluation.compare.scorecard import Scorecard
    from evaluation.metrics.evaluation_set import JudgedImages, MetricKey
    from evaluation.statistics.bootstrap import Resamples
    from evaluation.statistics.ranking import Floats

_OF_SEEDS = 7919
"""Makes the draws of seeds others than those of patients."""


def members_of(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
) -> tuple[dict[str, Predictions], dict[str, list[str]]]:
    """Name every trained model that takes part.

    Args:
        systems: By display name one set of predictions, or one per training seed.

    Returns:
        The predictions by the model's name (that of the system where it has one seed), and per
        system the names of its models.

    Raises:
        InputError: A system has no predictions, gives the same seed twice, or its seeds are not
            of one kind.
    """
    members: dict[str, Predictions] = {}
    teams: dict[str, list[str]] = {}
    for name, given in systems.items():
        each = list(given) if isinstance(given, Sequence) else [given]
        if not each:
            raise InputError(f"compare: system {name} has no predictions")
        _check_seeds(name, each)
        labels = (
            [name] if len(each) == 1 else [f"{name} #{place + 1}" for place in range(len(each))]
        )
        members |= dict(zip(labels, each, strict=True))
        teams[name] = labels
    if len(members) < sum(map(len, teams.values())):
        raise InputError("compare: a system is called as a seed of another; rename it")
    return members, teams


def by_system(
    cards: Mapping[str, Scorecard], teams: Mapping[str, list[str]]
) -> dict[str, list[Scorecard]]:
    """The scorecards of each system's models, in the order of its seeds."""
    return {name: [cards[model] for model in models] for name, models in teams.items()}


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
    def judged(self) -> JudgedImages:
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
    drawn: Mapping[tuple[str, MetricKey], Floats],
    teams: Mapping[str, list[str]],
    resamples: Resamples,
) -> dict[tuple[str, MetricKey], Floats]:
    """Replicates per system out of those per model.

    Args:
        drawn: Values of each model's figures on the same resamples of patients, shape ``(R,)``.
        teams: The models of each system.
        resamples: How the patients were drawn.

    Returns:
        By system and figure, shape ``(R,)``.

    Source:
        Field and Welsh 2007, resampling both levels; Rao and Wu 1988, the factor.
    """
    joined: dict[tuple[str, MetricKey], Floats] = {}
    for place, (name, models) in enumerate(teams.items()):
        figures = [figure for model, figure in drawn if model == models[0]]
        count = len(models)
        rng = np.random.default_rng([resamples.seed, _OF_SEEDS, place])
        shares = rng.multinomial(count, np.full(count, 1 / count), resamples.n_replicates) / count
        for figure in figures:
            parts = [drawn.get((model, figure)) for model in models]
            known = [part for part in parts if part is not None]
            if len(known) < count:
                continue
            if count == 1:
                joined[name, figure] = known[0]
                continue
            values = np.stack(known, axis=1)  # (R, seeds)
            mean = values.mean(axis=1)
            factor = np.sqrt(count / (count - 1))
            joined[name, figure] = mean + factor * ((shares * values).sum(axis=1) - mean)
    return joined
