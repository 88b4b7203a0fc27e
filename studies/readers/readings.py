"""Functions that join and check the readings, systems and truth of a reader study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare import Predictions
from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.evaluation.boxes.lesion_hits import HitRule
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_output
from cxr_compare.evaluation.sources.stored_predictions import read_decision
from cxr_compare.evaluation.statistics.arrays import is_positive
from cxr_compare.studies.readers import reader_sentences
from cxr_compare.studies.readers.reader_files import (
    KEYS,
    VALUES,
    read_lesions,
    read_reading_table,
    read_readings,
    read_truth,
)
from cxr_compare.studies.readers.reader_study import LESION, MarkedStudy, ReaderStudy


def read_study(
    ratings: Sequence[tuple[str | None, Path]],
    systems: Mapping[str, tuple[Path, LabelledSplit | None]],
    *,
    truth: Path | LabelledSplit,
    key: Path | None,
    lesions: Path | None,
    hit: HitRule,
    false_marks: float,
    positive_from: float | None,
    policy: str,
    rename: Sequence[str],
) -> ReaderStudy:
    r"""Read the files of a reader study, as the command `cxr readers` takes them, and join them.

    Readers rate cases, decide between positive and negative, or mark lesions, each with one or
    several modalities (ways of reading). A system is a program that read the cases alone.

    `ratings` are pairs of a name of the reader, such as ``R1`` or ``R1:with AI`` (reader and
    modality), and the path; the name is None if the file has the names. Each system is the path of
    a CSV file and None, or the path of a folder of predictions and the test images with their
    labels. `truth` is a CSV file or the images of a data set with their labels. `key` is the
    ``key.csv`` of a blind study, and `lesions` the CSV file of the true lesions that readers mark.
    `false_marks` is the number of false positives per image at which the sensitivity is read from
    the FROC curve; from `positive_from` on a case is called positive, or a mark counts. `policy`
    chooses the threshold of a system on validation images, such as ``max_f1``. `rename` gives
    modalities new names, such as ``1=without AI``.

    Raises InputError if a file is damaged, or the files do not fit each other.
    """
    if isinstance(truth, Path):
        evaluated = None
        labels = read_truth(truth)
    else:
        evaluated = truth
        stated = truth.truth.label.dropna()
        patients = truth.truth.patients_of(stated.index)
        labels = pd.DataFrame({"label": stated == 1, "patient": patients}).rename_axis("case")
    findings = () if evaluated is None else evaluated.target.any_of
    readings = [read_readings(path, name, key, findings) for name, path in ratings]
    readings = _renamed(readings, rename)
    marked = any({"lesion", "x1"} & set(table) for table in readings)
    tables = {
        name: read_reading_table(path, name)
        if test_set is None
        else _predicted_system(path, name, test_set, readings, policy, marks=marked)
        for name, (path, test_set) in systems.items()
    }
    if len({("lesion" in table, "x1" in table) for table in (*readings, *tables.values())}) > 1:
        raise InputError("the files differ: marks with edges, with lesions, or none; give one kind")
    if not marked:
        return join_readings(labels, readings, tables, positive_from=positive_from)
    if lesions is not None:
        boxes = read_lesions(lesions)
    elif evaluated is not None and "x1" in readings[0]:
        boxes = evaluated.truth.true_boxes.rename(columns={"image_id": "case"})
    else:
        raise InputError("readers: marks need --lesions LESIONS.csv, or edges and --data")
    study = join_marks(
        labels, readings, tables, boxes, all_read=evaluated is None, positive_from=positive_from
    )
    return replace(study, hit=hit, false_marks=false_marks)


def _renamed(readings: Sequence[pd.DataFrame], names: Sequence[str]) -> list[pd.DataFrame]:
    new_names = dict(name.partition("=")[::2] for name in names)
    modalities = {modality for table in readings for modality in table["modality"]}
    for old, new in new_names.items():
        if old not in modalities or not new:
            raise InputError(
                f"--rename {old}={new}: give OLD=NEW; modalities are "
                f"{', '.join(sorted(modalities))}"
            )
    return [table.assign(modality=table["modality"].replace(new_names)) for table in readings]


def _predicted_system(
    folder: Path,
    name: str,
    test_set: LabelledSplit,
    readings: Sequence[pd.DataFrame],
    policy: str,
    *,
    marks: bool,
) -> pd.DataFrame:
    """Return a system's scores, or its boxes as marks, and its decisions on the cases.

    The threshold is chosen on validation images. Boxes below the threshold, or below the cut that
    validation chose for boxes, are marks that do not count as called.
    """
    predictions = Predictions.open(folder)
    cases = pd.Index(pd.concat([table["case"] for table in readings]).unique(), name="image_id")
    roles = test_set.dataset.split(test_set.split).set_index("image_id")["role"].reindex(cases)
    learned = roles[roles != "test"]
    if len(learned):
        raise InputError(
            f"system {name}: case '{learned.index[0]}' is no test image of split "
            f"'{test_set.split}' ({len(learned)} such cases), so it is no fair test of the system"
        )
    missing = cases[~cases.isin(predictions.images_run)]
    if len(missing):
        raise InputError(
            f"{predictions.folder}: {name} did not run on case '{missing[0]}' ({len(missing)} such "
            "cases that readers read)"
        )
    decision = read_decision(name, predictions, test_set, (policy,))
    output = read_output(predictions, test_set.target, cases)
    scores = output.scores(decision.reduction)
    table = pd.DataFrame({"reader": name, "modality": "", "case": cases, "rating": scores.values})
    choice = decision.thresholds.get(policy)
    threshold = None if choice is None else choice.threshold
    if threshold is not None:
        table["decision"] = is_positive(scores, threshold).astype(np.float64)
    if not marks:
        return table
    boxes = output.boxes(scores, decision.map_scale, decision.box_rule)
    if boxes is None:
        raise InputError(
            f"{predictions.folder}: {name} gives no boxes, as readers gave marks; leave it out"
        )
    boxes = boxes.rename(columns={"image_id": "case", "score": "rating"})
    cut = threshold if decision.box_cut is None else decision.box_cut
    boxes = boxes[["case", "rating", *EDGES]].assign(reader=name, modality="")
    boxes["counted"] = is_positive(boxes["rating"], -np.inf if cut is None else cut)
    return pd.concat([boxes, table.drop(columns="rating")], ignore_index=True)


def join_readings(
    truth: pd.DataFrame,
    readings: Sequence[pd.DataFrame],
    systems: Mapping[str, pd.DataFrame],
    *,
    positive_from: float | None = None,
) -> ReaderStudy:
    """Join the readings of readers and systems with the true labels, and check that they fit.

    `truth` has the columns ``label`` (True if the disease is present) and ``patient``; the index is
    the name of the case. The tables have the columns ``reader``, ``modality`` (way of reading),
    ``case``, and ``rating``, ``decision`` (1 or 0) or both; those of systems (programs that read
    the cases alone) are by name. From `positive_from` on a case is called positive if the readings
    have no decisions.

    The study has the cases that were read. Raises InputError if a reading appears twice or its case
    has no true label, a system lacks a case, or a reader has read cases of fewer than two positive
    or two negative patients.
    """
    read = _joined(readings)
    repeats = read.duplicated(KEYS)
    if repeats.any():
        first = read[repeats].iloc[0]
        raise InputError(
            f"reader {first['reader']}, modality {first['modality']}, case {first['case']} appears "
            "in two files"
        )
    if positive_from is not None:
        if "rating" not in read or "decision" in read:
            problem = "decisions already" if "decision" in read else "no ratings"
            raise InputError(f"--positive-from {positive_from:g}: the readings have {problem}")
        read["decision"] = is_positive(read["rating"], positive_from).astype(np.float64)
    unknown = read.loc[~read["case"].isin(truth.index), "case"]
    if len(unknown):
        raise InputError(
            f"case '{unknown.iloc[0]}' was read but has no truth ({unknown.nunique()} such cases)"
        )
    used = truth[truth.index.isin(read["case"])]
    for (reader, modality), rows in read.groupby(["reader", "modality"], sort=False):
        _require_both_classes(f"reader {reader}, modality {modality}", used.loc[rows["case"]])
    notes = []
    if len(used) < len(truth):
        n_unread = len(truth) - len(used)
        notes.append(reader_sentences.unread_cases(n_unread, len(truth)))
    notes += _unread(read, len(used))
    evaluated = [_system_cases(name, table, used.index, read) for name, table in systems.items()]
    empty = read.iloc[:0]
    return ReaderStudy(used, read, pd.concat(evaluated) if evaluated else empty, tuple(notes))


def join_marks(
    truth: pd.DataFrame,
    readings: Sequence[pd.DataFrame],
    systems: Mapping[str, pd.DataFrame],
    lesions: pd.DataFrame,
    *,
    all_read: bool,
    positive_from: float | None = None,
) -> MarkedStudy:
    """Join the marks of readers and systems with the true lesions and labels, and check them.

    `truth` and the tables are those of `join_readings`; a mark has a ``rating``, and ``lesion``
    (name of the lesion that it hits, empty if it hits no lesion) or the edges ``x1``, ``y1``,
    ``x2``, ``y2`` in px. `lesions` have the columns ``case``, ``lesion`` (name within the case)
    and, if known, ``weight`` (importance) and the edges. If the file of a reader has rows with
    marks only, cases without a mark are not listed: `all_read` takes all cases as read; False
    refuses the file, because it is not known which were read. Below `positive_from` a mark counts
    neither in the lesion sensitivity nor in the false positives per image.

    Raises InputError for the reasons of `join_readings`, a file that does not say which cases were
    read, a positive case without a lesion or a negative case with one, or a mark with the name of
    an unknown lesion.
    """
    lowest = -np.inf if positive_from is None else positive_from
    tables = [table.assign(counted=is_positive(table["rating"], lowest)) for table in readings]
    tables += [pd.DataFrame({"counted": True, **table}) for table in systems.values()]
    least = np.nanmin([positive_from or 0.0, *(table["rating"].min() for table in tables)]) - 1
    rated = [_rated(table, truth.index, least, all_read=all_read) for table in readings]
    of_systems = {
        name: _rated(table, truth.index, least, all_read=True) for name, table in systems.items()
    }
    study = join_readings(truth, rated, of_systems, positive_from=positive_from)
    marks = pd.concat([table[_is_mark(table)] for table in tables], ignore_index=True)
    marks = marks[marks["case"].isin(study.truth.index)].astype({"counted": bool})
    lesions = lesions[lesions["case"].isin(study.truth.index)]
    _require_lesions(study.truth["label"], lesions, marks)
    parts = study.truth, study.readings, study.systems, study.notes
    return MarkedStudy(*parts, marks=marks, lesions=lesions)


def _is_mark(table: pd.DataFrame) -> pd.Series:
    """Return True for rows that are marks; other rows say that a case was read."""
    return table["rating"].notna() if "lesion" in table else table["x1"].notna()


def _rated(table: pd.DataFrame, cases: pd.Index, least: float, *, all_read: bool) -> pd.DataFrame:
    """Return a rating of each case: its own, else that of its highest mark, else `least`."""
    is_mark = _is_mark(table)
    rated = []
    for (reader, modality), rows in table.groupby(["reader", "modality"], sort=False):
        marks = rows[is_mark[rows.index]]
        whole = rows[~is_mark[rows.index]].set_index("case")
        reading = f"reader {reader}, modality {modality}"
        if whole.empty and not all_read:
            raise InputError(
                f"{reading}: which cases were read without a mark is not stated; add a row without "
                "edges and rating for each, or give --truth, whose cases are then all read"
            )
        if len(twice := whole.index[whole.index.duplicated()]):
            raise InputError(f"{reading}: case {twice[0]} has two rows without a mark; keep one")
        read = pd.Index(rows["case"].unique())
        read = cases.append(read.difference(cases)) if whole.empty else read
        rating = whole["rating"].astype(np.float64).reindex(read)
        rating = rating.fillna(marks.groupby("case")["rating"].max().reindex(read)).fillna(least)
        names = {"reader": str(reader), "modality": str(modality)}
        ratings = whole[[]].reindex(read).assign(**names, rating=rating)
        if "decision" in whole:
            ratings["decision"] = whole["decision"].reindex(read)
        rated.append(ratings.rename_axis("case").reset_index())
    return pd.concat(rated, ignore_index=True)


def _require_lesions(labels: pd.Series, lesions: pd.DataFrame, marks: pd.DataFrame) -> None:
    """Refuse positive cases without lesions, negative cases with lesions, and unknown lesions."""
    has_lesion = labels.index.isin(lesions["case"])
    if len(wrong := labels.index[has_lesion & ~labels]):
        raise InputError(f"case '{wrong[0]}' has a lesion, but the truth says that it is negative")
    if len(wrong := labels.index[~has_lesion & labels]):
        raise InputError(
            f"case '{wrong[0]}' is positive, but has no lesion ({counted(len(wrong), 'such case')})"
        )
    if "lesion" not in marks:
        if not set(EDGES) <= set(lesions):
            raise InputError("marks have edges: lesions need x1, y1, x2 and y2, too")
        return
    named = marks[marks["lesion"] != ""].merge(lesions[LESION], how="left", indicator=True)
    if len(unknown := named[named["_merge"] == "left_only"]):
        reader, case, lesion = unknown[["reader", *LESION]].iloc[0]
        raise InputError(
            f"reader {reader}, case {case}: a mark hit lesion '{lesion}', which is not among the "
            "lesions"
        )


def _joined(readings: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join all readings into one table; all files must have ratings, or decisions, or both."""
    columns = [tuple(name for name in VALUES if name in reading) for reading in readings]
    if len(set(columns)) > 1:
        raise InputError(
            "the files of readings differ: "
            + " and ".join(" with ".join(names) for names in dict.fromkeys(columns))
            + "; give each the same columns"
        )
    return pd.concat(readings, ignore_index=True)


