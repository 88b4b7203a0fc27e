"""How well the label can be guessed without reading the lungs: the baseline beside the models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contracts.tables import empty_table, read_table
from data_prep.store.dataset import DataSet, Target
from data_prep.store.predictions import Predictions
from evaluation.compare.metrics_table import resampled_table
from evaluation.compare.paired_tests import paired_tests, with_clustered_auroc
from evaluation.compare.scorecard import Scorecard
from evaluation.compare.seeds import by_system
from evaluation.compare.shares import WHERE_COLUMNS
from evaluation.compare.subgroups import images_of
from evaluation.decisions.system_output import SystemOutput, images_run
from evaluation.decisions.tuning import Decision
from evaluation.metrics.evaluation_set import ALL, JudgedImages
from evaluation.statistics.bootstrap import Resamples
from evaluation.systems.eligibility import describe_images, images_asked
from evaluation.systems.shortcuts import measure_shortcuts

FAILURES_WRONG = "failures_wrong"
"""The subgroup of all images that any system was asked for."""
KEPT = ("auroc", "accuracy", "recall", "specificity", "f1")
NONE_FAILED = "no image failed"


def failures_as_wrong(
    metrics: pd.DataFrame,
    members: Mapping[str, Predictions],
    teams: Mapping[str, list[str]],
    decisions: Mapping[str, Decision],
    dataset: DataSet,
    target: Target,
    split: str,
    resamples: Resamples,
) -> pd.DataFrame:
    """Judge the systems on every image that any of them was asked for.

    An image that a model has no result for counts as wrong: a positive one is ranked below every
    image and called negative, a negative one above every image and called positive.

    Args:
        metrics: The tidy table of the images that all ran on.
        members: Predictions by model.
        teams: The models of each system.
        decisions: By model.
        dataset: Labels.
        target: What is judged.
        split: Name of the split.
        resamples: As for the other figures.

    Returns:
        Rows of the tidy table with subgroup ``failures_wrong``, of AUROC, accuracy, sensitivity,
        specificity and F1; those of all images where nothing failed.
    """
    asked = images_asked(members, dataset, target, split)
    lacking = {name: asked.difference(images_run(system)) for name, system in members.items()}
    if not any(len(ids) for ids in lacking.values()):
        rows = metrics[(metrics["subgroup"] == ALL) & metrics["metric"].isin(KEPT)]
        # A note on a figure without a value says why; that stays.
        notes = rows["note"].where(rows["note"] != "", NONE_FAILED)
        return rows.assign(subgroup=FAILURES_WRONG, note=notes)
    labels = dataset.labels(target)
    judged = describe_images(dataset, target, asked, labels)
    cards = {
        name: _card(system, decisions[name], target, judged, dataset)
        for name, system in members.items()
    }
    table, _ = resampled_table(
        target.name,
        cards,
        teams,
        replace(resamples, n_clusters=judged.n_patients),
        kept=lambda figure: figure.metric in KEPT and figure.subgroup == ALL,
    )
    tests = paired_tests(target.name, by_system(cards, teams), table)
    table = with_clustered_auroc(table, tests, teams)
    rows = table[(table["subgroup"] == ALL) & table["metric"].isin(KEPT)]
    words = rows["system"].map(
        lambda system: _words(system, {name: [lacking[m] for m in teams[name]] for name in teams})
    )
    told = [
        f"{note}; {word}" if note else word for note, word in zip(rows["note"], words, strict=True)
    ]
    return rows.assign(subgroup=FAILURES_WRONG, note=told)


def _card(
    system: Predictions, decision: Decision, target: Target, judged: JudgedImages, dataset: DataSet
) -> Scorecard:
    ran = judged.image_ids[judged.image_ids.isin(images_run(system))]
    output = SystemOutput(system, target, ran, decision.boxes, dataset.images)
    known = output.scores(decision.reduction)
    scores = known.reindex(judged.image_ids)
    lost = scores.isna().to_numpy()
    lowest, highest = (known.min(), known.max()) if len(known) else (0.0, 1.0)
    thresholds = [c.threshold for c in decision.thresholds.values() if c.threshold is not None]
    wrong = np.where(
        judged.y_true, min([lowest, *thresholds]) - 1.0, max([highest, *thresholds]) + 1.0
    )
    scores = scores.where(~lost, pd.Series(wrong, index=scores.index))
    return Scorecard(judged, scores, decision.thresholds, None, None)


def _words(system: str, lacking: Mapping[str, Sequence[pd.Index]]) -> str:
    """How many images count as wrong, of a system or of both in a difference."""
    named = [name for name in lacking if name in (system, *system.split(" - "))]
    told = []
    for name in named:
        counts = [len(ids) for ids in lacking[name]]
        told.append(f"{name}: {' and '.join(map(str, counts))} images without a result")
    return ", ".join(told) + ", counted as wrong"


SHORTCUT = "shortcut"
"""Stands in the place of a system."""
_METHOD = "Obuchowski 1997, clustered by patient; five folds of patients"
_LEFT_OUT = "siblings"


def shortcut_rows(dataset: DataSet, target: Target, judged: JudgedImages) -> pd.DataFrame:
    """Guess the label of the judged images from view, sex, age, file, grey level and edge alone.

    Each guess is learned on four fifths of these images' patients and judged on the rest, in
    turn: a system that does not beat it has not shown that it reads the lungs.

    Args:
        dataset: Its images, and its decode table where there is one.
        target: What is judged.
        judged: The images.

    Returns:
        The columns of `WHERE_COLUMNS`, topic ``shortcut``, system ``shortcut``, one row a
        fact; none where the facts say the same of all images, or a class has fewer than 20.
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
    return pd.DataFrame(rows, columns=list(WHERE_COLUMNS))
