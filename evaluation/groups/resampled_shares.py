"""Sensitivity and specificity of groups on resamples that choose each threshold again.

Paired differences of systems need them: with fixed thresholds, systems of equal ROC curves would
seem to differ, because validation images chose other points of their curves.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from cxr_compare.evaluation.evaluated_model import THRESHOLDS, EvaluatedModel, Models
from cxr_compare.evaluation.figures import choices_text
from cxr_compare.evaluation.replicates import ChosenAgain
from cxr_compare.evaluation.statistics.arrays import Floats
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap
from cxr_compare.evaluation.statistics.intervals import Interval, percentile_interval
from cxr_compare.evaluation.statistics.ranking import CalledShare
from cxr_compare.evaluation.thresholds import is_chosen

_Group = TypeVar("_Group", bound=Hashable)


@dataclass(frozen=True)
class Drawn:
    """A figure of one system at a threshold, on resamples that choose the threshold again.

    Attributes:
        values: Value on each of R resamples, shape ``(R,)``; NaN where undefined.
        method: Name of the method of the resamples.
        unsure: Reason why the resamples do not show how much the threshold varies; empty if they
            do.
    """

    values: Floats
    method: str
    unsure: str = ""

    def minus(self, other: Drawn, estimate: float) -> Interval:
        """Return the interval of the paired difference of two systems."""
        unsure = self.unsure or other.unsure
        if unsure:
            return Interval(estimate, note=f"no interval: {unsure}")
        return percentile_interval(self.values - other.values, estimate=estimate)


def draw_shares(
    models: Models,
    policy: str,
    again: ChosenAgain,
    groups: Mapping[_Group, npt.NDArray[np.bool_]],
    resamples: Resamples,
) -> dict[tuple[str, _Group, str], Drawn]:
    """Compute sensitivity, specificity and localised sensitivity of groups on the same resamples.

    `again` comes from `choose_again`; `groups` is True for the images of each group. The figures
    are means over training seeds by system, group and metric; systems without a threshold, or
    without points for the localised sensitivity, are left out.
    """
    called = [name for name, members in models.items() if _has_threshold(members, policy)]
    cuts = {
        (name, seed): again[name, seed].get(policy, _fixed(model, policy, resamples))
        for name in called
        for seed, model in enumerate(models[name])
    }
    if not cuts:
        return {}
    columns = {key: column for column, key in enumerate(cuts)}
    shares = {
        (name, group, metric): [(columns[name, seed], share) for seed, share in enumerate(of_seeds)]
        for name in called
        for group, chosen in groups.items()
        for metric, of_seeds in _shares_of(models[name], chosen).items()
    }

    def statistic(
        weights: npt.NDArray[np.int16], thresholds: Floats
    ) -> dict[tuple[str, _Group, str], Floats]:
        values = {
            key: np.mean([share.at(weights)(thresholds[:, at]) for at, share in of_seeds], axis=0)
            for key, of_seeds in shares.items()
        }
        return {
            key: 1 - value if key[2] == "specificity" else value for key, value in values.items()
        }

    drawn = cluster_bootstrap(statistic, resamples, beside=np.column_stack([*cuts.values()]))
    method = resamples.method + _refitted_text(models, policy)
    unsure = {name: _unsure(models[name], policy) for name in called}
    return {key: Drawn(values, method, unsure[key[0]]) for key, values in drawn.items()}


def _has_threshold(members: Sequence[EvaluatedModel], policy: str) -> bool:
    return all(model.called(policy) is not None for model in members)


def _fixed(model: EvaluatedModel, policy: str, resamples: Resamples) -> Floats:
    threshold = model.thresholds[policy].threshold
    return np.full(resamples.n_replicates, threshold, dtype=np.float64)


def _refitted_text(models: Models, policy: str) -> str:
    """Return the part of the method's name that says if thresholds are chosen again."""
    if not is_chosen(policy):
        return ""
    members = [model for of_system in models.values() for model in of_system]
    return choices_text({THRESHOLDS: all(policy in model.chosen_policies for model in members)})


def _unsure(members: Sequence[EvaluatedModel], policy: str) -> str:
    """Return why resamples do not show how much the threshold of a system varies, or ''."""
    made = [model.choices.chosen_scores for model in members if policy in model.chosen_policies]
    reasons = [each.too_few_for(policy) for each in made if each is not None]
    return next(filter(None, reasons), "")


def _shares_of(
    members: Sequence[EvaluatedModel], chosen: npt.NDArray[np.bool_]
) -> dict[str, list[CalledShare]]:
    """Return the called shares of a group by metric, one for each training seed.

    That of ``specificity`` is the share of called negative images, which is 1 minus it.
    """
    images = members[0].images
    positive, negative = chosen & images.y_true, chosen & ~images.y_true

    def share(
        model: EvaluatedModel, hits: npt.NDArray[np.bool_], of: npt.NDArray[np.bool_]
    ) -> CalledShare:
        return CalledShare(model.scores, hits, of, images.patients, images.n_patients)

    shares = {
        "recall": [share(model, positive, positive) for model in members],
        "specificity": [share(model, negative, negative) for model in members],
    }
    on_lesion = [model.localised for model in members if model.localised is not None]
    if len(on_lesion) == len(members):
        boxed = positive & images.is_boxed
        shares["localised_sensitivity"] = [
            share(model, boxed & hit, boxed) for model, hit in zip(members, on_lesion, strict=True)
        ]
    return shares
