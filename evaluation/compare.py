"""The comparison of several systems on the same test images."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError, Remedy, counted
from cxr_compare.evaluation.choices import choose
from cxr_compare.evaluation.figures import AP50, AUROC, FigureRows, Key, corrected
from cxr_compare.evaluation.image_blind import (
    IMAGE_BLIND_PAGE,
    Places,
    image_blind_name,
    learn_places,
)
from cxr_compare.evaluation.metrics import BOX_F1, METRICS
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.output import IMAGE_SCORES, Output
from cxr_compare.evaluation.paired_differences import figure_table
from cxr_compare.evaluation.policies import USUAL_POLICY, policy_text
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.evaluation.replicates import SystemFigures, choose_again, replicates
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.subgroups import image_groups
from cxr_compare.evaluation.truth import Truth

_SHOWN = 5
UNITS = {"image": "images", "study": "studies", "patient": "patients"}
"""Plural of each unit that is evaluated."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Everything from which a result is made.

    Attributes:
        truth: The evaluated test images.
        systems: Every system on these images, the reference first, with its output and choices.
        baselines: Image-blind baselines by their names, as `image_blind_name` gives them.
        rows: Figures with their intervals and replicates; `figures` is their table.
        policies: Policies by which at least one system has a threshold, as they were named.
        joint: Name of the system that joins others, `members`; empty without one.
        primary: Keys of the primary figures, which answer the question: that of the protocol first.
        with_boxes: Systems that give boxes of their own.
        n_findings: Number of findings over which ``p_holm`` of the figures is corrected.
        by_image_score: Primary figure of each detector by each rule that reduces boxes.
    """

    truth: Truth
    systems: Mapping[str, SystemFigures]
    baselines: Mapping[str, SystemFigures]
    rows: FigureRows
    figures: pd.DataFrame
    resamples: Resamples
    protocol: Protocol
    policies: Sequence[str] = ()
    unit: str = "image"
    joint: str = ""
    members: tuple[str, ...] = ()
    notes: Sequence[Note] = ()
    primary: tuple[Key, ...] = (AUROC,)
    with_boxes: frozenset[str] = frozenset()
    n_findings: int = 1
    by_image_score: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def single(self) -> list[str]:
        """Names of the systems that join no others."""
        return [name for name in self.systems if name != self.joint]

    @property
    def units(self) -> str:
        """Plural of the unit: images, studies or patients."""
        return UNITS[self.unit]

    @property
    def main_policy(self) -> str:
        """Policy of results that are shown at one threshold only; empty without a threshold."""
        return self.protocol.policy or next(iter(self.policies), "")

    @property
    def primary_title(self) -> str:
        """Name of the primary figure in a sentence, with its threshold if every system has one."""
        all_rank = all(system.output.ranks for system in self.systems.values())
        return self.protocol.title if all_rank else METRICS[self.protocol.metric].inside

    def called(self, name: str, policy: str) -> npt.NDArray[np.bool_] | None:
        """Return True for the images that a system calls positive; None without a threshold."""
        system = self.systems[name]
        threshold = system.choices.thresholds.get(policy)
        return None if threshold is None else system.scores >= threshold

    @cached_property
    def decisions(self) -> pd.DataFrame:
        """One row for each image and system: label, score, probability, place and decisions."""
        tables = []
        for name, system in self.systems.items():
            ids = self.truth.ids.rename("image_id")
            table = pd.DataFrame({"system": name}, index=ids)
            table["patient_id"], table["label"] = self.truth.owners, self.truth.images["label"]
            table["score"] = system.scores
            table["probability"] = np.nan
            if system.choices.calibration is not None:
                table["probability"] = system.choices.calibration.probability(system.scores)
            hits = pd.Series(system.localised, ids, dtype="boolean")
            table["localised"] = hits.where(system.boxed)
            for policy in self.policies:
                called = pd.Series(self.called(name, policy), ids, dtype="boolean")
                table[f"decision_{policy}"] = called
            tables.append(table.reset_index())
        return pd.concat(tables, ignore_index=True)


def common_images(
    truth: Truth, outputs: Mapping[str, Output], *, common: bool = False
) -> tuple[Truth, list[Note]]:
    """Return the test images that all systems ran on; InputError for others unless `common`."""
    test = truth.of("test")
    ids = test.ids
    for output in outputs.values():
        ids = ids.intersection(output.ran)
    lacking = {name: test.ids.difference(output.ran) for name, output in outputs.items()}
    if any(map(len, lacking.values())) and not common:
        lacking_texts = []
        for name, missing_ids in lacking.items():
            ellipsis = ", ..." if len(missing_ids) > _SHOWN else ""
            if len(missing_ids):
                lacking_texts.append(
                    f"{name} lacks {len(missing_ids)} ({', '.join(missing_ids[:_SHOWN])}{ellipsis})"
                )
        raise InputError(
            f"the systems' test images differ: {'; '.join(lacking_texts)}; predict them",
            [Remedy("those that all have shall count", {"images": "common"})],
        )
    if not len(ids):
        raise InputError(
            "compare: no test image with a known label was run by all systems; give images of the "
            "role test, and predict them"
        )
    unknown = (truth.images["role"] == "test") & truth.images["label"].isna()
    notes = []
    if unknown.any():
        notes.append(
            Note(f"{counted(int(unknown.sum()), 'test image')} of unknown label left out.")
        )
    if len(ids) < len(test.ids):
        dropped = test.select(test.ids.difference(ids))
        text = (
            f"{len(dropped.ids):,} of {len(test.ids):,} labelled test images are not evaluated, "
            f"because not every system has an answer to them: {int(dropped.positive.sum()):,} of "
            f"them are positive ({_percent(dropped)} %), against {_percent(test.select(ids))} % of "
            "the evaluated ones."
        )
        notes.append(Note(text, "left_out"))
    return test.select(ids), notes


def _percent(truth: Truth) -> str:
    return f"{100 * truth.positive.mean():.0f}"


def compare_outputs(
    outputs: Mapping[str, Output],
    truth: Truth,
    *,
    policies: Sequence[str] = (),
    n_replicates: int = 2000,
    seed: int = 0,
    common: bool = False,
    protocol: Protocol | None = None,
    unit: str = "image",
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Evaluate systems on the same test images, and compare them with intervals by patient.

    Thresholds, calibration and the rule of map boxes of each system are chosen on validation
    images, by the policy of the protocol and by `policies`, or by ``max_f1`` without either. With
    the unit ``patient`` or ``study`` these take the place of images. `advance` is called with
    numbers of resamples.
    """
    protocol = protocol or Protocol()
    test, notes = common_images(truth, outputs, common=common)
    of_rules = {rule: _by_rule(outputs, rule) for rule in IMAGE_SCORES}
    if unit != "image":
        of_rules = {rule: _by_unit(made, truth, test, unit)[0] for rule, made in of_rules.items()}
        outputs, truth, note = _by_unit(outputs, truth, test, unit)
        test = truth.of("test")
        notes.append(note)
    if protocol.subgroups:  # refused before the work
        image_groups(test.images, protocol.subgroups)
    stated_policies = dict.fromkeys(filter(None, [protocol.policy, *policies]))
    threshold_policies = list(stated_policies) or [USUAL_POLICY]
    validation = truth.of("val")
    systems: dict[str, SystemFigures] = {}
    joint, members = "", ()
    for name, output in outputs.items():
        ran_validation = validation.select(validation.ids.intersection(output.ran))
        systems[name] = SystemFigures(
            test,
            output.select(test.ids),
            choose(output, ran_validation, threshold_policies),
            decides_by_boxes=_have_boxes_without_scores(outputs),
        )
        notes += output.notes
        if output.record.get("members"):
            joint, members = name, tuple(output.record["members"])
    protocol = _without_ranking(protocol, systems)
    protocol.require(systems)
    single = {name: system for name, system in systems.items() if name != joint}
    with_boxes = frozenset(
        name
        for name, system in single.items()
        if system.output.boxes is not None and (system.output.ranks or system.decides_by_boxes)
    )
    primary = _primary(protocol, single, all_boxes=with_boxes == {*single})
    if policies or protocol.margin is None:  # else the gate is the whole question
        notes += _without_threshold(systems, threshold_policies)
    places = learn_places(truth)
    baselines = _baselines(systems, places, notes)
    resamples = Resamples(test.n_patients, n_replicates, seed)
    choices_again = choose_again(
        {name: system.choices for name, system in systems.items()}, n_replicates, seed
    )
    if places is not None and baselines:
        baseline_choices = {"point": places.best_again(n_replicates, seed)}
        choices_again |= {
            image_blind_name(name): choices_again[name] | baseline_choices for name in systems
        }
    frames = replicates({**systems, **baselines}, choices_again, resamples, advance)
    rows = FigureRows(test, {**systems, **baselines}, frames, primary)
    baseline_pairs = [
        (name, image_blind_name(name)) for name in systems if image_blind_name(name) in baselines
    ]
    table = figure_table(rows, [*combinations(systems, 2), *baseline_pairs])
    (figures,) = corrected([table], joint, primary=primary, with_boxes=with_boxes)
    # A baseline has figures of places only.
    is_reported = figures["estimate"].notna() | ~figures["first"].isin(list(baselines))
    figures = _with_notes_of_joint(figures[is_reported].reset_index(drop=True), joint)
    return Comparison(
        truth=test,
        systems=systems,
        baselines=baselines,
        rows=rows,
        figures=figures,
        resamples=resamples,
        protocol=protocol,
        policies=[
            policy
            for policy in threshold_policies
            if any(policy in system.choices.thresholds for system in systems.values())
        ],
        unit=unit,
        joint=joint,
        members=members,
        notes=[*notes, *truth.notes],
        primary=primary,
        with_boxes=with_boxes,
        by_image_score=_by_image_score(of_rules, truth, test, protocol.key),
    )


