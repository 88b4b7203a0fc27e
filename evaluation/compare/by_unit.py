"""The same comparison by study or patient: the highest score of its images, decided anew.

Thresholds, calibration and referral are chosen again on validation studies or patients, because
the highest of several scores is higher than one. How boxes become an image score stays as it was
chosen on images; places are judged by image only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.compare.metrics_table import resampled_table
from evaluation.compare.resampled_tests import resampled_tests
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.seeds import by_system
from evaluation.decisions.search_space import Search
from evaluation.decisions.system_output import Evidence
from evaluation.decisions.tuning import Decision, tune
from evaluation.decisions.units import Unit, Units, gather, judged_units
from evaluation.metrics.evaluation_set import ALL, JudgedImages
from evaluation.statistics.bootstrap import Resamples


@dataclass(frozen=True)
class Judges:
    """What an image comparison has at hand of each trained model.

    Attributes:
        systems: Predictions by the model's name.
        teams: The models of each system, one per training seed.
        decisions: What validation chose for each model, on images.
        evidence: What each model says of the judged images.
    """

    systems: Mapping[str, Predictions]
    teams: Mapping[str, list[str]]
    decisions: Mapping[str, Decision]
    evidence: Mapping[str, Evidence]


def unit_metrics(
    judges: Judges,
    judged: JudgedImages,
    dataset: DataSet,
    target: Target,
    *,
    split: str,
    unit: Unit,
    resamples: Resamples,
    advance: Callable[[int], None] | None = None,
) -> tuple[pd.DataFrame, list[str], pd.DataFrame]:
    """Every image-level figure by study or patient, on the same resamples of patients.

    Args:
        judges: The models.
        judged: The images that they were compared on.
        dataset: Labels, split, and whose image is whose.
        target: What is judged.
        split: Name of the split.
        unit: ``study`` or ``patient``.
        resamples: Those of the comparison by image.
        advance: Called with the number of replicates done in each step.

    Returns:
        A table as `evaluation.compare.metrics_table.metrics_table` gives it, its ``n_images`` counting units,
        notes, and the bootstrap's tests of its differences.

    Raises:
        InputError: Studies are asked for and an image has none.
    """
    labels = dataset.labels(target).reindex(dataset.image_ids("test", split))
    units = gather(dataset.images, labels, judged.image_ids, unit)
    whole = judged_units(judged, units)
    cards = {
        name: _card(name, judges, units, whole, dataset, target, split, unit)
        for name in judges.systems
    }
    table, drawn = resampled_table(target.name, cards, judges.teams, resamples, advance=advance)
    grouped = by_system(cards, judges.teams)
    # What needs a place has no row by unit, not even one that says why.
    told = {figure.metric for card in cards.values() for figure in card.estimates()}
    table = table[table["metric"].isin(told | _asked(cards))].assign(unit=unit)
    tests = resampled_tests(table, list(judges.teams), drawn)
    table = pd.concat([table, _thresholds(table, grouped)], ignore_index=True)
    return table, _notes(units, whole, judged, unit), tests


def _thresholds(table: pd.DataFrame, grouped: Mapping[str, list[Scorecard]]) -> pd.DataFrame:
    """Rows that tell the thresholds, which are not those by image; of several seeds the first's."""
    row = table.iloc[0].to_dict() | {
        "subgroup": ALL, "metric": "threshold", "ci_low": np.nan, "ci_high": np.nan,
        "ci_method": "", "note": "",
    }  # fmt: skip
    rows = [
        row | {"system": name, "policy": policy, "estimate": choice.threshold}
        for name, cards in grouped.items()
        for policy, choice in cards[0].thresholds.items()
        if choice.threshold is not None
    ]
    return pd.DataFrame(rows, columns=table.columns)


def _card(
    name: str,
    judges: Judges,
    units: Units,
    whole: JudgedImages,
    dataset: DataSet,
    target: Target,
    split: str,
    unit: Unit,
) -> Scorecard:
    chosen, evidence = judges.decisions[name], judges.evidence[name]
    rule = tune(
        judges.systems[name],
        dataset,
        target,
        split=split,
        policies=list(chosen.thresholds),
        search=Search.from_json(chosen.search),
        asked=chosen.asked,
        unit=unit,
    )
    scores = pd.Series(units.highest(evidence.scores(chosen.reduction)), units.names)
    spread = evidence.spread() if rule.referral else None
    return Scorecard(
        whole,
        scores,
        rule.thresholds,
        None,
        None,
        probability=rule.probability(scores),
        referrals=rule.referral,
        spread=None if spread is None else units.highest(spread),
    )


def _asked(cards: Mapping[str, Scorecard]) -> set[str]:
    """Figures that some system lacks for want of a threshold or a cut."""
    return {
        figure.metric
        for card in cards.values()
        for figure in card.missing()
        if figure.policy and figure.metric != "localised_sensitivity"
    }


def _notes(units: Units, whole: JudgedImages, judged: JudgedImages, unit: Unit) -> list[str]:
    plural = {"study": "studies", "patient": "patients"}[unit]
    note = (
        f"By {unit}: {len(units.names):,} {plural} of {len(judged.image_ids):,} images, "
        f"{int(whole.y_true.sum()):,} positive (where any image is); the score is the highest of "
        f"its images, and thresholds are chosen again on validation {plural}."
    )
    left = f" {units.n_left_out:,} {plural} with an image of unknown label are left out."
    return [note + left if units.n_left_out else note]