def _unread(read: pd.DataFrame, n_cases: int) -> list[str]:
    counts = read.groupby(["modality", "reader"], sort=False).size()
    short = counts[counts < n_cases]
    if short.empty:
        return []
    modality, reader = short.index[0]
    note = reader_sentences.incomplete(
        len(short),
        len(counts),
        reader,
        modality,
        int(short.iloc[0]),
        n_cases,
    )
    return [note]


def _system_cases(
    name: str, table: pd.DataFrame, cases: pd.Index, read: pd.DataFrame
) -> pd.DataFrame:
    missing = cases[~cases.isin(table["case"])]
    if len(missing):
        raise InputError(
            f"system {name}: has no score for case '{missing[0]}' ({len(missing)} such cases that "
            "readers read)"
        )
    if name in set(read["modality"]):
        raise InputError(f"system {name}: a modality has that name; give the system another")
    needed = "rating" if "rating" in read else "decision"
    if needed not in table:
        column = "score" if needed == "rating" else needed
        raise InputError(f"system {name}: needs a column {column}, as readers gave {needed}s")
    return table[table["case"].isin(cases)]


def _require_both_classes(reading: str, truth: pd.DataFrame) -> None:
    for label, name in ((True, "positive"), (False, "negative")):
        patients = truth.loc[truth["label"] == label, "patient"].nunique()
        if patients < 2:
            raise InputError(
                f"{reading}: {counted(patients, 'patient')} with {name} cases; at least two are "
                "needed to know how sure a figure is"
            )
