"""What a comparison holds: everything that a report needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.boxes.froc import FrocCurve
from cxr_compare.evaluation.compare.claims import GoalResult, Setting, Verdict, holm
from cxr_compare.evaluation.compare.estimates import Estimate, Estimates, PairTests
from cxr_compare.evaluation.compare.evaluated_models import EvaluatedModel, Models
from cxr_compare.evaluation.compare.protocol import EXPLORATORY, Protocol, TestSetUses
from cxr_compare.evaluation.compare.shortcuts import BEYOND_SHORTCUT, SHORTCUT
from cxr_compare.evaluation.compare.verdict import CHANCE, state_verdict
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.decisions.ground_truth import GroundTruth
from cxr_compare.evaluation.decisions.guarantee_results import (
    GuaranteeResult,
)
from cxr_compare.evaluation.metrics.notes import (
    Note,
    NoteKind,
)
from cxr_compare.evaluation.metrics.prose import (
    listing,
)
from cxr_compare.evaluation.statistics.arrays import (
    Floats,
)
from cxr_compare.evaluation.statistics.figure_text import (
    interval_text,
    number,
)
from cxr_compare.evaluation.statistics.ranking import roc_and_pr_curves


@dataclass(frozen=True)
class SystemResult:
    """What one system gave on the test images; of several training seeds the first's."""

    # Per policy; `None` where validation gives none.
    thresholds: dict[str, float | None] = field(default_factory=dict)
    # ``threshold``, ``fpr``, ``tpr``, ``precision``, ``recall``; empty where unknown.
    curve: dict[str, Floats] = field(default_factory=dict)
    # Per policy that has a threshold ``tp``, ``fp``, ``tn``, ``fn``.
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    # On the test images; a classifier's are read from its maps; `None` without any.
    boxes: pd.DataFrame | None = None
    # Activation maps on the test images, one per image; `None` without any.
    maps: pd.DataFrame | None = None
    map_scale: tuple[float, float] | None = None  # the fixed low and high end of the maps
    # Parameters, FLOPs, latency; values may be `None`.
    cost: dict[str, Any] = field(default_factory=dict)
    # The FROC curve per kind of hit (``iou``, ``centre``); empty without boxes.
    froc: dict[str, FrocCurve] = field(default_factory=dict)
    # Training runs behind the system; `None` where unknown (other software, readers).
    seeds: int | None = None
    # What validation chose, for each training seed.
    decisions: tuple[Decision, ...] = ()
    training_id: str | None = None  # tells one training from another; `None` where unknown
    exported: bool = False  # whether it is an export of a run

    @classmethod
    def from_models(cls, models: Sequence[EvaluatedModel]) -> SystemResult:
        """What is drawn and listed of a system, from its first seed."""
        model = models[0]
        scorecard, decision, output = model.scorecard, model.decision, model.output
        facts = model.system.facts
        confusion = {policy: scorecard.confusion(policy) for policy in scorecard.thresholds}
        one_unknown = len(models) == 1 and facts.seed is None
        return cls(
            thresholds={
                policy: choice.threshold for policy, choice in scorecard.thresholds.items()
            },
            curve=roc_and_pr_curves(scorecard.evaluated.y_true, scorecard.scores),
            confusion={policy: counts for policy, counts in confusion.items() if counts},
            boxes=scorecard.boxes,
            maps=None if output.gives_boxes else output.maps,
            map_scale=decision.map_scale,
            cost=dict(facts.cost),
            froc=scorecard.froc(),
            seeds=None if one_unknown else len(models),
            decisions=tuple(of_seed.decision for of_seed in models),
            training_id=facts.training_id,
            exported=facts.exported,
        )

    def __repr__(self) -> str:
        points = "with places" if self.points else "without places"
        return f"<SystemResult {points}, policies {', '.join(self.thresholds) or 'none'}>"

    @property
    def points(self) -> bool:
        """Whether the system points at places, with boxes or maps."""
        return self.boxes is not None or self.maps is not None


