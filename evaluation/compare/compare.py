"""Compare systems on the same test images: every figure, its interval, and every difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import provenance
from data_prep.contracts.words import counted
from data_prep.store.predictions import Predictions
from data_prep.work.object_store import shown
from evaluation.compare.comparison import Background, Comparison, SystemResult
from evaluation.compare.estimates import FAILURES_WRONG, Estimate, Estimates
from evaluation.compare.failure_analysis import failure_table, image_groups
from evaluation.compare.intervals import resampled_figures
from evaluation.compare.paired_tests import (
    clustered_auroc,
    paired_tests,
    resampled_tests,
    seed_parts,
    with_clustered_auroc,
)
from evaluation.compare.protocol import EXPLORATORY, Protocol
from evaluation.compare.scorecard import (
    Cards,
    JudgedModel,
    Models,
    Scorecard,
    cards_of,
    judge_models,
)
from evaluation.decisions.system_output import SystemOutput
from evaluation.decisions.test_set import (
    EvaluationSet,
    TestSet,
    Unit,
    Units,
    group_images,
    judged_units,
)
from evaluation.decisions.thresholds import POLICIES
from evaluation.decisions.tuning import tune
from evaluation.metrics.metric import ALL, MetricKey, Note
from evaluation.metrics.registry import METRICS, why_undefined
from evaluation.statistics.bootstrap import Resamples
from evaluation.statistics.clustered_tests import AurocParts, effective_patients
from evaluation.systems.eligibility import (
    Images,
    attempted_images,
    common_test_images,
    describe_images,
    describe_training_data,
    training_id,
)

_FEW_PATIENTS = 20
"""Effective patients of a class below which a comparison carries a caution."""
_MANY_IMAGES = 0.1
"""Share of a class's images in one patient from which it does."""
_KEPT = ("auroc", "accuracy", "recall", "specificity", "f1")
_NONE_FAILED = "no image failed"


def compare_systems(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
    test_set: TestSet,
    *,
    images: Images = "all",
    policies: Sequence[str] = POLICIES,
    replicates: int = 2000,
    seed: int = 0,
    protocol: Protocol = EXPLORATORY,
    prevalence: float | None = None,
    unit: Unit = "image",
    extra_policies: Sequence[str] = (),
    advance: Callable[[int], None] | None = None,
) -> Comparison:
    """Score systems on the same test images, with paired patient-cluster bootstrap intervals.

    Each system's decision is derived again from its validation images; one that `cxr tune` has
    stored must agree with it.

    Args:
        systems: Predictions by display name, in the order to show them, the reference system
            first; several training seeds of one system as a sequence.
        test_set: What is judged.
        images: ``all`` refuses systems that ran on different test images; ``common`` takes the
            images that all ran on.
        policies: Policies for systems that are not tuned yet.
        replicates: Bootstrap resamples.
        seed: Of the resamples.
        protocol: The question: primary figure, margin, reference system, subgroups.
        prevalence: Of positives where the systems will be used, for PPV and NPV there.
        unit: ``study`` or ``patient``: the image-level figures by these, too.
        extra_policies: Policies beside those that systems are tuned for.
        advance: Called with the number of replicates done in each step.

    Returns:
        The comparison.

    Raises:
        InputError: The systems' images differ, a decision was chosen on other rows than the
            validation rows at hand, a system has seen test patients, or one lacks the figure that
            a protocol named.
    """
    if not systems:
        raise InputError("compare needs at least one system")
    systems = {name: systems[name] for name in protocol.in_order(systems)}
    policies = tuple(dict.fromkeys((*policies, *filter(None, [protocol.policy]))))
    unit = protocol.unit_of(unit)
    if prevalence is not None and not 0 < prevalence < 1:
        raise InputError(f"--prevalence {prevalence:g}: must lie above 0 and below 1")
    image_groups(test_set.images, protocol.subgroups)  # refuses what cannot be analysed
    named = _name_models(systems)
    judged, notes = common_test_images(_by_label(named), test_set, images=images)
    models, of_models = judge_models(named, judged, test_set, policies, extra_policies)
    _check_protocol(protocol, models)
    cards = cards_of(models)
    resamples = Resamples(judged.n_patients, replicates, seed)
    drawn = resampled_figures(test_set.target.name, cards, resamples, advance=advance)
    by_unit, unit_notes, unit_tests = _compare_units(models, judged, test_set, unit, resamples)
    clustered = clustered_auroc(cards)
    estimates = with_clustered_auroc(drawn.estimates, clustered, cards)
    tests = paired_tests(drawn.estimates, cards, clustered, drawn.differences, unit_tests)
    return Comparison(
        target=test_set.target,
        estimates=_failures_as_wrong(estimates, models, test_set, resamples),
        tests=tests,
        failures=failure_table(models, test_set, protocol, prevalence, resamples),
        systems={name: SystemResult.of(seeds, test_set) for name, seeds in models.items()},
        decisions=_decisions_table(models, test_set.images),
        provenance=_provenance_of(models, test_set, protocol, resamples),
        notes=[*notes, *of_models, *_patient_notes(judged), *unit_notes, *_seed_notes(models)],
        protocol=protocol,
        by_unit=by_unit,
        background=Background.of(test_set, judged.image_ids, named),
    )


