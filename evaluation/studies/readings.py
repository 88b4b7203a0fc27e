"""A reader study from CSV files: who read which case with what, and what each said."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from data_prep.contracts.errors import InputError
from data_prep.contracts.tables import read_text_csv, refuse_line
from data_prep.contracts.words import counted
from data_prep.store.predictions import Predictions
from evaluation.decisions.test_set import SystemOutput, TestSet
from evaluation.decisions.tuning import checked_decision
from evaluation.statistics.ranking import is_positive
from evaluation.systems.prediction_files import read_review

ONLY_MODALITY = "reading"
"""What the modality is called where a file names none."""

_KEYS = ["reader", "modality", "case"]
_VALUES = ("rating", "decision")
_SAME = {"case": ("image_id",), "rating": ("score",), "patient": ("patient_id",)}


@dataclass(frozen=True)
class ReaderStudy:
    """Checked readings of the same cases, with their truth."""

    truth: pd.DataFrame  # label (bool) and patient by case, of cases that somebody read
    readings: pd.DataFrame  # reader, modality, case and rating, decision (0 or 1) or both
    systems: pd.DataFrame  # the same of stand-alone systems, by name as reader
    notes: tuple[str, ...] = ()

    @property
    def modalities(self) -> list[str]:
        """In the order of the file."""
        return list(dict.fromkeys(self.readings["modality"]))

    def readers(self, modality: str) -> list[str]:
        """Who read with a modality, in the order of the file."""
        return list(
            dict.fromkeys(self.readings.loc[self.readings["modality"] == modality, "reader"])
        )

    @property
    def has_ratings(self) -> bool:
        """Whether readings are ratings, so that there is an AUROC."""
        return "rating" in self.readings

    @property
    def has_decisions(self) -> bool:
        """Whether readings are called positive or negative."""
        return "decision" in self.readings


def read_truth(path: Path) -> pd.DataFrame:
    """Read the truth: ``case``, ``label`` and, where cases share patients, ``patient``.

    Raises:
        InputError: A column is missing, a case repeats, or a label is neither 0 nor 1.
    """
    table = _read_csv(path, ["case", "label"], ["patient"])
    _require_unique(path, table, ["case"])
    label = _numbers(path, table, "label", binary=True)
    truth = pd.DataFrame({"case": table["case"], "label": label == 1})
    truth["patient"] = table["patient"] if "patient" in table else table["case"]
    return truth.set_index("case")


def truth_of(test_set: TestSet) -> pd.DataFrame:
    """The truth of a data set's images as `read_truth` gives it, where the label is known."""
    labels = test_set.labels.dropna()
    truth = pd.DataFrame({"label": labels == 1, "patient": test_set.patients(labels.index)})
    return truth.rename_axis("case")


def read_ratings(path: Path) -> pd.DataFrame:
    """Read ``reader, case[, modality]`` and ``rating``, ``decision`` or both.

    A row whose rating and decision are both empty was not read, and is left out.

    Raises:
        InputError: A column is missing, a value is no number, a decision is neither 0 nor 1, or a
            reader has two rows of one case and modality.
    """
    table = _read_csv(path, ["reader", "case"], ["modality", *_VALUES])
    if "modality" not in table:
        table["modality"] = ONLY_MODALITY
    return _values(path, table, _KEYS)


def read_form(path: Path, key: Path, name: str | None) -> pd.DataFrame:
    """Read the filled-in form of a blind study, see `read_review`, as one reader's ratings.

    `key` is the study's ``key.csv``, `name` who read, as ``READER`` or ``READER:MODALITY``.

    Raises:
        InputError: Nobody says who read, or a score is not a number.
    """
    if name is None:
        raise InputError(f"{path}: with --key, say who read: READER={path}")
    form = read_review(path, key).rename(columns={"image_id": "case"})
    reader, _, modality = name.partition(":")
    names = {"reader": reader, "modality": modality or ONLY_MODALITY}
    return form.assign(**names, rating=form["score"])[[*_KEYS, "rating"]]


