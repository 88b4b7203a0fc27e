"""What a comparison holds: everything that a report needs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.words import counted
from data_prep.store.dataset import Target
from evaluation.boxes.froc import FrocCurve, Hit
from evaluation.compare.cautions import Background, cautions
from evaluation.compare.estimates import Estimates
from evaluation.compare.protocol import EXPLORATORY, Protocol
from evaluation.compare.test_set_log import TestSetUses
from evaluation.compare.verdict import Setting, Verdict, state_verdict
from evaluation.decisions.referral import CoverageCurve
from evaluation.metrics.evaluation_set import EvaluationSet, Note
from evaluation.statistics.auroc_variance import effective_patients
from evaluation.statistics.ranking import Floats
from evaluation.systems.eligibility import training_id

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
        known = {name: each.seeds for name, each in self.systems.items()}
        return {name: seeds for name, seeds in known.items() if seeds is not None}

    @property
    def same_training(self) -> dict[str, str]:
        """Systems of one training, as a run and its export: the first's name by the others'."""
        facts = self.provenance.get("systems", {})
        known = {name: training_id(facts.get(name, {})) for name in self.names}
        exported = [name for name in self.names if facts.get(name, {}).get("exported_from")]
        groups = {
            training: [name for name in self.names if known[name] == training]
            for training in (known[name] for name in exported)
        }
        return {name: group[0] for group in groups.values() for name in group[1:]}

    def with_uses(self, uses: TestSetUses) -> Comparison:
        """Add how often the test images were used, and a note where that is unknown."""
        notes = [*self.notes, *([Note("uses", uses.problem)] if uses.problem else [])]
        provenance = self.provenance | {"looks": uses.to_json()}
        return replace(self, uses=uses, notes=notes, provenance=provenance)

    @property
    def verdict(self) -> str:
        """The answer in one sentence that the intervals support."""
        return self.answer.headline

    @property
    def answer(self) -> Verdict:
        """The answer with its scope and the further comparisons, for the protocol's unit."""
        of_units = self.by_unit is not None and self.protocol.unit in ("study", "patient")
        figures = self.by_unit if of_units and self.by_unit is not None else self.estimates
        return state_verdict(
            figures,
            self.names,
            self.target.display_name,
            protocol=self.protocol,
            tests=self._tests_of(self.protocol.unit if of_units else "image"),
            setting=Setting(
                seeds=self.seeds,
                same_training=self.same_training,
                synthetic=self.background.synthetic,
                cautions=cautions(self.background, figures, self.failures, self.notes),
                uses_before=None if self.uses is None else self.uses.before_protocol,
            ),
        )

    def _tests_of(self, unit: str | None) -> pd.DataFrame:
        return self.tests[self.tests["unit"] == unit] if len(self.tests) else self.tests


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
