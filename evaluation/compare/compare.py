"""Compare systems on the same test images: every figure, its interval, and every difference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.folders import provenance
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.compare.claims import GoalResult
from cxr_compare.evaluation.compare.comparison import Background, Comparison, SystemResult
from cxr_compare.evaluation.compare.failure_analysis import failure_table
from cxr_compare.evaluation.compare.intervals import resampled_figures
from cxr_compare.evaluation.compare.judged_models import (
    Models,
    cards_of,
    compare_units,
    judge_models,
    with_uncounted,
)
from cxr_compare.evaluation.compare.paired_tests import (
    paired_tests,
    seed_parts,
    with_clustered_auroc,
)
from cxr_compare.evaluation.compare.protocol import EXPLORATORY, Prevalence, Protocol
from cxr_compare.evaluation.decisions.test_set import EvaluationSet, TestSet, Unit, image_groups
from cxr_compare.evaluation.decisions.thresholds import POLICIES
from cxr_compare.evaluation.metrics.metric import ALL, MetricKey, Note, listing
from cxr_compare.evaluation.statistics.bootstrap import Resamples
from cxr_compare.evaluation.statistics.clustered_tests import AurocParts, effective_patients
from cxr_compare.evaluation.systems.eligibility import Images, common_test_images, training_id


def compare_systems(  # noqa: PLR0913 - options of cxr compare
    systems: Mapping[str, Predictions | Sequence[Predictions]],
    test_set: TestSet,
    *,
    images: Images = "all",
    policies: Sequence[str] = POLICIES,
    replicates: int = 2000,
    seed: int = 0,
    protocol: Protocol = EXPLORATORY,
    prevalence: str | float | None = None,
    unit: Unit = "image",
    extra_policies: Sequence[str] = (),
    advance: Callable[[int], None] | None = None,
    first: Callable[[str], None] | None = None,
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
        prevalence: Of positives where the systems will be used, for PPV and NPV there, with what
            is known of its own uncertainty: see `Prevalence`.
        unit: ``study`` or ``patient``: the image-level figures by these, too.
        extra_policies: Policies beside those that systems are tuned for.
        advance: Called with the number of replicates done in each step.
        first: Called, before the resamples, with the first figures, a line each model.

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
    of_use = None if prevalence is None else Prevalence.parse(prevalence)
    image_groups(test_set.images, protocol.subgroups)  # refuses what cannot be analysed
    named = _name_models(systems)
    judged, notes = common_test_images(_by_label(named), test_set, images=images)
    models, of_models = judge_models(named, judged, test_set, policies, extra_policies)
    _check_protocol(protocol, models)
    cards = cards_of(models)
    if first is not None:
        first("\n".join(model.first_line for members in models.values() for model in members))
    resamples = Resamples(judged.n_patients, replicates, seed)
    drawn = resampled_figures(test_set.target.name, cards, resamples, advance=advance)
    by_unit, unit_cards, unit_notes, unit_tests = compare_units(
        models, judged, test_set, unit, resamples
    )
    estimates = with_clustered_auroc(drawn.estimates, cards)
    estimates, uncounted = with_uncounted(estimates, models, test_set, protocol, resamples)
    grouped = unit != "image" and protocol.unit == unit
    tests = paired_tests(drawn.estimates, cards, drawn.differences, unit_tests)
    return Comparison(
        target=test_set.target,
        estimates=estimates,
        tests=tests,
        failures=failure_table(models, test_set, protocol, of_use, resamples),
        systems={name: SystemResult.of(seeds, test_set) for name, seeds in models.items()},
        decisions=_decisions_table(models, test_set.images),
        provenance=_provenance_of(models, test_set, protocol, resamples),
        notes=[*notes, *of_models, *_few_patients(judged), *unit_notes, *_seed_notes(models)],
        protocol=protocol,
        by_unit=by_unit,
        goals=[
            GoalResult.of(next(iter(of_case.values()))[0], metric, protocol, case)
            for case, of_case in {"": unit_cards if grouped else cards, **uncounted}.items()
            for metric in protocol.goals
        ],
        promises=[
            result
            for members in models.values()
            for model in members
            for result in model.promises(test_set)
        ],
        background=Background.of(test_set, judged.image_ids, models),
    )


def pilot_parts(
    systems: Mapping[str, Predictions | Sequence[Predictions]],
    test_set: TestSet,
) -> dict[str, list[AurocParts]]:
    """What each test patient adds to each system's AUROC, one for each training seed.

    A further study is planned from it. Refuses as `compare_systems`, and images of one class.
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
    if protocol.goals and (len(models) > 1 or len(next(iter(models.values()))) > 1):
        raise InputError(
            "protocol: goals are held against one trained model; give one system of one training "
            "seed (cxr ensemble joins several), and compare systems by a protocol without goals"
        )
    for model in (model for members in models.values() for model in members):
        if protocol.policy and protocol.policy not in model.decision.thresholds:
            raise InputError(
                f"{model.predictions.folder}: the protocol asks for policy '{protocol.policy}', "
                f"{model.name} is tuned for {', '.join(model.decision.thresholds)}; run cxr tune "
                "again with it"
            )
        if not protocol.declared:
            continue
        for metric, policy in protocol.keys:
            if why := model.card.why_undefined(metric, policy):
                raise InputError(
                    f"protocol: the primary figure '{metric}' is undefined for {model.name}: "
                    f"{why}; compare systems that have it, or fix another metric; no figure was "
                    "shown, and no use of the test set was logged"
                )
            choices = model.card.choices_of(MetricKey(ALL, policy, metric))
            if held := [name for name, again in choices.items() if not again]:
                raise InputError(
                    f"protocol: the primary figure '{metric}' of {model.name} rests on a choice "
                    f"on validation whose luck is in no interval ({listing(held)}): fix another "
                    "metric, or compare without a protocol; no figure was shown, and no use of the "
                    "test set was logged"
                )


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


def _decisions_table(models: Models, images: pd.DataFrame) -> pd.DataFrame:
    """One row per image and system: systems in order, images sorted, the first seed of each."""
    tables = [members[0].decisions(name) for name, members in models.items()]
    table = pd.concat(tables, ignore_index=True)
    return table.merge(images[["image_id", "patient_id"]], on="image_id", how="left")


def _provenance_of(
    models: Models, test_set: TestSet, protocol: Protocol, resamples: Resamples
) -> dict[str, Any]:
    """Ids, seeds, versions and what each system was trained on, as `Comparison.provenance`."""
    dataset = test_set.dataset
    systems = {}
    for name, members in models.items():
        facts = [model.facts() for model in members]
        of_seeds = {"seed": [of_one["seed"] for of_one in facts], "models": facts}
        systems[name] = facts[0] | of_seeds if len(facts) > 1 else facts[0]
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


_FEW_PATIENTS = 20
"""Effective patients of a class below which a comparison carries a caution."""
_MANY_IMAGES = 0.1
"""Share of a class's images in one patient from which it does."""


def _few_patients(judged: EvaluationSet) -> list[Note]:
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
            like = f" and say as much as those of {effective:.1f} patients with one image each"
            text = (
                f"The {n_images:,} {name} images are of {counted(n_patients, 'patient')}"
                f"{like if n_images > n_patients else ''}: below {_FEW_PATIENTS}, one patient "
                "more or less may change the answer."
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
