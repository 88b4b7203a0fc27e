"""Answers of systems as they are drawn, decided by a policy."""

from __future__ import annotations

import pandas as pd

from cxr_compare.evaluation.choices import Choices, choose
from cxr_compare.evaluation.compare import Comparison
from cxr_compare.evaluation.drawn import DrawnSystem, OperatingPoint
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.truth import Truth


def drawn_systems(comparison: Comparison) -> tuple[DrawnSystem, ...]:
    """Return the answers of the systems of a comparison, decided by its main policy.

    The joint system has the boxes of a member, and is not drawn.
    """
    truth, policy = comparison.truth, comparison.main_policy
    systems = {name: comparison.systems[name] for name in comparison.single}
    drawn = (_drawn(name, of.output, of.choices, policy, truth) for name, of in systems.items())
    return tuple(drawn)


def decided_system(name: str, output: Output, truth: Truth, policy: str) -> DrawnSystem:
    """Return the answers of a system, decided by a policy, if any, on validation images."""
    validation = truth.of("val")
    ran = validation.select(validation.ids.intersection(output.ran))
    return _drawn(name, output, choose(output, ran, [policy] if policy else []), policy, truth)


def _drawn(name: str, output: Output, choices: Choices, policy: str, truth: Truth) -> DrawnSystem:
    """Return the answers of a system, and if its point lies on a lesion where all have boxes."""
    localised = pd.Series(index=output.scores.index, dtype="boolean")
    hits = output.localised(truth.boxes)
    if hits is not None:
        positive = truth.images["label"].reindex(localised.index) == 1
        is_known = positive & localised.index.isin(truth.boxed)
        localised[:] = hits
        localised = localised.where(is_known)
    return DrawnSystem(name, output, OperatingPoint(policy, choices), localised)