def pilot_parts(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
    test_set: TestSet,
) -> dict[str, list[AurocParts]]:
    """What each test patient adds to each system's AUROC: what a further study is planned from.

    Args:
        systems: See `compare_systems`.
        test_set: What is judged.

    Returns:
        By system, one for each training seed.

    Raises:
        InputError: As `compare_systems`; or the test images are all of one class.
    """
    named = _name_models(systems)
    judged, _ = common_test_images(_by_label(named), test_set)
    models, _ = judge_models(named, judged, test_set, POLICIES)
    everything = np.ones(len(judged.y_true), dtype=bool)
    parts = {
        name: part
        for name, members in cards_of(models).items()
        if (part := seed_parts(members, everything)) is not None
    }
    if len(parts) < len(named):
        raise InputError(
            f"{test_set.dataset.folder}: the test images of {test_set.target.name} are of one class"
        )
    return parts


def _name_models(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
) -> dict[str, dict[str, Predictions]]:
    """Name every trained model of every system."""
    named: dict[str, dict[str, Predictions]] = {}
    for name, predictions in systems.items():
        seeds = list(predictions) if isinstance(predictions, Sequence) else [predictions]
        if not seeds:
            raise InputError(f"compare: system {name} has no predictions")
        _check_seeds(name, seeds)
        several = len(seeds) > 1
        named[name] = {
            f"{name} #{number}" if several else name: seed
            for number, seed in enumerate(seeds, start=1)
        }
    if len(_by_label(named)) < sum(map(len, named.values())):
        raise InputError("compare: a system is called as a seed of another; rename it")
    return named


def _by_label(named: Mapping[str, Mapping[str, Predictions]]) -> dict[str, Predictions]:
    """All models of all systems."""
    return {label: seed for models in named.values() for label, seed in models.items()}


def _check_protocol(protocol: Protocol, models: Models) -> None:
    """Refuse models that lack the protocol's policy or, where it is declared, the primary figure.

    An exploratory comparison is not refused for a figure: its answer says that there is none.
    """
    for model in (model for members in models.values() for model in members):
        if protocol.policy and protocol.policy not in model.decision.thresholds:
            raise InputError(
                f"{model.predictions.folder}: the protocol asks for policy '{protocol.policy}', "
                f"{model.name} is tuned for {', '.join(model.decision.thresholds)}; run cxr tune "
                "again with it"
            )
        if not protocol.declared:
            continue
        weights = np.ones((1, model.card.judged.n_patients), dtype=np.int16)
        figures = model.card(weights)  # without pycocotools, which is slow and agrees
        for metric, policy in protocol.keys:
            key = MetricKey(ALL, policy, metric)
            if key in figures and not np.isnan(figures[key][0]):
                continue
            undefined = why_undefined(metric) if key in figures else _NEVER
            raise InputError(
                f"protocol: the primary figure '{metric}' is undefined for {model.name}: "
                f"{model.card.missing().get(key) or undefined}; "
                "compare systems that have it, or fix another metric; no figure was shown, "
                "and no use of the test set was logged"
            )


_NEVER = "nothing on validation gives it (a score cut comes from boxes, cxr tune --search)"


def _seed_notes(systems: Models) -> list[Note]:
    """Tell of systems with several seeds."""
    return [
        Note(
            "seeds",
            f"Figures of {name} are means over {len(models)} training seeds; its curves, "
            "confusion matrices and images are those of the first.",
        )
        for name, models in systems.items()
        if len(models) > 1
    ]


