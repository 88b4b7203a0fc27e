"""Choices on validation, made again on resampled validation patients.

A threshold is an estimate: other validation patients would give another threshold. Every replicate
of the bootstrap therefore also draws validation patients, the same ones for all systems, and makes
every choice again on them.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.statistics.arrays import Floats, Integers
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap

System = TypeVar("System", bound=Hashable)
_STREAM = 1
"""Random stream of the validation patients, independent of that of the test patients."""


class ValidationChoice(Protocol):
    """Interface of anything chosen on validation images, such as a threshold.

    Other validation patients might have led to another choice. The bootstrap therefore resamples
    the validation patients and makes the choice again on each resample.
    """

    @property
    def patients(self) -> npt.NDArray[np.str_]:
        """Patient of each of the M validation images that the choice was made on, shape ``(M,)``.

        If studies or patients are evaluated instead of images, there is one entry for each of them.
        """

    def refit(self, clusters: Integers, n_clusters: int) -> Callable[[Integers], dict[str, Floats]]:
        """Prepare to make the choice again on weighted patients.

        The bootstrap weights each patient by the number of times that the patient was drawn.

        Args:
            clusters: Patient of each of the M images (studies, patients) as an index from 0, shape
                ``(M,)``.
            n_clusters: Number of patients.

        Returns:
            A function of whole-number patient weights, shape ``(R, n_clusters)``, where each of the
            R rows is one weighting. It returns a dictionary from the name of the choice, such as
            ``max_f1``, to the value that is chosen under the weights of each row, shape ``(R,)``;
            NaN where no value can be chosen.
        """


def choose_again(
    choices: Mapping[System, Sequence[ValidationChoice]], resamples: Resamples
) -> dict[System, dict[str, Floats]]:
    """Make the choices of all systems again on the same resamples of the validation patients.

    A system is a detector, a classifier or a reader; a choice is, for example, its threshold. Other
    validation patients might have led to other choices.

    Args:
        choices: For each system, the choices that it made on validation images, such as thresholds
            or a rule for boxes.
        resamples: Number R of resamples of the patients, and their random seed.

    Returns:
        For each system, a dictionary from the name of the choice, such as ``max_f1``, to the value
        that is chosen on every resample, shape ``(R,)``; NaN where no value can be chosen.

    Example:
        >>> from cxr_compare.evaluation.decisions.thresholds import ValidationScores
        >>> scores = ValidationScores([0, 1], [0.2, 0.8], ["p", "q"], ("threshold=0.5",))
        >>> chosen = choose_again({"CheXNet": [scores]}, Resamples(2, n_replicates=3))
        >>> chosen["CheXNet"]["threshold=0.5"].tolist()
        [0.5, 0.5, 0.5]
    """
    patients = [choice.patients for made in choices.values() for choice in made]
    if not patients:
        return {name: {} for name in choices}
    names = np.unique(np.concatenate(patients))
    refits = {
        name: [choice.refit(np.searchsorted(names, choice.patients), len(names)) for choice in made]
        for name, made in choices.items()
    }

    def statistic(weights: npt.NDArray[np.int16]) -> dict[tuple[System, str], Floats]:
        return {
            (name, what): values
            for name, made in refits.items()
            for refit in made
            for what, values in refit(weights).items()
        }

    drawn = cluster_bootstrap(statistic, replace(resamples, n_clusters=len(names), stream=_STREAM))
    chosen: dict[System, dict[str, Floats]] = {name: {} for name in choices}
    for (name, what), values in drawn.items():
        chosen[name][what] = values
    return chosen