def _by_rule(outputs: Mapping[str, Output], rule: str) -> dict[str, Output]:
    """Return the scores of images that a rule makes of the boxes of each detector."""
    reduced = {name: output.by_image_score(rule) for name, output in outputs.items()}
    return {name: output for name, output in reduced.items() if output is not None}


def _by_image_score(
    of_rules: Mapping[str, Mapping[str, Output]], truth: Truth, test: Truth, key: Key
) -> dict[str, dict[str, float]]:
    """Return the primary figure of each detector by each rule; empty for a figure of places."""
    validation, (metric, policy) = truth.of("val"), key
    once = np.ones((1, test.n_patients), dtype=np.int16)
    values: dict[str, dict[str, float]] = {}
    for rule, outputs in of_rules.items():
        for name, output in outputs.items():
            ran_validation = validation.select(validation.ids.intersection(output.ran))
            choices = choose(output, ran_validation, [policy] if policy else [])
            figures = SystemFigures(test, output.select(test.ids), choices)(once, {})
            (value,) = figures.get((policy, metric), [np.nan])
            if np.isfinite(value):
                values.setdefault(name, {})[rule] = float(value)
    return values


def _with_notes_of_joint(figures: pd.DataFrame, joint: str) -> pd.DataFrame:
    """Note on each figure of places of a joint system that its boxes are those of a member."""
    if not joint:
        return figures
    of_joint = figures[["first", "second"]].isin([joint]).any(axis=1)
    of_joint &= figures["metric"].map(lambda name: METRICS[name].boxed)
    added = f"{joint} has the boxes of a member, so figures of places are not its own"
    notes = figures["note"].fillna("")
    noted = (notes + "; ").where(notes != "", "") + added
    return figures.assign(note=figures["note"].mask(of_joint, noted))


