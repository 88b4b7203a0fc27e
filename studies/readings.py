"""The tables of a reader study: truth, ratings or decisions of readers, and systems beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.table_files import read_text_table, refuse_line, to_numbers
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.evaluation.sources.read_predictions import read_output
from cxr_compare.evaluation.sources.stored_predictions import read_decision
from cxr_compare.evaluation.statistics.arrays import is_positive

KEYS = ["reader", "modality", "case"]
ONLY_MODALITY = "reading"
_SAME = {"image_id": "case", "case_id": "case", "score": "rating", "patient_id": "patient"}
_POLICY = "max_f1"


def read_truth(truth: Path | LabelledSplit) -> pd.DataFrame:
    """Return ``label`` (True for disease) and ``patient`` of each case of a CSV or a data set."""
    if isinstance(truth, LabelledSplit):
        label = truth.truth.label.dropna() == 1
        patients = truth.truth.patients_of(label.index)
        return pd.DataFrame({"label": label, "patient": patients}).rename_axis("case")
    table = _read(truth, ("case", "label"))
    label = _numbers(table, truth, "label") == 1
    patient = table["patient"] if "patient" in table else table["case"]
    refuse_line(patient == "", truth, "patient is empty")
    _require_unique(table, truth, ["case"])
    return pd.DataFrame({"label": label, "patient": patient}).set_index(table["case"])


def read_ratings(path: Path, system: str | None = None) -> pd.DataFrame:
    """Read ratings, decisions or both of readers, or of a system that read the cases alone."""
    table = _read(path, ("reader", "case") if system is None else ("case",))
    if marks := sorted({"x", "x1", "lesion"} & set(table)):
        raise InputError(
            f"{path}: has marks (column '{marks[0]}'); compare each reader's marks as a system: "
            "cxr compare"
        )
    values = [name for name in ("rating", "decision") if name in table]
    if not values:
        raise InputError(f"{path}: has neither a column rating nor decision")
    if system is not None:
        table = table.assign(reader=system, modality="")
    elif "modality" not in table:
        table["modality"] = ONLY_MODALITY
    else:
        refuse_line(table["modality"] == "", path, "modality is empty")
    table = table[(table[values] != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{path}: holds no rating or decision")
    _require_unique(table, path, KEYS if system is None else ["case"])
    return table[KEYS].assign(**{name: _numbers(table, path, name) for name in values})


def predicted_system(
    folder: Path, name: str, test_set: LabelledSplit, cases: Sequence[str]
) -> pd.DataFrame:
    """Return scores and decisions of predictions; the threshold was chosen on validation images."""
    predictions = Predictions.open(folder)
    ids = pd.Index(cases, name="image_id")
    roles = test_set.dataset.split(test_set.split).set_index("image_id")["role"].reindex(ids)
    no_test = f"is no test image of split '{test_set.split}', so it is no fair test"
    for problem, wrong in (
        (no_test, ids[roles != "test"]),
        ("was not predicted", ids[~ids.isin(predictions.images_run)]),
    ):
        if len(wrong):
            raise InputError(f"system {name}: case '{wrong[0]}' {problem} ({len(wrong)} such)")
    decision = read_decision(name, predictions, test_set, (_POLICY,))
    scores = read_output(predictions, test_set.target, ids).scores(decision.reduction)
    table = pd.DataFrame({"reader": name, "modality": "", "case": ids, "rating": scores.values})
    threshold = decision.thresholds[_POLICY].threshold
    if threshold is not None:
        table["decision"] = is_positive(scores, threshold).astype(np.float64)
    return table


def join(
    truth: pd.DataFrame, ratings: Sequence[pd.DataFrame], systems: Mapping[str, pd.DataFrame]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the truth of all cases that were read, and all readings with those of systems."""
    if len({tuple(table) for table in ratings}) > 1:
        raise InputError("the files of ratings have different columns; give each the same")
    read = pd.concat(ratings, ignore_index=True)
    if (again := read.duplicated(KEYS)).any():
        first = read[again].iloc[0]
        raise InputError(f"reader {first['reader']}, case {first['case']} appears in two files")
    unknown = read.loc[~read["case"].isin(truth.index), "case"]
    if len(unknown):
        raise InputError(f"case '{unknown.iloc[0]}' was read but has no truth")
    used = truth[truth.index.isin(read["case"])]
    for (reader, modality), rows in read.groupby(["reader", "modality"], sort=False):
        patients = used.loc[rows["case"]].groupby("label")["patient"].nunique()
        n_positive, n_negative = patients.get(True, 0), patients.get(False, 0)
        if min(n_positive, n_negative) < 2:
            raise InputError(
                f"reader {reader}, modality {modality}: {n_positive} patients with positive and "
                f"{n_negative} with negative cases; two of each are needed to know how sure a "
                "figure is"
            )
    needed = "rating" if "rating" in read else "decision"
    for name, table in systems.items():
        missing = used.index[~used.index.isin(table["case"])]
        if len(missing):
            raise InputError(f"system {name}: has no score for case '{missing[0]}'")
        if name in set(read["modality"]):
            raise InputError(f"system {name}: a modality has that name; give another")
        if needed not in table:
            raise InputError(f"system {name}: has no {needed}, as the readers gave")
    alone = [table[table["case"].isin(used.index)] for table in systems.values()]
    joined = pd.concat([read, *alone], ignore_index=True)
    return used, joined[list(read)]


def _read(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    table = read_text_table(path, ())
    for other, name in _SAME.items():
        if other in table and name not in table:
            table = table.rename(columns={other: name})
    missing = [name for name in needed if name not in table]
    if missing:
        listed = ", ".join(map(str, table.columns[:20]))
        raise InputError(f"{path}: column '{missing[0]}' is missing; it has {listed}")
    refuse_line((table[list(needed)] == "").any(axis=1), path, f"{' or '.join(needed)} is empty")
    return table


def _numbers(table: pd.DataFrame, path: Path, name: str) -> pd.Series:
    values = to_numbers(table[name], path, name)
    refuse_line(~np.isfinite(values), path, f"{name} is no number")
    if name != "rating":
        refuse_line(~values.isin([0, 1]), path, " is neither 0 nor 1", table[name])
    return values


def _require_unique(table: pd.DataFrame, path: Path, columns: list[str]) -> None:
    again = f": this {' and '.join(columns)} stands in a line before"
    refuse_line(table.duplicated(columns), path, again, table[columns[-1]])