def read_system(path: Path, name: str) -> pd.DataFrame:
    """Read a system's ``case``, ``score`` and, where it decides, ``decision``."""
    table = _read_csv(path, ["case"], list(_VALUES))
    return _values(path, table.assign(reader=name, modality=""), ["case"])


def predicted_system(
    predictions: Predictions,
    name: str,
    test_set: TestSet,
    readings: Sequence[pd.DataFrame],
    *,
    policy: str,
) -> pd.DataFrame:
    """A system's scores and decisions of the cases that were read, from its predictions.

    They are as `read_system` gives them; the threshold is chosen on validation images.

    Raises:
        InputError: A case is not one of the split's test images, the system did not run on it, or
            the decision is not what validation gives.
    """
    cases = pd.Index(pd.concat([table["case"] for table in readings]).unique(), name="image_id")
    roles = test_set.dataset.split(test_set.split).set_index("image_id")["role"].reindex(cases)
    learned = roles[roles != "test"]
    if len(learned):
        raise InputError(
            f"system {name}: case '{learned.index[0]}' is no test image of split "
            f"'{test_set.split}' ({len(learned)} such cases), so it is no fair judge of the system"
        )
    missing = cases[~cases.isin(predictions.images_run)]
    if len(missing):
        raise InputError(
            f"{predictions.folder}: {name} did not run on case '{missing[0]}' ({len(missing)} such "
            "cases that readers read)"
        )
    decision, _ = checked_decision(name, predictions, test_set, (policy,))
    output = SystemOutput(predictions, test_set.target, cases)
    scores = output.scores(decision.reduction)
    table = pd.DataFrame({"reader": name, "modality": "", "case": cases, "rating": scores.values})
    choice = decision.thresholds.get(policy)
    if choice is not None and choice.threshold is not None:
        table["decision"] = is_positive(scores, choice.threshold).astype(np.float64)
    return table


def join_readings(
    truth: pd.DataFrame,
    readings: Sequence[pd.DataFrame],
    systems: Mapping[str, pd.DataFrame],
    *,
    positive_from: float | None = None,
) -> ReaderStudy:
    """Join readings, systems (by name) and truth, and check that they fit.

    Where there are no decisions, ratings from `positive_from` on call a case positive.

    Raises:
        InputError: A case has no truth, a reader has cases of one class only, a system lacks a
            case that was read, or readings disagree about having ratings or decisions.
    """
    read = _joined(readings)
    repeats = read.duplicated(_KEYS)
    if repeats.any():
        first = read[repeats].iloc[0]
        raise InputError(
            f"reader {first['reader']}, modality {first['modality']}, case {first['case']} appears "
            "in two files"
        )
    if positive_from is not None:
        if "rating" not in read or "decision" in read:
            what = "decisions already" if "decision" in read else "no ratings"
            raise InputError(f"--positive-from {positive_from:g}: the readings have {what}")
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
        notes.append(
            f"{len(truth) - len(used):,} of {counted(len(truth), 'case')} were read by nobody and "
            "are left "
            "out, of systems too."
        )
    notes += _unread(read, len(used))
    judged = [_system_cases(name, table, used.index, read) for name, table in systems.items()]
    empty = read.iloc[:0]
    return ReaderStudy(used, read, pd.concat(judged) if judged else empty, tuple(notes))