def _primary(
    protocol: Protocol, systems: Mapping[str, SystemFigures], *, all_boxes: bool
) -> tuple[Key, ...]:
    """Return the primary figures: two, for images and for places, if all systems give boxes.

    That of places is AP50, or F1 of the boxes if some have no scores. InputError if a margin is
    stated, which is that of one figure.
    """
    primary: tuple[Key, ...] = (protocol.key,)
    if all_boxes and len(systems) > 1 and not protocol.chosen:
        ranked = all(
            system.output.ranks and system.localised is not None for system in systems.values()
        )
        called = all(system.called_boxes is not None for system in systems.values())
        if protocol.key == AUROC and ranked:
            primary = (AUROC, AP50)
        elif protocol.metric == "f1" and called:
            primary = (protocol.key, (BOX_F1, protocol.policy))
    protocol.require_one([metric for metric, _ in primary])
    return primary


def _have_boxes_without_scores(outputs: Mapping[str, Output]) -> bool:
    return any(not output.ranks and output.boxes is not None for output in outputs.values())


def _without_ranking(protocol: Protocol, systems: Mapping[str, SystemFigures]) -> Protocol:
    """Let F1 decide if boxes of a system have no scores, unless the figure is fixed."""
    thresholds_by_system = [system.choices.thresholds for system in systems.values()]
    common = [
        policy
        for policy in thresholds_by_system[0]
        if all(policy in thresholds for thresholds in thresholds_by_system)
    ]
    if protocol.chosen or all(system.output.ranks for system in systems.values()) or not common:
        return protocol
    return replace(protocol, metric="f1", policy=common[0])