@dataclass(frozen=True)
class Background:
    """What is known of the data behind a comparison."""

    data_name: str = ""  # name of the data set that systems are evaluated on
    synthetic: int = 0  # how many of the evaluated images are synthetic
    # Errors that ``cxr check`` found, of the whole set or of the split that is evaluated; `None`
    # where it has not looked at that split.
    audit: tuple[str, ...] | None = None
    # Per system the other data sets that it was trained on; none of those unknown.
    elsewhere: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @classmethod
    def from_truth(cls, truth: GroundTruth, image_ids: pd.Index, models: Models) -> Background:
        """What ground truth and systems say of it; the audit is added by who has read it."""
        here = truth.ids.get("content_id")
        trained_on = {
            name: [
                title
                for model in members
                for title, content in model.system.facts.trained_on
                if content != here
            ]
            for name, members in models.items()
        }
        return cls(
            data_name=truth.data_name,
            synthetic=len(image_ids.intersection(truth.synthetic)),
            elsewhere={
                name: tuple(dict.fromkeys(titles)) for name, titles in trained_on.items() if titles
            },
        )

    @property
    def audit_text(self) -> str:
        """What the audit says of the roles of patients and images."""
        if self.audit is None:
            return "whether each patient has one role was not checked (run cxr check)"
        if not self.audit:
            return "each patient has one role (cxr check found no error)"
        return f"the audit found errors: {'; '.join(self.audit)}"