def _joined(readings: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """All readings in one table; each file has the same of rating and decision."""
    has = [tuple(name for name in _VALUES if name in reading) for reading in readings]
    if len(set(has)) > 1:
        raise InputError(
            "the files of readings differ: "
            + " and ".join(" with ".join(names) for names in dict.fromkeys(has))
            + "; give each the same columns"
        )
    return pd.concat(readings, ignore_index=True)


def _unread(read: pd.DataFrame, n_cases: int) -> list[str]:
    counts = read.groupby(["modality", "reader"], sort=False).size()
    short = counts[counts < n_cases]
    if short.empty:
        return []
    modality, reader = short.index[0]
    return [
        f"{len(short)} of {len(counts)} readings lack cases (the first: reader {reader} with "
        f"{modality} has {short.iloc[0]:,} of {n_cases:,}); each figure is of the cases that were "
        "read, and the covariance takes account of it. That is fair only if which cases were left "
        "out has nothing to do with how hard they are."
    ]


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


def _require_both_classes(who: str, truth: pd.DataFrame) -> None:
    for label, word in ((True, "positive"), (False, "negative")):
        patients = truth.loc[truth["label"] == label, "patient"].nunique()
        if patients < 2:
            raise InputError(
                f"{who}: {counted(patients, 'patient')} with {word} cases; at least two are "
                "needed to know "
                "how sure a figure is"
            )


def _values(path: Path, table: pd.DataFrame, unique: list[str]) -> pd.DataFrame:
    """Rows that were read, with their ratings and decisions as numbers."""
    held = [name for name in _VALUES if name in table]
    if not held:
        raise InputError(
            f"{path}: column 'rating' or 'decision' is missing; it has {_listed(table)}"
        )
    table = table[(table[held] != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{path}: holds no rating or decision")
    _require_unique(path, table, unique)
    numbers = {name: _numbers(path, table, name, binary=name == "decision") for name in held}
    return table[_KEYS].assign(**numbers).reset_index(drop=True)


def _numbers(path: Path, table: pd.DataFrame, column: str, *, binary: bool) -> pd.Series:
    values = pd.to_numeric(table[column], errors="coerce").astype(np.float64)
    good = values.isin([0.0, 1.0]) if binary else pd.Series(np.isfinite(values), table.index)
    if not good.all():
        what = "0 or 1" if binary else "a number"
        row = table.iloc[int(np.argmin(good))]
        raise InputError(f"{path}: line {row['line']}: {column} '{row[column]}' is not {what}")
    return values


def _require_unique(path: Path, table: pd.DataFrame, columns: list[str]) -> None:
    repeats = table.duplicated(columns)
    if repeats.any():
        again = table[repeats].iloc[0]
        same = (table[columns] == again[columns]).all(axis=1)
        which = ", ".join(f"{name} {again[name]}" for name in columns)
        raise InputError(
            f"{path}: line {again['line']}: {which} appears again (first in line "
            f"{table.loc[same, 'line'].iloc[0]})"
        )


def _read_csv(path: Path, needed: Sequence[str], allowed: Sequence[str]) -> pd.DataFrame:
    """The wanted columns as text without spaces around, and ``line`` in the file."""
    if path.is_dir():
        raise InputError(f"{path}: a folder; give a CSV file")
    table = read_text_csv(path, ())
    for name, others in _SAME.items():
        other = next((column for column in others if column in table), None)
        if name not in table and other is not None:
            table = table.rename(columns={other: name})
    for name in needed:
        if name not in table:
            raise InputError(
                f"{path}: column '{name}' is missing; it has {_listed(table)}"
                f"{_suggestion(name, list(table.columns))}"
            )
    held = [name for name in (*needed, *allowed) if name in table]
    table = table[held]
    empty = (table[list(needed)] == "").any(axis=1)
    refuse_line(empty, path, f"{' or '.join(needed)} is empty")
    return table.assign(line=table.index + 2).reset_index(drop=True)


def _listed(table: pd.DataFrame) -> str:
    return ", ".join(map(str, table.columns[:20]))


def _suggestion(name: str, columns: list[str]) -> str:
    """What to do about a missing column.

    Example:
        >>> _suggestion("case", ["Case ID", "x"]), _suggestion("case", ["reader;case"])
        ("; rename 'Case ID' to 'case'?", '; save it with commas')
    """
    if len(columns) == 1:
        return "; save it with commas"
    plain = {column.lower(): column for column in columns}
    near = [column for column in plain if name in column]
    near = near or difflib.get_close_matches(name, plain, n=1)
    return f"; rename '{plain[near[0]]}' to '{name}'?" if near else ""