def _check_seeds(name: str, members: Sequence[Predictions]) -> None:
    """Refuse the same training twice, which would make a recipe look steadier than it is."""
    ids = [training_id(member.info) for member in members]
    for position, training in enumerate(ids):
        if training in ids[:position]:
            raise InputError(
                f"{members[position].folder}: {name} has these predictions already "
                f"({members[ids.index(training)].folder}), or an export of the same run; give each "
                "training seed once"
            )
    kinds = {member.kind for member in members}
    if len(kinds) > 1:
        raise InputError(
            f"{members[0].folder}: the seeds of {name} are not of one kind "
            f"({' and '.join(sorted(kinds))}); compare them as two systems"
        )


def _patient_notes(judged: EvaluationSet) -> list[Note]:
    """Caution where a class has few effective patients, or one patient much of its images."""
    notes = []
    for name, of_class in (("positive", judged.y_true), ("negative", ~judged.y_true)):
        images = np.bincount(judged.patients[of_class])
        n_images, n_patients = int(images.sum()), int(np.count_nonzero(images))
        effective = effective_patients(images)
        if not n_images:
            continue
        text = ""
        if effective < _FEW_PATIENTS:
            text = (
                f"The {n_images:,} {name} images are of {counted(n_patients, 'patient')} and say "
                f"as much as those of {effective:.1f} patients with one image each: below "
                f"{_FEW_PATIENTS}, one patient more or less may change the answer."
            )
        most = int(images.max())
        if most > 1 and most >= _MANY_IMAGES * n_images:
            text += (
                f" One patient has {most:,} of the {n_images:,} {name} images "
                f"({100 * most / n_images:.0f} %)."
            )
        if text:
            notes.append(Note("few_patients", text.strip()))
    return notes


def _decisions_table(models: Models, images: pd.DataFrame) -> pd.DataFrame:
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


def _provenance_of(
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


def _compare_units(
    models: Models,
    judged: EvaluationSet,
    test_set: TestSet,
    unit: Unit,
    resamples: Resamples,
) -> tuple[Estimates | None, list[Note], pd.DataFrame | None]:
    """Figures by study or patient, notes on them, and the bootstrap's tests of the differences."""
    if unit == "image":
        return None, [], None
    units = group_images(test_set.images, test_set.labels_of("test"), judged.image_ids, unit)
    whole = judged_units(judged, units)
    note = _note(units, whole, judged, unit)
    cards = {
        name: [_unit_card(model, units, whole, test_set, unit) for model in members]
        for name, members in models.items()
    }
    drawn = resampled_figures(test_set.target.name, cards, resamples, unit=unit)
    estimates = _of_units(drawn.estimates, cards)
    tests = resampled_tests(estimates, drawn.differences)
    return _with_thresholds(estimates, cards), [note], tests


def _unit_card(
    model: JudgedModel, units: Units, whole: EvaluationSet, test_set: TestSet, unit: Unit
) -> Scorecard:
    chosen, output = model.decision, model.output
    rule = tune(
        model.predictions,
        test_set,
        policies=list(chosen.thresholds),
        search=chosen.searched,
        options=chosen.options,
        unit=unit,
    )
    scores = pd.Series(units.highest(output.scores(chosen.reduction)), units.names)
    spread = output.spread() if rule.referral else None
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        validation=rule.chosen_scores,
        probability=rule.probability(scores),
        referrals=rule.referral,
        spread=None if spread is None else units.highest(spread),
    )


def _of_units(estimates: Estimates, cards: Cards) -> Estimates:
    """Without figures that need a place: they have no row by unit, not even one that says why."""
    all_cards = [card for members in cards.values() for card in members]
    kept = {key.metric for card in all_cards for key in card.estimates()}
    kept |= {
        key.metric
        for card in all_cards
        for key in card.missing()
        if key.policy and not METRICS[key.metric].boxed
    }
    return estimates.changed(lambda _, key, estimate: estimate if key.metric in kept else None)