@dataclass(frozen=True)
class Comparison:
    """Everything a report needs.

    Attributes:
        finding: Name of the finding that was evaluated.
        display_name: Its name for people.
        findings: The findings of which any makes an image positive.
        systems: By display name, in the order given; the first is the reference.
        estimates: Every figure with its interval, of systems and paired differences.
        tests: Paired tests and intervals by other methods, see `evaluation.compare.paired_tests`.
        failures: In which groups and ways each system fails, see `failure_analysis`.
        decisions: One row per image and system: ``label``, ``score``, ``probability``,
            ``decision_<policy>``, ``localised`` (positive images with trusted boxes only),
            ``point_x``, ``point_y`` (original px), ``x_class``, ``patient_id``.
        notes: What a reader must know: images left out, systems without validation, ...
        provenance: Ids, seeds, versions, commands: written into the report, never read for a fact.
        records: What is recorded of each system, such as its recipe, for the methods section.
        split: Name of the split that gave the images their roles.
        replicates: Number of resamples; `None` where unknown.
        protocol: The question.
        by_unit: The image-level figures by study or patient; `None` where images are the unit.
        uses: How often the test images were used, where that is logged.
        background: What is known of the data behind it.
        goals: What the system was found to reach of the protocol's goals.
        guarantees: What was guaranteed of thresholds on validation, and what was observed on test.
        patients_known: False if no patient is known, so that each image counts by itself.
        by_reader: The primary difference by each reader's labels; empty where not asked for.
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

    def __repr__(self) -> str:
        evaluated = f"{counted(self.decisions['image_id'].nunique(), 'test image')}"
        return f"<Comparison of {' and '.join(self.names)} on {self.finding}: {evaluated}>"

    @property
    def names(self) -> list[str]:
        """Display names of the systems, in the order given."""
        return list(self.systems)

    @cached_property
    def policies(self) -> list[str]:
        """Every policy that any system has a confusion matrix for, in order."""
        return list(dict.fromkeys(p for held in self.systems.values() for p in held.confusion))

    @property
    def main_policy(self) -> str:
        """The policy of everything that is shown at one threshold; or ""."""
        return self.protocol.main_policy(self.policies)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The tidy table by image, one row a figure; a paired difference has system ``A - B``."""
        return self.estimates.table()

    @property
    def effective_patients(self) -> float | None:
        """Of the rarer class of the test images; `None` where unknown."""
        return self.estimates.get(self.names[0], "auroc").effective_patients

    @property
    def seeds(self) -> dict[str, int]:
        """How many training runs are behind each system, where known."""
        seeds = {name: result.seeds for name, result in self.systems.items()}
        return {name: count for name, count in seeds.items() if count is not None}

    @property
    def same_training(self) -> dict[str, str]:
        """Systems of one training, as a run and its export: the first's name by the others'."""
        ids = {name: result.training_id for name, result in self.systems.items()}
        exported = [name for name, result in self.systems.items() if result.exported]
        groups = {
            training: [name for name in self.names if ids[name] == training]
            for training in (ids[name] for name in exported)
        }
        return {name: group[0] for group in groups.values() for name in group[1:]}

    @property
    def triage(self) -> list[str]:
        """What triage makes of the test images, a sentence for each system that was tuned to it."""
        told = []
        for name, result in self.systems.items():
            rule = result.decisions[0].triage if result.decisions else None
            if rule is None:
                continue
            out, referred, ruled_in = (self.estimates.get(name, each) for each in rule.STANDINGS)
            ends = f"95 % interval {_percent(referred.low, referred.high)}; "
            told.append(
                f"{name} rules out {_percent(out.estimate)} of the test images, refers "
                f"{_percent(referred.estimate)} to a reader ({ends * referred.bounded}on "
                f"validation {_percent(rule.referred)}) and rules in "
                f"{_percent(ruled_in.estimate)}; by score, {'; '.join((rule.rule, *rule.why))}."
            )
        return told

    def tests_by(self, unit: str) -> PairTests:
        """The tests of pairs of systems by image, study or patient."""
        tests = self.tests
        return PairTests(tests[tests["unit"] == unit] if "unit" in tests else tests)

    def with_uses(self, uses: TestSetUses) -> Comparison:
        """Add how often the test images were used, and a note where that is unknown."""
        notes = [*self.notes, *([Note("uses", uses.problem)] if uses.problem else [])]
        provenance = self.provenance | {"test_set_uses": uses.to_dict()}
        return replace(self, uses=uses, notes=notes, provenance=provenance)

    @property
    def answer_estimates(self) -> Estimates:
        """The figures that the answer rests on, those of the protocol's unit."""
        grouped = self.protocol.unit in ("study", "patient")
        return self.by_unit if grouped and self.by_unit is not None else self.estimates

    @cached_property
    def answer(self) -> Verdict:
        """The answer with its scope and the further comparisons, for the protocol's unit."""
        estimates = self.answer_estimates
        return state_verdict(
            estimates,
            self.names,
            self.display_name,
            protocol=self.protocol,
            tests=self.tests_by(estimates.unit),
            setting=Setting(
                seeds=self.seeds,
                same_training=self.same_training,
                synthetic=self.background.synthetic,
                cautions=_cautions(self.background, estimates, self.failures, self.notes),
                uses_before=None if self.uses is None else self.uses.before_protocol,
                goals=[goal for goal in self.goals if not goal.case],
            ),
        )

    @cached_property
    def tests_with_holm(self) -> pd.DataFrame:
        """The tests; ``p_holm`` is over the family of the answer, or of the findings below it."""
        tests, known = self.tests.copy(), self.tests_by(self.answer_estimates.unit)
        below = [c for c in self.answer.conclusions if c.kind in ("pair", "operating_point")]
        for claims in (self.answer.claims, [claim for each in below for claim in each.claims]):
            found = [known.rows_of(c.first, c.second, (c.metric, c.policy)) for c in claims]
            told = [rows.index[0] for rows in found if len(rows)]
            if told:
                tests.loc[told, "p_holm"] = holm(tests.loc[told, "p_value"].tolist())
        return tests


def _percent(*shares: float) -> str:
    return f"{' to '.join(f'{100 * share:.1f}' for share in shares)} %"


