"""Everything that a report of a comparison needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.compare.background import Background
from cxr_compare.evaluation.compare.cautions import list_cautions
from cxr_compare.evaluation.compare.estimates import Estimates, PairTests
from cxr_compare.evaluation.compare.goals import GoalResult
from cxr_compare.evaluation.compare.holm import holm
from cxr_compare.evaluation.compare.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.compare.reference_check import (
    HeadlineLabels,
    LabelledScores,
    headline_labels,
)
from cxr_compare.evaluation.compare.sentences import sentence
from cxr_compare.evaluation.compare.system_result import SystemResult
from cxr_compare.evaluation.compare.unequal_recipes import unequal_conditions
from cxr_compare.evaluation.compare.uses import TestSetUses
from cxr_compare.evaluation.compare.verdict import state_verdict
from cxr_compare.evaluation.compare.verdict_parts import AnswerContext, Verdict
from cxr_compare.evaluation.decisions.guarantee_results import GuaranteeResult
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.statistics.reference_error import ReferenceAccuracy


@dataclass(frozen=True)
class Comparison:
    """Everything that a report needs.

    Attributes:
        finding: Name of the finding that was evaluated.
        display_name: Its name for people.
        findings: The findings of which any makes an image positive.
        systems: By display name, in the order given; the first is the reference.
        estimates: Every figure with its interval, of systems and paired differences.
        tests: Paired tests and intervals by other methods, see `evaluation.compare.paired_tests`.
        failures: Groups of images and kinds of error in which each system fails, see
            `evaluation.compare.failure_analysis`.
        decisions: One row per image and system: ``label``, ``score``, ``probability``,
            ``decision_<policy>``, ``localised`` (positive images with trusted boxes only),
            ``point_x``, ``point_y`` (original px), ``x_class``, ``patient_id``.
        notes: Things that a reader must know, such as images left out.
        provenance: Ids, seeds, versions, commands: written into the report, never read for a fact.
        records: Records of each system, such as its recipe, for the methods section.
        split: Name of the split that gave the images their roles.
        replicates: Number of resamples; `None` where unknown.
        protocol: The question.
        by_unit: The image-level figures by study or patient; `None` where images are the unit.
        uses: Uses of the test images, where these are logged.
        background: Facts about the data.
        goals: Results of the protocol's goals.
        guarantees: Guarantees of thresholds on validation, and what was observed on test.
        patients_known: False if no patient is known, so that each image counts by itself.
        by_reader: The primary difference by each reader's labels; empty where not asked for.
        labelled: Labels and scores that the answer rests on; `None` where unknown.
        reference: The stated error of the labels; `None` where none was stated.
    """

    finding: str
    display_name: str
    findings: tuple[str, ...]
    systems: dict[str, SystemResult]
    estimates: Estimates
    decisions: pd.DataFrame
    notes: list[Note] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    tests: pd.DataFrame = field(default_factory=pd.DataFrame)
    failures: pd.DataFrame = field(default_factory=pd.DataFrame)
    protocol: Protocol = EXPLORATORY
    by_unit: Estimates | None = None
    uses: TestSetUses | None = None
    background: Background = field(default_factory=Background)
    goals: Sequence[GoalResult] = ()
    guarantees: Sequence[GuaranteeResult] = ()
    by_reader: list[dict[str, Any]] = field(default_factory=list)
    patients_known: bool = True
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    split: str = "unknown"
    replicates: int | None = None
    labelled: LabelledScores | None = None
    reference: ReferenceAccuracy | None = None

    def __repr__(self) -> str:
        n_images = counted(self.decisions["image_id"].nunique(), "test image")
        return f"<Comparison of {' and '.join(self.names)} on {self.finding}: {n_images}>"

    @property
    def names(self) -> list[str]:
        """Display names of the systems, in the order given."""
        return list(self.systems)

    @cached_property
    def policies(self) -> list[str]:
        """Every policy that any system has a confusion matrix for, in order."""
        policies = [policy for result in self.systems.values() for policy in result.confusion]
        return list(dict.fromkeys(policies))

    @property
    def main_policy(self) -> str:
        """Policy of everything that is shown at one threshold; empty without one."""
        return self.protocol.main_policy(self.policies)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Tidy table by image, a row for each figure; a paired difference has system ``A - B``."""
        return self.estimates.table()

    @property
    def effective_patients(self) -> float | None:
        """Effective number of patients of the rarer class; `None` where unknown."""
        return self.estimates.get(self.names[0], "auroc").effective_patients

    @property
    def seeds(self) -> dict[str, int]:
        """Number of training runs behind each system, where known."""
        seeds = {name: result.seeds for name, result in self.systems.items()}
        return {name: count for name, count in seeds.items() if count is not None}

    @property
    def same_training(self) -> dict[str, str]:
        """Name of the first system of the same training, by the others.

        A run and its export come from one training, and so do the predictions of a run with and
        without test-time views.
        """
        same: dict[str, str] = {}
        for position, name in enumerate(self.names):
            for earlier in self.names[:position]:
                if earlier not in same and self._of_one_training(earlier, name):
                    same[name] = earlier
                    break
        return same

    def _of_one_training(self, first: str, second: str) -> bool:
        """Return True if two systems predict with the same trained network.

        The id of a training includes test-time views. The record of the run does not.
        """
        ids = [self.systems[name].training_id for name in (first, second)]
        runs = [
            (self.records.get(name, {}).get("recipe") or {}).get("run") for name in (first, second)
        ]
        return (ids[0] is not None and ids[0] == ids[1]) or (bool(runs[0]) and runs[0] == runs[1])

    @property
    def triage(self) -> list[str]:
        """Results of triage on the test images, a sentence for each system that has it."""
        sentences = []
        for name, result in self.systems.items():
            triage = result.decisions[0].triage if result.decisions else None
            if triage is None:
                continue
            referred = self.estimates.get(name, "referred")
            text = sentence(
                "triage",
                system=name,
                ruled_out=self.estimates.get(name, "ruled_out").estimate,
                referred=referred.estimate,
                ruled_in=self.estimates.get(name, "ruled_in").estimate,
                interval=(referred.low, referred.high) if referred.bounded else None,
                on_validation=triage.referred,
                rule=triage.rule,
                reasons=triage.why,
            )
            sentences.append(text)
        return sentences

    def tests_by(self, unit: str) -> PairTests:
        """Return the tests of pairs of systems by image, study or patient."""
        tests = self.tests
        return PairTests(tests[tests["unit"] == unit] if "unit" in tests else tests)

    def with_uses(self, uses: TestSetUses) -> Comparison:
        """Return the comparison with the uses of the test images, noted where they are unknown."""
        notes = list(self.notes)
        if uses.problem:
            notes.append(Note("uses", uses.problem))
        provenance = self.provenance | {"test_set_uses": uses.to_dict()}
        return replace(self, uses=uses, notes=notes, provenance=provenance)

    @property
    def answer_estimates(self) -> Estimates:
        """Figures that the answer rests on, by the protocol's unit."""
        grouped = self.protocol.unit in ("study", "patient")
        return self.by_unit if grouped and self.by_unit is not None else self.estimates

    @cached_property
    def answer(self) -> Verdict:
        """Answer with its scope and the further comparisons, by the protocol's unit."""
        estimates = self.answer_estimates
        context = AnswerContext(
            seeds=self.seeds,
            same_training=self.same_training,
            unequal=unequal_conditions(
                {
                    name: self.records[name]
                    for name in self.records
                    if name not in self.same_training
                }
            ),
            n_synthetic=self.background.synthetic,
            cautions=list_cautions(self.background, estimates, self.failures, self.notes),
            uses_before=None if self.uses is None else self.uses.before_protocol,
            goals=[goal for goal in self.goals if not goal.case],
        )
        return state_verdict(
            estimates,
            self.names,
            self.display_name,
            protocol=self.protocol,
            tests=self.tests_by(estimates.unit),
            context=context,
        )

    @cached_property
    def wrong_labels(self) -> HeadlineLabels | None:
        """Labels that must be wrong to overturn the headline; `None` if it shows no difference."""
        if self.labelled is None or self.protocol.goals:
            return None
        estimates = self.answer_estimates
        return headline_labels(self.labelled, self.answer.claims, estimates.plural_unit)

    @cached_property
    def tests_with_holm(self) -> pd.DataFrame:
        """Tests with ``p_holm`` over the family of the answer, or of the findings below it."""
        tests = self.tests.copy()
        tests_of_unit = self.tests_by(self.answer_estimates.unit)
        for family in (self.answer.claims, self.answer.further_claims):
            rows = [tests_of_unit.rows_of(claim.first, claim.second, claim.key) for claim in family]
            index = [values.index[0] for values in rows if len(values)]
            if index:
                tests.loc[index, "p_holm"] = holm(tests.loc[index, "p_value"].tolist())
        return tests
