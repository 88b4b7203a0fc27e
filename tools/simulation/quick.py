"""What a comparison states, by the functions that `compare` calls.

Reading tables and making a report take two thirds of the time of a small comparison.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from cxr_compare.evaluation.compare import compare
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.notes import worst_first
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.truth import Truth
from cxr_compare.evaluation.verdict.cautions import cautions
from cxr_compare.evaluation.verdict.verdict import state_verdict
from tools.simulation.designs import Drawn


def verdict_of(drawn: Drawn, replicates: int) -> Any:
    """Return claims, margin, headline, cautions, thresholds and figures, as in a report."""
    options = dict(drawn.options)
    lesions, policies = options.pop("boxes", None), options.pop("policy", [])
    policies = [policies] if isinstance(policies, str) else policies
    images = drawn.truth.set_index("image_id").sort_index()
    if "role" not in images:
        images["role"] = "test"
    truth = Truth(images, *([] if lesions is None else [lesions, images.index]))
    outputs = {name: _output(answer, images.index) for name, answer in drawn.systems.items()}
    decides = METRICS[options.get("metric", "auroc")].family == "decision"
    policy = policies[0] if decides else ""
    protocol = Protocol(policy=policy, chosen="metric" in options, **options)
    comparison = compare(
        outputs,
        truth,
        protocol=protocol,
        policies=policies,
        n_replicates=replicates,
    )
    verdict = state_verdict(comparison)
    notes = [*comparison.notes, *cautions(comparison)]
    answer = SimpleNamespace(
        claims=[claim.to_dict() for claim in verdict.claims],
        margin=verdict.margin,
        primary=protocol.key,
        thresholds={name: each.choices.thresholds for name, each in comparison.systems.items()},
    )
    return SimpleNamespace(
        answer=answer,
        headline=verdict.headline,
        cautions=[each.with_page for each in worst_first(notes)],
        figures=comparison.figures,
        comparison=comparison,
    )


def _output(answer: Any, ids: pd.Index) -> Output:
    """Return the output of a classifier, whose answer is a Series, or of a detector."""
    if isinstance(answer, pd.Series):
        return Output(answer.reindex(ids))
    return Output.of_detector(answer, ids)