def _with_thresholds(figures: Estimates, cards: Cards) -> Estimates:
    """With the thresholds, which are not those by image; of several seeds the first's."""
    counts = next(iter(next(iter(figures.systems.values())).values())).counts
    thresholds = {
        name: {
            MetricKey(ALL, policy, "threshold"): Estimate(choice.threshold, counts=counts)
            for policy, choice in members[0].thresholds.items()
            if choice.threshold is not None
        }
        for name, members in cards.items()
    }
    systems = {name: {**held, **thresholds[name]} for name, held in figures.systems.items()}
    return replace(figures, systems=systems)


def _note(units: Units, whole: EvaluationSet, judged: EvaluationSet, unit: Unit) -> Note:
    plural = {"study": "studies", "patient": "patients"}[unit]
    text = (
        f"By {unit}: {len(units.names):,} {plural} of {len(judged.image_ids):,} images, "
        f"{int(whole.y_true.sum()):,} positive (where any image is); the score is the highest of "
        f"its images, and thresholds are chosen again on validation {plural}."
    )
    if units.n_left_out:
        text += f" {units.n_left_out:,} {plural} with an image of unknown label are left out."
    return Note("unit", text)


def _failures_as_wrong(
    estimates: Estimates, models: Models, test_set: TestSet, resamples: Resamples
) -> Estimates:
    """Add the systems' figures on every image that any of them should have run on.

    An image that a model has no result for counts as wrong: a positive one is ranked below every
    image and called negative, a negative one above every image and called positive.
    """
    predictions = {m.name: m.predictions for members in models.values() for m in members}
    expected = attempted_images(predictions, test_set)
    missing = {
        name: [len(expected.difference(model.predictions.images_run)) for model in members]
        for name, members in models.items()
    }
    if any(count for counts in missing.values() for count in counts):
        again = _with_failures(models, test_set, expected, resamples)
    else:
        again = estimates

    def noted(names: tuple[str, ...], key: MetricKey, estimate: Estimate) -> Estimate | None:
        if not _judged_with_failures(key):
            return None
        if again is not estimates:
            words = _words({name: missing[name] for name in names})
            return replace(estimate, note=f"{estimate.note}; {words}" if estimate.note else words)
        # A note on an estimate without a value says why, and stays.
        return estimate if estimate.note else replace(estimate, note=_NONE_FAILED, of_all=True)

    return estimates.merged(again.changed(noted), FAILURES_WRONG)


def _judged_with_failures(key: MetricKey) -> bool:
    return key.metric in _KEPT and key.subgroup == ALL


def _with_failures(
    models: Models, test_set: TestSet, expected: pd.Index, resamples: Resamples
) -> Estimates:
    judged = describe_images(test_set, expected, test_set.labels)
    cards = {
        name: [_failure_card(model, judged, test_set) for model in members]
        for name, members in models.items()
    }
    of_patients = replace(resamples, n_clusters=judged.n_patients)
    drawn = resampled_figures(test_set.target.name, cards, of_patients, kept=_judged_with_failures)
    return with_clustered_auroc(drawn.estimates, clustered_auroc(cards), cards)


def _failure_card(model: JudgedModel, judged: EvaluationSet, test_set: TestSet) -> Scorecard:
    system, decision = model.predictions, model.decision
    ran = judged.image_ids[judged.image_ids.isin(system.images_run)]
    output = SystemOutput.of(system, test_set, ran, decision.boxes)
    scored = output.scores(decision.reduction)
    scores = scored.reindex(judged.image_ids)
    failed = scores.isna().to_numpy()
    lowest, highest = (scored.min(), scored.max()) if len(scored) else (0.0, 1.0)
    thresholds = [c.threshold for c in decision.thresholds.values() if c.threshold is not None]
    if decision.chosen_scores is not None:  # between these every refitted threshold lies
        thresholds += decision.chosen_scores.scores.tolist()
    wrong = np.where(
        judged.y_true, min([lowest, *thresholds]) - 1.0, max([highest, *thresholds]) + 1.0
    )
    scores = scores.where(~failed, pd.Series(wrong, index=scores.index))
    return Scorecard(judged, scores, decision.thresholds, validation=decision.chosen_scores)


def _words(missing: Mapping[str, Sequence[int]]) -> str:
    """How many images count as wrong, of a system or of both in a difference."""
    counts = [
        f"{name}: {' and '.join(map(str, of_seeds))} images without a result"
        for name, of_seeds in missing.items()
    ]
    return ", ".join(counts) + ", counted as wrong"
