"""Statements of a comparison, by the functions that `compare` calls.

Reading tables and making a report take two thirds of the time of a small comparison.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pandas as pd

from cxr_compare.evaluation.choices import choose
from cxr_compare.evaluation.compare import Comparison, compare_outputs
from cxr_compare.evaluation.figures import FigureRows
from cxr_compare.evaluation.findings import compared_together, finding_tests, mean_table
from cxr_compare.evaluation.groups.images import group_table
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.notes import worst_first
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.paired_differences import figure_table
from cxr_compare.evaluation.policies import USUAL_POLICY
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.replicates import SystemFigures, choose_again
from cxr_compare.evaluation.replicates import replicates as resampled
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.truth import Truth
from cxr_compare.evaluation.verdict.cautions import cautions
from cxr_compare.evaluation.verdict.claims import Lookup
from cxr_compare.evaluation.verdict.score_checks import score_notes
from cxr_compare.evaluation.verdict.verdict import Verdict, state_verdict

if TYPE_CHECKING:
    from tools.simulation.designs import Drawn


@dataclass(frozen=True, eq=False)
class Stated:
    """Statements of a comparison, by the names that they have in a report."""

    comparison: Comparison

    @cached_property
    def answer(self) -> Any:
        """Claims, decisions by a margin, primary figure and thresholds."""
        verdict = self._verdict
        return SimpleNamespace(
            claims=verdict.claims,
            margin=verdict.margin,
            primary=self.comparison.protocol.key,
            thresholds={
                name: each.choices.thresholds for name, each in self.comparison.systems.items()
            },
        )

    @property
    def headline(self) -> str:
        """Answer in sentences."""
        return self._verdict.headline

    @property
    def cautions(self) -> list[str]:
        """Sentences on what may make the answer wrong, the most harmful first."""
        notes = [*self.comparison.notes, *cautions(self.comparison)]
        return [note.with_page for note in worst_first(notes)]

    @property
    def figures(self) -> pd.DataFrame:
        """Table of figures and differences."""
        return self.comparison.figures

    @property
    def groups(self) -> pd.DataFrame:
        """Table of figures in groups of images, and of what facts alone predict."""
        return group_table(self.comparison)

    @property
    def decisions(self) -> pd.DataFrame:
        """Table of the images, with scores and probabilities."""
        return self.comparison.decisions

    @cached_property
    def _verdict(self) -> Verdict:
        return state_verdict(self.comparison)


def verdict_of(drawn: Drawn, replicates: int) -> Stated:
    """Compare drawn systems."""
    truth, outputs, protocol, policies = _inputs(drawn)
    options = {"policies": policies, "n_replicates": replicates}
    return Stated(compare_outputs(outputs, truth, protocol=protocol, **options))


def findings_of(drawn: Drawn, replicates: int) -> Any:
    """Compare drawn systems on each of several findings, and their means over these."""
    labels = drawn.truth.set_index(["image_id", "patient_id"])
    questions = {}
    for finding in labels:
        scores = {
            name: table.set_index("image_id")[finding] for name, table in drawn.systems.items()
        }
        truth = labels[finding].rename("label").reset_index()
        of_finding = replace(drawn, systems=scores, truth=truth, options={})
        read, outputs, _, policies = _inputs(of_finding)
        questions[str(finding)] = outputs, read
    comparisons = compared_together(questions, policies=policies, n_replicates=replicates)
    return SimpleNamespace(
        results={name: Stated(each) for name, each in comparisons.items()},
        macro=mean_table(comparisons),
        tests=finding_tests({name: each.figures for name, each in comparisons.items()}),
    )


def claim_of(drawn: Drawn, replicates: int) -> Any:
    """Return the claim of two systems in the primary figure, and the table of this figure alone.

    Of one pair and one figure, the corrected p-value is the p-value.
    """
    truth, outputs, protocol, policies = _inputs(drawn)
    test = truth.of("test")
    systems = _systems(truth, outputs, policies)
    choices = {name: each.choices for name, each in systems.items()}
    again = choose_again(choices, replicates, seed=0)
    frames = resampled(systems, again, Resamples(test.n_patients, replicates))
    metric, policy = protocol.key
    kept = {name: frame[[(policy, metric)]] for name, frame in frames.items()}
    table = figure_table(FigureRows(test, systems, kept), [("A", "B")])
    table["p_holm"] = table["p_value"]
    claim = Lookup(table).claim("answer", "A", "B", metric, policy)
    return SimpleNamespace(answer=SimpleNamespace(claims=[claim]), figures=table)


def scores_of(drawn: Drawn, _replicates: int) -> Any:
    """Return thresholds, and cautions on scores, which rest on no resamples."""
    truth, outputs, _, policies = _inputs(drawn)
    systems = _systems(truth, outputs, policies)
    thresholds = {name: each.choices.thresholds for name, each in systems.items()}
    return SimpleNamespace(
        answer=SimpleNamespace(thresholds=thresholds),
        cautions=[note.with_page for note in score_notes(systems) if note.caution],
    )


def _systems(
    truth: Truth, outputs: Mapping[str, Output], policies: Sequence[str]
) -> dict[str, SystemFigures]:
    """Return the systems on test images, with their choices on validation images."""
    test, validation = truth.of("test"), truth.of("val")
    return {
        name: SystemFigures(
            test,
            output.select(test.ids),
            choose(output.select(validation.ids), validation, policies),
        )
        for name, output in outputs.items()
    }


def _inputs(drawn: Drawn) -> tuple[Truth, dict[str, Output], Protocol, list[str]]:
    """Return truth, outputs, protocol and policies, as `compare` reads them."""
    options = dict(drawn.options)
    options.pop("allow_shared_patients", None)
    lesions, policies = options.pop("boxes", None), options.pop("policy", [])
    policies = [policies] if isinstance(policies, str) else policies or [USUAL_POLICY]
    images = drawn.truth.rename(columns={"age": "age_years"}).set_index("image_id").sort_index()
    if "role" not in images:
        images["role"] = "test"
    truth = Truth(images, *([] if lesions is None else [lesions, images.index]))
    outputs = {name: _output(answer, images.index) for name, answer in drawn.systems.items()}
    decides = METRICS[options.get("metric", "auroc")].family == "decision"
    policy = policies[0] if decides else ""
    protocol = Protocol(policy=policy, chosen="metric" in options, **options)
    return truth, outputs, protocol, policies


def _output(answer: Any, ids: pd.Index) -> Output:
    """Return the output of a classifier, whose answer is a Series, or of a detector."""
    if isinstance(answer, pd.Series):
        return Output(answer.reindex(ids))
    return Output.of_detector(answer, ids)
