"""Result of a comparison: all figures, tests and facts from which a report is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.choices import Declared
from cxr_compare.evaluation.figures import Figures
from cxr_compare.evaluation.groups.exposure import ExposureResult
from cxr_compare.evaluation.metrics.metric import ALL
from cxr_compare.evaluation.metrics.notes import Note
from cxr_compare.evaluation.protocol import EXPLORATORY, Protocol
from cxr_compare.evaluation.replicates import Evidence
from cxr_compare.evaluation.statistics.holm import holm
from cxr_compare.evaluation.statistics.joint_score import METHOD
from cxr_compare.evaluation.system_result import SystemResult
from cxr_compare.evaluation.verdict.cautions import list_cautions
from cxr_compare.evaluation.verdict.claims import Claim
from cxr_compare.evaluation.verdict.unequal_recipes import unequal_conditions
from cxr_compare.evaluation.verdict.verdict import state_verdict
from cxr_compare.evaluation.verdict.verdict_parts import AnswerContext, JointSystem, Verdict


@dataclass(frozen=True)
class Comparison:
    """Result of a comparison: all figures, tests and facts from which a report is made.

    Attributes:
        display_name: Name of the finding as reports show it, such as "lung opacity".
        findings: Names of the findings that count: an image is positive if any of them is present.
        systems: Output of each system by its display name, in the order of the report; the first is
            the reference system, which the others are compared with.
        figures: Figures and paired differences by image.
        tests: Tests of the differences between systems, as `paired_tests` returns them.
        decisions: Table with one row for each image and system: ``image_id``, ``system``,
            ``label``, ``score``, ``probability``, ``decision_RULE`` for each rule that chose a
            threshold (such as ``decision_max_f1``), ``localised`` (True if the system points at a
            lesion; known only for positive images whose lesions are all boxed), ``point_x`` and
            ``point_y`` (point that the system gives on the image, original px) and ``patient_id``.
            There may also be ``x_class`` (kind of image, such as ``normal``).
        notes: Notes for readers of the report, such as the number of images that are left out.
        provenance: Ids, seeds, versions and commands that make the result reproducible; the report
            shows them.
        records: What is known about the training of each system, such as its configuration
            (``recipe``), by display name, for the methods section of the report.
        split: Name of the split, the division of the images into training, validation and test
            images.
        replicates: Number of bootstrap resamples; `None` where it is unknown.
        by_unit: Figures by study or patient; `None` if figures are by image only.
        synthetic: Number of evaluated images that were drawn by a program and are no radiographs.
        audit: Errors that ``cxr check`` found in the data; None if nothing was checked.
        declared: Declared threshold by name of the model; models without one are absent.
        patients_known: False if no patient is known, so that each image counts as a patient.
        exposures: Test images that a system, or the pretrained encoder in it, has seen in training,
            with the figures on the other test images.
        evidence: What the figures were computed from.
    """

    finding: str
    display_name: str
    findings: tuple[str, ...]
    systems: dict[str, SystemResult]
    figures: Figures
    decisions: pd.DataFrame
    notes: list[Note] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    tests: pd.DataFrame = field(default_factory=pd.DataFrame)
    shortcuts: pd.DataFrame = field(default_factory=pd.DataFrame)
    compute_groups: Callable[[], pd.DataFrame] = pd.DataFrame
    protocol: Protocol = EXPLORATORY
    by_unit: Figures | None = None
    synthetic: int = 0
    audit: Sequence[str] | None = None
    declared: Mapping[str, Declared] = field(default_factory=dict)
    patients_known: bool = True
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    split: str = "unknown"
    replicates: int | None = None
    exposures: Sequence[ExposureResult] = ()
    evidence: Evidence | None = None

    def __repr__(self) -> str:
        n_images = counted(self.decisions["image_id"].nunique(), "test image")
        return f"<Comparison of {' and '.join(self.names)} on {self.finding}: {n_images}>"

    @property
    def names(self) -> list[str]:
        """Display names of the systems, the reference system first."""
        return list(self.systems)

    @cached_property
    def groups(self) -> pd.DataFrame:
        """Table of the failure analysis, computed when it is first read; empty if there is none.

        `evaluation.groups.failure_analysis.failure_table` defines it.
        """
        return self.compute_groups()

    @cached_property
    def policies(self) -> list[str]:
        """Rules that chose a threshold for at least one system, such as ``max_f1``."""
        policies = [policy for result in self.systems.values() for policy in result.confusion]
        return list(dict.fromkeys(policies))

    @property
    def main_policy(self) -> str:
        """Rule of the threshold for results that are shown at one threshold only.

        An example is ``max_f1``. Empty if no system has a threshold.
        """
        return self.protocol.main_policy(self.policies)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """Table of all figures by image, one figure in each row.

        The columns are those of `evaluation.figures.COLUMNS`, such as ``first``, ``second``,
        ``metric``, ``estimate``, ``ci_low`` and ``ci_high``.
        """
        return self.figures.table()

    @property
    def effective_patients(self) -> float | None:
        """Effective number of patients of the rarer class; `None` where it is unknown.

        It is the number of patients with one image each that would give as much information.
        """
        return self.figures.get(self.names[0], "auroc").effective_patients

    @property
    def seeds(self) -> dict[str, int]:
        """Number of training runs (random seeds) of each system, by its display name.

        Systems of which the number is unknown are left out.
        """
        seeds = {name: result.seeds for name, result in self.systems.items()}
        return {name: count for name, count in seeds.items() if count is not None}

    @property
    def same_training(self) -> dict[str, str]:
        """Systems that use the same training as an earlier one, by the name of the earlier one.

        A training run and a model exported from it share one training, and so do the predictions of
        a run with and without test-time augmentation. The dictionary maps the name of the later
        system to that of the earlier.
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

        With test-time views, a run has another training id than without them, but the same record
        of the run. So both are compared.
        """
        ids = [self.systems[name].training_id for name in (first, second)]
        runs = [
            (self.records.get(name, {}).get("recipe") or {}).get("run") for name in (first, second)
        ]
        return (ids[0] is not None and ids[0] == ids[1]) or (bool(runs[0]) and runs[0] == runs[1])

    @cached_property
    def made_of_others(self) -> dict[str, tuple[str, ...]]:
        """Members of each system that joins two or more others of this comparison, by its name."""
        names = {
            model.get("inference_id"): name
            for name, record in self.records.items()
            for model in record.get("models", [record])
        }
        names.pop(None, None)  # of systems whose id is unknown
        made = {}
        for name, record in self.records.items():
            ids = [member.get("inference_id") for member in record.get("members") or []]
            members = tuple(dict.fromkeys(names.get(each, "") for each in ids))
            if len(members) > 1 and all(members):
                made[name] = members
        return made

    @property
    def joint(self) -> JointSystem | None:
        """The system that joins others by weights from validation images; None without."""
        for name, members in self.made_of_others.items():
            rule = self.records[name].get("ensemble") or {}
            if rule.get("method") == METHOD:
                return JointSystem(name, members, self._unchanged_boxes(rule, members))
        return None

    def _unchanged_boxes(self, rule: Mapping[str, Any], members: Sequence[str]) -> str:
        """Return the member whose boxes a joint system has unchanged; empty if it changes them."""
        gates = {rule["findings"][finding]["gate"] for finding in self.findings}
        detectors = [name for name in members if self.records[name].get("kind") != "scores"]
        return detectors[0] if gates == {"untouched"} and len(detectors) == 1 else ""

    @property
    def answer_figures(self) -> Figures:
        """Figures that decide which system is better.

        They are the figures by study or patient if the protocol says so, and otherwise the figures
        by image.
        """
        return decisive_figures(self.protocol, self.figures, self.by_unit)

    @cached_property
    def answer(self) -> Verdict:
        """Verdict of the comparison: the better system if one was shown, limits and cautions."""
        figures = self.answer_figures
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
            n_synthetic=self.synthetic,
            all_synthetic=0 < self.synthetic == self.decisions["image_id"].nunique(),
            cautions=list_cautions(self.notes),
        )
        return state_verdict(
            figures,
            self.names,
            self.display_name,
            protocol=self.protocol,
            context=context,
            joint=self.joint,
        )

    @cached_property
    def tests_with_holm(self) -> pd.DataFrame:
        """Table of tests with the column ``p_holm``, the p-values corrected by Holm's method.

        The p-values of all pairs of systems in the primary figure are corrected together, and those
        of all further comparisons in the report are corrected together. A joint system must exceed
        each of its members, so its comparisons with them have one p-value, the largest of theirs
        (1 if a member's figure is as high); it is that of the primary figure, or is corrected with
        those of the further figures.
        """
        tests = self.tests.copy()
        if tests.empty:
            return tests
        for family in (self.answer.claims, self.answer.further_claims):
            index = [row for claim in family for row in self._tests_of(claim)]
            tests.loc[index, "p_holm"] = holm(tests.loc[index, "p_value"].tolist())
        for conclusions in self.answer.joint_families:
            corrected = holm([_p_of_exceeding_all(each.claims) for each in conclusions])
            for each, p_value in zip(conclusions, corrected, strict=True):
                index = [row for claim in each.claims for row in self._tests_of(claim)]
                tests.loc[index, "p_holm"] = p_value
        return tests

    def _tests_of(self, claim: Claim) -> list[Any]:
        """Return the rows of the test, with patients as independent, on which a claim rests."""
        tests = self.tests
        pair = [claim.first, claim.second]
        rows = tests["first"].isin(pair) & tests["second"].isin(pair)
        rows &= (tests["metric"] == claim.metric) & (tests["policy"] == claim.policy)
        rows &= (tests["unit"] == self.answer_figures.unit) & (tests["subgroup"] == ALL)
        rows &= (tests["independent"] == "patients") & tests["p_value"].notna()
        return tests.index[rows].tolist()


def decisive_figures(protocol: Protocol, by_image: Figures, by_unit: Figures | None) -> Figures:
    """Return the figures that decide: those by study or patient if the protocol says so."""
    grouped = protocol.unit in ("study", "patient")
    return by_unit if grouped and by_unit is not None else by_image


def _p_of_exceeding_all(claims: Sequence[Claim]) -> float | None:
    """Return the p-value of the claim that the first system exceeds all others.

    It is the largest of the comparisons (intersection-union test: Berger 1982), and 1 where the
    first system does not have the higher figure.
    """
    p_values = []
    for claim in claims:
        p_value = claim.difference.p_value
        if p_value is None:
            return None
        p_values.append(p_value if claim.difference.estimate > 0 else 1.0)
    return max(p_values)
