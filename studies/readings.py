"""The tables of a reader study: truth, ratings or decisions of readers, and systems beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.names import Target
from cxr_compare.data_prep.base.user_tables import read_text_table, refuse_line, to_numbers
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.predictions import Predictions
from cxr_compare.evaluation.choices import choose
from cxr_compare.evaluation.inputs.folders import output_of, refuse_seen, truth_of
from cxr_compare.evaluation.inputs.read_output import read_output
from cxr_compare.evaluation.inputs.read_truth import read_truth
from cxr_compare.evaluation.notes import Note
from cxr_compare.evaluation.policies import USUAL_POLICY
from cxr_compare.evaluation.statistics.arrays import is_positive
from cxr_compare.evaluation.truth import Truth

KEYS = ["reader", "modality", "case"]
ONLY_MODALITY = "reading"
_SAME = {"image_id": "case", "case_id": "case", "score": "rating", "patient_id": "patient"}


def read_cases(path: Path) -> Truth:
    """Read the label and, if there is one, the patient of each case."""
    table = _read(path, ("case", "label"))
    _require_unique(table, path, ["case"])
    columns = {"image": "case", "label": "label"}
    if "patient" in table:
        refuse_line(table["patient"] == "", path, "patient is empty")
        columns["patient"] = "patient"
    table.index += 2  # the line of a row, below the header
    return read_truth(table[[*columns.values()]], columns=columns, where=str(path))


def labelled_cases(truth: Truth) -> pd.DataFrame:
    """Return ``label`` (True for disease) and ``patient`` of each case of known label."""
    images = truth.images[truth.images["label"].notna()]
    cases = {"label": images["label"] == 1, "patient": images["patient_id"]}
    return pd.DataFrame(cases).rename_axis("case")


def read_ratings(path: Path) -> pd.DataFrame:
    """Read ratings, decisions or both of readers."""
    table = _read(path, ("reader", "case"))
    values = _values(table, path)
    if "modality" not in table:
        table["modality"] = ONLY_MODALITY
    refuse_line(table["modality"] == "", path, "modality is empty")
    table = table[(table[values] != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{path}: holds no rating or decision")
    _require_unique(table, path, KEYS)
    return table[KEYS].assign(**{name: _numbers(table, path, name) for name in values})


def read_system(path: Path, name: str, truth: Truth) -> pd.DataFrame:
    """Read scores, decisions or both of a system that read the cases alone."""
    table = _read(path, ("case",))
    values = _values(table, path)
    _require_unique(table, path, ["case"])
    table = table[table["case"].isin(truth.ids) & (table[values] != "").any(axis=1)]
    if table.empty:
        raise InputError(f"{path}: holds no rating or decision of a case")
    table.index += 2  # the line of a row, below the header
    read = {}
    for column in values:
        columns = {"image": "case", "score": column}
        readings = table[["case", column]]
        read[column] = read_output(readings, truth, name, columns=columns, where=str(path))
    system = pd.DataFrame({column: output.scores for column, output in read.items()})
    if "decision" in system and not system["decision"].isin([0, 1]).all():
        case = system.index[~system["decision"].isin([0, 1])][0]
        raise InputError(f"{path}: case '{case}': decision is neither 0 nor 1")
    return system.rename_axis("case").reset_index().assign(reader=name, modality="")


def predicted_system(
    name: str,
    predictions: Predictions,
    dataset: DataSet,
    target: Target,
    split: str,
    cases: Sequence[str],
) -> tuple[pd.DataFrame, list[Note]]:
    """Return scores and decisions of predictions; the threshold was chosen on validation images.

    InputError for a case that is no test image, was not predicted, or was seen in training.
    """
    truth = truth_of(dataset, target, split)
    output = output_of(name, predictions, truth, target)
    ids = pd.Index(cases, name="image_id")
    no_test = f"is no test image of split '{split}', so it is no fair test"
    for problem, wrong in (
        (no_test, ids[truth.images["role"].reindex(ids) != "test"]),
        ("was not predicted", ids[~ids.isin(output.ran)]),
    ):
        if len(wrong):
            raise InputError(f"system {name}: case '{wrong[0]}' {problem} ({len(wrong)} such)")
    notes = refuse_seen(name, predictions, dataset, ids)
    validation = truth.of("val")
    validation = validation.select(validation.ids.intersection(output.ran))
    threshold = choose(output, validation, [USUAL_POLICY]).thresholds.get(USUAL_POLICY)
    scores = output.scores.reindex(ids)
    table = pd.DataFrame({"reader": name, "modality": "", "case": ids, "rating": scores.values})
    if threshold is not None:
        table["decision"] = is_positive(scores, threshold).astype(np.float64)
    return table, [*notes, *output.notes]


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
        raise InputError(f"case '{unknown.iloc[0]}' was read but its label is not known")
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


def _values(table: pd.DataFrame, path: Path) -> list[str]:
    """Return the columns that hold readings; refuse marks of lesions."""
    if marks := sorted({"x", "x1", "lesion"} & set(table)):
        raise InputError(
            f"{path}: has marks (column '{marks[0]}'); compare each reader's marks as a system: "
            "cxr compare"
        )
    values = [name for name in ("rating", "decision") if name in table]
    if not values:
        raise InputError(f"{path}: has neither a column rating nor decision")
    return values


def _numbers(table: pd.DataFrame, path: Path, name: str) -> pd.Series:
    values = to_numbers(table[name], path, name)
    refuse_line(~np.isfinite(values), path, f"{name} is no number")
    if name != "rating":
        refuse_line(~values.isin([0, 1]), path, " is neither 0 nor 1", table[name])
    return values


def _require_unique(table: pd.DataFrame, path: Path, columns: list[str]) -> None:
    again = f": this {' and '.join(columns)} stands in a line before"
    refuse_line(table.duplicated(columns), path, again, table[columns[-1]])
