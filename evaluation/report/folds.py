"""Figures over the folds of a cross-validation, or over repeated trainings, from their reports."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit, logit, stdtr, stdtrit

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.evaluation.figures import corrected
from cxr_compare.evaluation.metrics import METRICS
from cxr_compare.evaluation.report.answer import ReportAnswer
from cxr_compare.evaluation.report.result import Result
from cxr_compare.evaluation.statistics.intervals import LEVEL

KEYS = ["first", "second", "policy", "metric"]
_ROUNDING = 1e-12


def fold_table(results: Sequence[Result]) -> pd.DataFrame:
    """Return mean and standard deviation of every figure over several reports.

    Folds, whose test patients differ, also have an interval and, for differences, p-values.
    Repeated trainings (of other seeds), which are tested on the same images, have none. InputError
    for fewer than two reports, reports on other systems or data, the same report twice, and test
    sets that share some patients, or images if the reports are of other tables of labels.
    """
    folders = [result.folder for result in results]
    if len(results) < 2:
        raise InputError("folds: at least two reports are joined")
    questions = [_question(result) for result in results]
    for folder, question in zip(folders, questions, strict=True):
        if question != questions[0]:
            raise InputError(f"{folder}: other systems, finding or data than {folders[0]}")
    tables = [_labels_of(result) for result in results]
    has_one_table = all(table == tables[0] for table in tables)
    if not has_one_table and results[0].answer.unit != "image":
        raise InputError(
            f"folds: reports by {results[0].answer.unit} of several tables of labels may share "
            "patients, who are numbers in each; give all one data set, or compare by image"
        )
    decision_tables = [result.decisions.sort_values(["system", "image_id"]) for result in results]
    patient_column = (
        "patient_id" if has_one_table and "patient_id" in decision_tables[0] else "image_id"
    )
    is_repeated = all(
        set(decisions["image_id"]) == set(decision_tables[0]["image_id"])
        for decisions in decision_tables
    )
    for one, other in combinations(range(len(decision_tables)), 2):
        if is_repeated:
            _require_repeated(
                decision_tables[one], decision_tables[other], folders[one], folders[other]
            )
        elif shared := {*decision_tables[one][patient_column]} & {
            *decision_tables[other][patient_column]
        }:
            kind = patient_column.removesuffix("_id")
            raise InputError(
                f"{folders[other]}: tests {counted(len(shared), kind)} of {folders[one]}; "
                "folds share no patient, and repeated trainings are tested on the same images"
            )
    frames = [result.figures.assign(fold=number) for number, result in enumerate(results, start=1)]
    figures = pd.concat(frames, ignore_index=True)
    counts = figures["metric"].map(lambda name: METRICS[name].family == "count")
    table = summarise_folds(figures[~counts])
    if is_repeated:
        table = table.assign(ci_low=np.nan, ci_high=np.nan, p_value=np.nan)
    return _with_holm(table, results[0].answer)


def _with_holm(table: pd.DataFrame, answer: ReportAnswer) -> pd.DataFrame:
    """Add the corrected p-values, by the rules and families of the reports."""
    metric, policy = answer.primary
    further = [(name, "") for name in answer.primary_metrics if name != metric]
    (corrected_table,) = corrected(
        [table.rename(columns={"mean": "estimate"})],
        answer.joint,
        primary=[(metric, policy), *further],
        with_boxes=answer.with_boxes,
    )
    corrected_table = corrected_table.rename(columns={"estimate": "mean"})
    before = [*table.columns[: table.columns.get_loc("note")]]
    return corrected_table[[*before, "p_holm", *table.columns.drop(before)]]


def _labels_of(result: Result) -> object:
    """Return what the patients of a report are numbered by: its data set, or files of labels."""
    origin = result.answer.provenance
    if origin.data_set is not None:
        return origin.data_set.content_id
    files = [file for file in origin.files if file["given_as"] in ("truth", "patients")]
    return [file.get("sha256", object()) for file in files]  # without a digest it equals no other


def _require_repeated(
    one: pd.DataFrame, other: pd.DataFrame, first: Path | None, second: Path | None
) -> None:
    """Refuse repeated trainings with other labels, or with the same scores: one report twice."""
    if not np.array_equal(one["label"], other["label"]):
        raise InputError(f"{second}: has other labels than {first}")
    if np.array_equal(one["score"], other["score"], equal_nan=True):
        raise InputError(f"{second}: has the scores of {first}; give each training once")


def _question(result: Result) -> tuple[object, ...]:
    """Return finding, systems and data set of a report."""
    data_set = result.answer.provenance.data_set
    data_ids = data_set and (data_set.content_id, data_set.labels_id)
    return result.answer.target, tuple(result.systems), data_ids


def summarise_folds(figures: pd.DataFrame) -> pd.DataFrame:
    """Summarise figures over folds, which share training images (Nadeau and Bengio 2003).

    With k folds and the standard deviation s between them the variance of a mean is taken as
    ``s^2 (1 / k + 1 / (k - 1))`` with k - 1 degrees of freedom; the interval of a figure is
    computed on the logit, that of a difference is not. A figure that is undefined in a fold has no
    mean, and one that is the same in all folds has no interval.
    """
    values = figures.pivot(index=KEYS, columns="fold", values="estimate").add_prefix("fold_")
    count = values.shape[1]
    missing = values.isna().sum(axis=1)
    mean = values.mean(axis=1).where(missing == 0)
    spread = values.std(axis=1).where(missing == 0)
    error = (spread * np.sqrt(1 / count + 1 / (count - 1))).where(spread >= _ROUNDING)
    half_width = stdtrit(count - 1, (1 + LEVEL) / 2) * error
    of_pair = values.index.get_level_values("second") != ""
    p_value = (2 * stdtr(count - 1, -(mean / error).abs())).where(of_pair)
    note = missing.map(lambda lacking: f"undefined in {lacking} of {count}" if lacking else "")
    note = note.mask((missing == 0) & (spread < _ROUNDING), "the same in all: no interval")
    lowest = values.index.get_level_values("metric").map(lambda name: METRICS[name].lowest)
    span = 1 - lowest
    share = ((mean - lowest) / span).where(error.notna())
    reach = half_width / span / (share * (1 - share))
    low, high = (lowest + span * expit(logit(share) + side * reach) for side in (-1, 1))
    ends = {
        "ci_low": np.where(of_pair, np.maximum(mean - half_width, -span), low),
        "ci_high": np.where(of_pair, np.minimum(mean + half_width, span), high),
    }
    table = pd.DataFrame({"mean": mean, "sd": spread, **ends, "p_value": p_value, "note": note})
    return table.join(values).reset_index()


def main_rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return the AUROC of systems and differences from a table of folds, for the terminal."""
    rows = table[(table["metric"] == "auroc") & table["mean"].notna()]
    name = rows["first"].where(rows["second"] == "", rows["first"] + " - " + rows["second"])
    summary = rows.set_index(name.rename("AUROC"))[["mean", "sd", "ci_low", "ci_high", "p_holm"]]
    return summary.dropna(axis="columns", how="all").round(3)
