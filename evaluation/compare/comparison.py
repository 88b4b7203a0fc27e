"""What a comparison holds: everything that a report needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.folders import provenance
from data_prep.contracts.words import counted
from data_prep.store.dataset import Target
from data_prep.work.addresses import shown
from evaluation.boxes.froc import FrocCurve, Hit
from evaluation.compare.cautions import Background, cautions
from evaluation.compare.estimates import Estimates
from evaluation.compare.protocol import EXPLORATORY, Protocol
from evaluation.compare.scorecard import JudgedModel, Models, Scorecard
from evaluation.compare.test_set_log import TestSetUses
from evaluation.compare.verdict import Setting, Verdict, state_verdict
from evaluation.decisions.referral import CoverageCurve
from evaluation.decisions.test_set import TestSet
from evaluation.decisions.tuning import validation_scores
from evaluation.metrics.evaluation_set import EvaluationSet, Note
from evaluation.statistics.auroc_variance import effective_patients
from evaluation.statistics.bootstrap import Resamples
from evaluation.statistics.ranking import Floats, curves
from evaluation.systems.eligibility import describe_training_data, training_id

FEW_PATIENTS = 20
"""Effective patients of a class below which a comparison carries a caution."""
MANY_IMAGES = 0.1
"""Share of a class's images in one patient from which it does."""


@dataclass(frozen=True)
class SystemResult:
    """What one system gave on the test images; of several training seeds the first's.

    Attributes:
        thresholds: Per policy; `None` where validation gives none.
        curve: ``threshold``, ``fpr``, ``tpr``, ``precision``, ``recall``; empty where unknown.
        confusion: Per policy that has a threshold ``tp``, ``fp``, ``tn``, ``fn``.
        boxes: On the test images; a classifier's are read from its maps; `None` without any.
        maps: Activation maps on the test images, one per image; `None` without any.
        map_scale: The fixed low and high end of the maps.
        cost: Parameters, FLOPs, latency; values may be `None`.
        froc: The FROC curve per kind of hit (``iou``, ``centre``); empty without boxes.
        coverage: The accuracy-coverage curve per policy at which images are referred to a reader.
        validation: ``label`` and ``score`` of the validation images; may be empty.
        seeds: Training runs behind the system; `None` where unknown (other software, readers).
    """

    thresholds: dict[str, float | None] = field(default_factory=dict)
    curve: dict[str, Floats] = field(default_factory=dict)
    confusion: dict[str, dict[str, int]] = field(default_factory=dict)
    boxes: pd.DataFrame | None = None
    maps: pd.DataFrame | None = None
    map_scale: tuple[float, float] | None = None
    cost: dict[str, Any] = field(default_factory=dict)
    froc: dict[Hit, FrocCurve] = field(default_factory=dict)
    coverage: dict[str, CoverageCurve] = field(default_factory=dict)
    validation: pd.DataFrame = field(default_factory=pd.DataFrame)
    seeds: int | None = None

    @classmethod
    def of(cls, models: Sequence[JudgedModel], test_set: TestSet) -> SystemResult:
        """What is drawn and listed of a system, from its first seed."""
        model = models[0]
        card, decision, output = model.card, model.decision, model.output
        confusion = {policy: card.confusion(policy) for policy in card.thresholds}
        one_unknown = len(models) == 1 and model.predictions.info.get("seed") is None
        return cls(
            thresholds={policy: choice.threshold for policy, choice in card.thresholds.items()},
            curve=curves(card.judged.y_true, card.scores),
            confusion={policy: counts for policy, counts in confusion.items() if counts},
            boxes=card.boxes,
            maps=None if output.gives_boxes else output.maps,
            map_scale=decision.map_scale,
            cost=dict(model.predictions.info.get("cost") or {}),
            froc=card.froc(),
            coverage={policy: left.curve() for policy, left in card.referred.items()},
            validation=validation_scores(model.predictions, decision, test_set),
            seeds=None if one_unknown else len(models),
        )

    def __repr__(self) -> str:
        points = "with places" if self.points else "without places"
        return f"<SystemResult {points}, policies {', '.join(self.thresholds) or 'none'}>"

    @property
    def points(self) -> bool:
        """Whether the system points at places, with boxes or maps."""
        return self.boxes is not None or self.maps is not None