def _without_threshold(
    systems: Mapping[str, SystemFigures], policies: Sequence[str]
) -> Iterator[Note]:
    """Yield why systems have no threshold for a policy."""
    for policy in policies:
        lacking: dict[str, list[str]] = {}
        for name, system in systems.items():
            if policy not in system.choices.thresholds:
                lacking.setdefault(system.choices.reasons[policy], []).append(name)
        for reason, names in lacking.items():
            text = f"No threshold for {policy_text(policy)} was chosen for {', '.join(names)}"
            yield Note(f"{text}: {reason}.")


def _by_unit(
    outputs: Mapping[str, Output], truth: Truth, test: Truth, unit: str
) -> tuple[dict[str, Output], Truth, Note]:
    """Return studies or patients in place of images, each with the highest label and score."""
    names = truth.unit_names(unit)
    evaluated_ids = truth.of("val").ids.union(test.ids)
    # Resamples are of the patients of all evaluated images.
    grouped = replace(truth.by_unit(names, evaluated_ids), drawn=test.names)
    n_test_units = int((grouped.images["role"] == "test").sum())
    n_evaluated = len(grouped.of("test").ids)
    if not n_evaluated:
        raise InputError(f"unit: no {unit} has a known label")
    text = f"By {unit}: {n_evaluated:,} {UNITS[unit]} with {len(test.ids):,} test images"
    if n_test_units > n_evaluated:
        text += f"; {n_test_units - n_evaluated:,} of unknown label left out"
    grouped_outputs = {
        name: output.by_unit(names.reindex(output.ran.intersection(evaluated_ids)))
        for name, output in outputs.items()
    }
    return grouped_outputs, grouped, Note(f"{text}.")


def _baselines(
    systems: Mapping[str, SystemFigures], places: Places | None, notes: list[Note]
) -> dict[str, SystemFigures]:
    """Return the image-blind baseline of each system that shows places, by the baseline's name."""
    showing = {name: system for name, system in systems.items() if system.localised is not None}
    if places is None and showing:
        notes.append(
            Note(
                "There is no image-blind baseline, as no validation or training image has a box. "
                "So it is not known whether the systems localise lesions better than constant "
                "positions.",
                is_said=True,
                page=IMAGE_BLIND_PAGE,
            )
        )
    if places is None or not showing:
        return {}
    notes.append(places.note())
    return {
        image_blind_name(name): SystemFigures(
            system.truth,
            system.output,
            system.choices,
            places=places,
            decides_by_boxes=system.decides_by_boxes,
        )
        for name, system in showing.items()
    }