def _cautions(
    background: Background,
    figures: Estimates,
    failures: pd.DataFrame,
    notes: Sequence[Note] = (),
) -> tuple[Note, ...]:
    """What may make the answer wrong, the most harmful first; of the notes their cautions."""
    early: tuple[NoteKind, ...] = ("by_image", "copies")
    parts = [note for note in notes if note.kind in early]
    parts += [
        Note("audit", f"The audit of this data set found an error: {error}.")
        for error in background.audit or ()
    ]
    if background.data_name and background.audit is None:
        text = (
            "Whether a patient is in both training and test data was not checked (run cxr check)."
        )
        parts.append(Note("no_audit", text))
    parts += _against_chance(figures)
    parts += _against_shortcuts(failures)
    parts += _trained_elsewhere(background)
    if background.synthetic:
        parts.append(Note("synthetic", "Synthetic images: the figures say nothing about patients."))
    parts += [note for note in notes if note.caution and note.kind not in early]
    return tuple(parts)


def _against_chance(figures: Estimates) -> list[Note]:
    """Systems whose AUROC's interval holds 0.5, or lies below it."""
    aurocs = {name: figures.get(name, "auroc") for name in figures.systems}
    bounded = {name: auroc for name, auroc in aurocs.items() if auroc.bounded}
    groups: dict[NoteKind, list[str]] = {
        "chance": [n for n, auroc in bounded.items() if auroc.low <= CHANCE <= auroc.high],
        "below_chance": [n for n, auroc in bounded.items() if auroc.high < CHANCE],
    }
    parts = []
    for kind, names in groups.items():
        values = [
            f"{name} ({number(aurocs[name].estimate)}, 95 % interval {interval_text(aurocs[name])})"
            for name in names
        ]
        if values:
            were = "was" if len(values) == 1 else "were"
            said = "not shown to be better than" if kind == "chance" else "worse than"
            parts.append(Note(kind, f"By AUROC, {listing(values)} {were} {said} chance (0.5)."))
    return parts


def _against_shortcuts(failures: pd.DataFrame) -> list[Note]:
    """Systems that were not shown to exceed the label predicted from metadata and image borders."""
    if failures.empty:
        return []
    gaps = failures[failures["topic"] == BEYOND_SHORTCUT]
    if gaps.empty:
        return []
    fact = str(gaps["group"].iloc[0])
    of_fact = failures[(failures["topic"] == SHORTCUT) & (failures["group"] == fact)]
    guess = Estimate.from_row(of_fact.iloc[0])
    values = []
    for _, row in gaps.iterrows():
        gap = Estimate.from_row(row)
        if gap.excludes_zero and gap.estimate > 0:
            continue
        tested = f", 95 % interval {interval_text(gap)}" if gap.bounded else ", not tested"
        there = number(guess.estimate + gap.estimate)
        values.append(f"{row['system']} ({there}, difference {number(gap.estimate)}{tested})")
    if not values:
        return []
    were = "was" if len(values) == 1 else "were"
    text = (
        f"The label can be predicted without the lungs, from {fact}, with AUROC "
        f"{number(guess.estimate)} (5-fold, by patient); on the same pairs of images, those of one "
        f"fold, {listing(values)} {were} not shown to exceed that."
    )
    return [Note("shortcut", text)]


def _trained_elsewhere(background: Background) -> list[Note]:
    """Systems that were trained on other data than they are evaluated on, one sentence."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, sets in background.elsewhere.items():
        groups.setdefault(sets, []).append(name)
    here = background.data_name
    said = [
        f"{listing(names)} {'was' if len(names) == 1 else 'were'} trained on data set "
        + listing([f"“{title}”" + " (other images)" * (title == here) for title in sets])
        for sets, names in groups.items()
    ]
    return [Note("elsewhere", f"{'; '.join(said)}; evaluated on “{here}”.")] if said else []
