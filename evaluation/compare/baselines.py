"""How well the label can be guessed without reading the lungs: the baseline beside the models."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.tables import empty_table, read_table
from data_prep.store.dataset import DataSet, Target
from evaluation.compare.figures import FAILURES_WRONG, Figure, Figures
from evaluation.compare.judged_model import ComparisonTask, JudgedModel
from evaluation.compare.metrics_table import resampled_figures
from evaluation.compare.paired_tests import clustered_auroc, with_clustered_auroc
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.shares import FAILURE_COLUMNS
from evaluation.compare.subgroups import images_of
from evaluation.decisions.system_output import SystemOutput
from evaluation.metrics.evaluation_set import ALL, EvaluationSet, MetricKey
from evaluation.statistics.bootstrap import Resamples
from evaluation.systems.eligibility import attempted_images, describe_images
from evaluation.systems.shortcuts import measure_shortcuts

KEPT = ("auroc", "accuracy", "recall", "specificity", "f1")
NONE_FAILED = "no image failed"


def failures_as_wrong(
    figures: Figures,
    models: Mapping[str, Sequence[JudgedModel]],
    task: ComparisonTask,
    resamples: Resamples,
) -> Figures:
    """Judge the systems on every image that any of them should have run on.

    An image that a model has no result for counts as wrong: a positive one is ranked below every
    image and called negative, a negative one above every image and called positive.
    """
    predictions = {model.name: model.predictions for each in models.values() for model in each}
    expected = attempted_images(predictions, task.dataset, task.target, task.split)
    missing = {
        name: [len(expected.difference(model.predictions.images_run)) for model in each]
        for name, each in models.items()
    }
    if not any(count for counts in missing.values() for count in counts):
        # A note on a figure without a value says why; that stays.
        return _renamed(figures, lambda names, note: note or NONE_FAILED)
    dataset, target = task.dataset, task.target
    judged = describe_images(dataset, target, expected, dataset.labels(target))
    cards = {name: [_card(model, judged, task) for model in each] for name, each in models.items()}
    found = resampled_figures(
        target.name,
        cards,
        replace(resamples, n_clusters=judged.n_patients),
        kept=lambda key: key.metric in KEPT and key.subgroup == ALL,
    ).figures
    found = with_clustered_auroc(found, clustered_auroc(cards), cards)

    def counted(names: tuple[str, ...], note: str) -> str:
        words = _words({name: missing[name] for name in names})
        return f"{note}; {words}" if note else words

    return _renamed(found, counted)


def _renamed(figures: Figures, note: Callable[[tuple[str, ...], str], str]) -> Figures:
    """The kept figures of all images under the subgroup's name, with other notes."""

    def renamed(held: Mapping[MetricKey, Figure], *names: str) -> dict[MetricKey, Figure]:
        return {
            key._replace(subgroup=FAILURES_WRONG): replace(figure, note=note(names, figure.note))
            for key, figure in held.items()
            if key.subgroup == ALL and key.metric in KEPT
        }

    return replace(
        figures,
        systems={name: renamed(held, name) for name, held in figures.systems.items()},
        differences={pair: renamed(held, *pair) for pair, held in figures.differences.items()},
    )


def _card(model: JudgedModel, judged: EvaluationSet, task: ComparisonTask) -> Scorecard:
    system, decision = model.predictions, model.decision
    ran = judged.image_ids[judged.image_ids.isin(system.images_run)]
    output = SystemOutput(system, task.target, ran, decision.boxes, task.dataset.images)
    known = output.scores(decision.reduction)
    scores = known.reindex(judged.image_ids)
    failed = scores.isna().to_numpy()
    lowest, highest = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    thresholds = [c.threshold for c in decision.thresholds.values() if c.threshold is not None]
    wrong = np.where(
        judged.y_true, min([lowest, *thresholds]) - 1.0, max([highest, *thresholds]) + 1.0
    )
    scores = scores.where(~failed, pd.Series(wrong, index=scores.index))
    return Scorecard(judged, scores, decision.thresholds)


def _words(missing: Mapping[str, Sequence[int]]) -> str:
    """How many images count as wrong, of a system or of both in a difference."""
    counts = [
        f"{name}: {' and '.join(map(str, each))} images without a result"
        for name, each in missing.items()
    ]
    return ", ".join(counts) + ", counted as wrong"


SHORTCUT = "shortcut"
"""Stands in the place of a system."""
_METHOD = "Obuchowski 1997, clustered by patient; five folds of patients"
_LEFT_OUT = "siblings"


def shortcut_rows(dataset: DataSet, target: Target, judged: EvaluationSet) -> pd.DataFrame:
    """Guess the label of the judged images from view, sex, age, file, grey level and edge alone.

    Each guess is learned on four fifths of these images' patients and judged on the rest, in
    turn: a system that does not beat it has not shown that it reads the lungs.
    """
    images = images_of(judged, dataset.images)
    path = dataset.folder / "decode.parquet"
    decode = read_table(path, "decode") if path.exists() else empty_table("decode")
    truth = pd.DataFrame({target.name: judged.y_true.astype(np.float64)}, index=judged.image_ids)
    rows: list[dict[str, Any]] = [
        {
            "topic": "shortcut",
            "group": found["fact"],
            "system": SHORTCUT,
            "policy": "",
            "metric": "auroc",
            "estimate": found["auroc"],
            "ci_low": found["ci_low"],
            "ci_high": found["ci_high"],
            "ci_method": _METHOD if found["ci_low"] is not None else "",
            "count": found["n_positive"],
            "of": found["n_images"],
            "n_patients": judged.n_patients,
            "note": f"known of {found['n_known']} images",
        }
        for found in measure_shortcuts(images, decode, truth)
        if found["kind"] != _LEFT_OUT
    ]
    return pd.DataFrame(rows, columns=list(FAILURE_COLUMNS))