@dataclass(frozen=True)
class Comparison:
    """Everything a report needs.

    Attributes:
        target: What was judged.
        systems: By display name, in the order given; the first is the reference.
        estimates: Every figure with its interval, of systems and paired differences.
        tests: Paired tests and intervals by other methods, see `evaluation.compare.paired_tests`.
        failures: In which groups and ways each system fails, see `failure_analysis`.
        decisions: One row per image and system: ``label``, ``score``, ``probability``,
            ``decision_<policy>``, ``localised`` (positive images with trusted boxes only),
            ``point_x``, ``point_y`` (original px), ``x_class``, ``patient_id``.
        notes: What a reader must know: images left out, systems without validation, ...
        provenance: Ids, seeds, versions, commands.
        protocol: The question.
        by_unit: The image-level figures by study or patient; `None` where images are the unit.
        uses: How often the test images were used, where that is logged.
        background: What is known of the data behind it.
    """

    target: Target
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

    def __repr__(self) -> str:
        judged = f"{counted(self.decisions['image_id'].nunique(), 'test image')}"
        return f"<Comparison of {' and '.join(self.names)} on {self.target.name}: {judged}>"

    @property
    def names(self) -> list[str]:
        """Display names of the systems, in the order given."""
        return list(self.systems)

    @cached_property
    def metrics(self) -> pd.DataFrame:
        """The tidy table by image, one row a figure; a paired difference has system ``A - B``."""
        return self.estimates.table()

    @property
    def effective_patients(self) -> float | None:
        """Of the rarer class of the test images; `None` where unknown."""
        return self.estimates.of(self.names[0], "auroc").effective_patients

    @property
    def seeds(self) -> dict[str, int]:
        """How many training runs are behind each system, where known."""
        seeds = {name: result.seeds for name, result in self.systems.items()}
        return {name: count for name, count in seeds.items() if count is not None}

    @property
    def same_training(self) -> dict[str, str]:
        """Systems of one training, as a run and its export: the first's name by the others'."""
        facts = self.provenance.get("systems", {})
        ids = {name: training_id(facts.get(name, {})) for name in self.names}
        exported = [name for name in self.names if facts.get(name, {}).get("exported_from")]
        groups = {
            training: [name for name in self.names if ids[name] == training]
            for training in (ids[name] for name in exported)
        }
        return {name: group[0] for group in groups.values() for name in group[1:]}

    def with_uses(self, uses: TestSetUses) -> Comparison:
        """Add how often the test images were used, and a note where that is unknown."""
        notes = [*self.notes, *([Note("uses", uses.problem)] if uses.problem else [])]
        provenance = self.provenance | {"looks": uses.to_dict()}
        return replace(self, uses=uses, notes=notes, provenance=provenance)

    @property
    def verdict(self) -> str:
        """The answer in one sentence that the intervals support."""
        return self.answer.headline

    @property
    def answer(self) -> Verdict:
        """The answer with its scope and the further comparisons, for the protocol's unit."""
        estimates, unit = self.estimates, "image"
        if self.by_unit is not None and self.protocol.unit in ("study", "patient"):
            estimates, unit = self.by_unit, self.protocol.unit
        return state_verdict(
            estimates,
            self.names,
            self.target.display_name,
            protocol=self.protocol,
            tests=self.tests[self.tests["unit"] == unit] if len(self.tests) else self.tests,
            setting=Setting(
                seeds=self.seeds,
                same_training=self.same_training,
                synthetic=self.background.synthetic,
                cautions=cautions(self.background, estimates, self.failures, self.notes),
                uses_before=None if self.uses is None else self.uses.before_protocol,
            ),
        )


