"""Tables of the scores of all folds, in which each image has the score of one model.

    python -m tools.full_size.pooled OUT

The score of an image is the calibrated probability of the model that did not learn from it. With
the folds by patient, that model did not learn from its patient either. ``tables/pooled`` has all
images of the folds by patient. ``tables/clean`` and ``tables/leaky`` have the images that were
tested in both kinds of folds: the difference of their figures is the price of the leak.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.decisions.decision import Decision
from cxr_compare.evaluation.systems.labelled_split import LabelledSplit
from cxr_compare.evaluation.systems.stored_predictions import read_output
from tools.full_size.protocol import Protocol
from tools.full_size.record import recorded_protocol
from tools.full_size.steps import POOLED, SETS, TABLES, Arm, folds_of, predictions_folder


def pooled_scores(protocol: Protocol, out: Path, arm: Arm) -> pd.DataFrame:
    """Read the calibrated probabilities of all test images of an arm.

    Args:
        protocol: The protocol of the study.
        out: Its folder of results.
        arm: ``fold`` or ``leaky``.

    Returns:
        One row for each image: ``image_id, patient_id, label``, and a column for each training,
        such as ``CheXNet-0``. Images without a label are left out.
    """
    dataset = DataSet.open(out / SETS[arm])
    target = dataset.target(protocol.question.target)
    parts = []
    for split in folds_of(protocol, arm):
        test_set = LabelledSplit(dataset, target, split)
        labels = test_set.labels_of("test").dropna()
        columns = {"patient_id": test_set.patients(labels.index), "label": labels.astype(int)}
        for system in protocol.system:
            for seed in protocol.seeds_of(system, leaky=arm == "leaky"):
                folder = predictions_folder(out, arm, split, system.name, seed)
                columns[folder.name] = _probabilities(folder, test_set, labels.index)
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts).rename_axis("image_id").reset_index()


def _probabilities(folder: Path, test_set: LabelledSplit, ids: pd.Index) -> pd.Series:
    predictions = Predictions.open(folder)
    stored = predictions.decision(test_set.target.name)
    decision = None if stored is None else Decision.from_dict(stored)
    if decision is None or decision.calibration is None:
        raise InputError(f"{folder}: has no calibration; run cxr tune on it again")
    output = read_output(predictions, test_set.target, ids, maps=False)
    scores = output.scores(decision.reduction)
    return pd.Series(decision.calibration.probability(scores), index=ids)


def write_tables(protocol: Protocol, out: Path) -> None:
    """Write the tables of the pooled comparison and of the price of the leak.

    Args:
        protocol: The protocol of the study.
        out: Its folder of results.
    """
    clean = pooled_scores(protocol, out, "fold")
    _write(out / TABLES / POOLED, clean)
    if not protocol.leak.used:
        return
    leaky = pooled_scores(protocol, out, "leaky")
    both = sorted(set(clean["image_id"]) & set(leaky["image_id"]))
    patients = clean.set_index("image_id")["patient_id"]
    leaky["patient_id"] = leaky["image_id"].map(patients)  # the leaky set does not know them
    for name, table in (("clean", clean), ("leaky", leaky)):
        _write(out / TABLES / name, table.set_index("image_id").loc[both].reset_index())


def _write(folder: Path, table: pd.DataFrame) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    truth = table[["image_id", "patient_id", "label"]].assign(role="test")
    truth.to_csv(folder / "truth.csv", index=False)
    for name in table.columns.difference(["image_id", "patient_id", "label"], sort=False):
        scores = table[["image_id", name]].rename(columns={name: "score"})
        scores.to_csv(folder / f"{name}.csv", index=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    write_tables(recorded_protocol(arguments.out), arguments.out)


if __name__ == "__main__":
    main()