def patient_notes(judged: EvaluationSet) -> list[Note]:
    """Caution where a class has few effective patients, or one patient much of its images."""
    notes = []
    for name, of_class in (("positive", judged.y_true), ("negative", ~judged.y_true)):
        images = np.bincount(judged.patients[of_class])
        n_images, n_patients = int(images.sum()), int(np.count_nonzero(images))
        effective = effective_patients(images)
        if not n_images:
            continue
        text = ""
        if effective < FEW_PATIENTS:
            text = (
                f"The {n_images:,} {name} images are of {counted(n_patients, 'patient')} and say "
                "as much as "
                f"those of {effective:.1f} patients with one image each: below {FEW_PATIENTS}, one "
                "patient more or less may change the answer."
            )
        most = int(images.max())
        if most > 1 and most >= MANY_IMAGES * n_images:
            text += (
                f" One patient has {most:,} of the {n_images:,} {name} images "
                f"({100 * most / n_images:.0f} %)."
            )
        if text:
            notes.append(Note("few_patients", text.strip()))
    return notes


def decisions_table(models: Models, images: pd.DataFrame) -> pd.DataFrame:
    """One row per image and system: systems in order, images sorted, the first seed of each."""
    tables = [_decisions(name, members[0]) for name, members in models.items()]
    table = pd.concat(tables, ignore_index=True)
    return table.merge(images[["image_id", "patient_id"]], on="image_id", how="left")


def _decisions(name: str, model: JudgedModel) -> pd.DataFrame:
    card, judged, platt = model.card, model.card.judged, model.decision.calibration
    frame = pd.DataFrame({"image_id": judged.image_ids.to_numpy(), "system": name})
    frame["label"] = judged.y_true.astype(np.float64)
    frame["score"] = card.scores
    frame["probability"] = np.nan if platt is None else platt.probability(card.scores)
    for policy in card.thresholds:
        called = card.called(policy)
        column = pd.array([pd.NA] * len(frame) if called is None else called, dtype="boolean")
        frame[f"decision_{policy}"] = column
        left = card.referred.get(policy)
        if left is not None and left.referred is not None:
            frame[f"referred_{policy}"] = pd.array(left.referred, dtype="boolean")
    points = np.full((len(frame), 2), np.nan) if card.points is None else card.points
    frame[["point_x", "point_y"]] = np.asarray(points, dtype=np.float64)
    frame["localised"] = _place_column(card, card.localised)
    frame["localised_tolerant"] = _place_column(card, card.localised_tolerant)
    if judged.x_class is not None:
        frame["x_class"] = judged.x_class.to_numpy()
    return frame


def _place_column(card: Scorecard, on_lesion: npt.NDArray[np.bool_] | None) -> pd.Series:
    """Right place or not, known only for positive images whose boxes are trusted."""
    judged = card.judged
    column = pd.Series(pd.array([pd.NA] * len(judged.image_ids), dtype="boolean"))
    if on_lesion is not None:
        boxed = judged.y_true & judged.boxes_trusted
        column[boxed] = on_lesion[boxed]
    return column


_RECORDED = (
    "system", "seed", "kind", "inference_id", "training_id", "exported_from", "maps", "command",
    "created", "revision", "versions",
)  # fmt: skip


def comparison_provenance(
    models: Models, test_set: TestSet, protocol: Protocol, resamples: Resamples
) -> dict[str, Any]:
    """Ids, seeds, versions and what each system was trained on, as `Comparison.provenance`."""
    dataset = test_set.dataset
    systems = {name: _system_facts(members) for name, members in models.items()}
    return provenance() | {
        "data_set": {"name": dataset.name, **dataset.ids, "split": test_set.split},
        "bootstrap": {
            "replicates": resamples.n_replicates,
            "seed": resamples.seed,
            "interval": "percentile",
        },
        "seeds": {name: facts["seed"] for name, facts in systems.items()},
        "systems": systems,
        "protocol": protocol.to_dict(),
    }


def _system_facts(models: Sequence[JudgedModel]) -> dict[str, Any]:
    facts = [
        {
            "folder": shown(str(model.predictions.folder)),
            **{key: model.predictions.info.get(key) for key in _RECORDED},
            "trained_on": describe_training_data(model.predictions),
            "decision": model.decision.to_dict(),
        }
        for model in models
    ]
    if len(facts) == 1:
        return facts[0]
    return facts[0] | {"seed": [of_one["seed"] for of_one in facts], "models": facts}
