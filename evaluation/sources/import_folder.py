"""Predictions of other software with the record and the tables of a predictions folder."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.data_prep.store.prediction_writer import Part
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.output import System
from cxr_compare.evaluation.sources.import_options import ImportOptions
from cxr_compare.evaluation.sources.imported import read_rows
from cxr_compare.evaluation.sources.known_images import KnownImages

_UNKNOWN_COST = ("parameters", "flops", "latency_ms", "latency_device", "batch_size")


def as_predictions(read: System, data_set: MadeOn | None, imported_from: str) -> Predictions:
    """Return the predictions with the record and the tables of a predictions folder.

    `data_set` and `imported_from` (name of the file) are for the record.
    """
    info = PredictionsInfo(
        system=read.name,
        seed=None,
        kind=read.kind,
        findings=read.findings,
        inference_id=str(read.facts.inference_id),
        data_set=data_set,
        cost=dict.fromkeys(_UNKNOWN_COST),
        trained_on="unknown",
        imported_from=imported_from,
        notes=read.facts.notes,
        has_scores=read.has_scores,
        **provenance(),
    )
    rows = read.boxes if read.gives_boxes else read.scores
    return Predictions.from_part(info, Part(read.images, {read.kind: rows}))


def read_predictions(
    source: str | Path | pd.DataFrame, data: str | Path | DataSet, options: ImportOptions
) -> Predictions:
    """Read the predictions of any detector or classifier, or of a human reader, of a data set.

    The source is a CSV file or other table, a folder of YOLO text files, a COCO results file, or a
    DataFrame. ``info.notes`` says what was left out, clipped or assumed. Errors are those of
    `read_rows`.
    """
    dataset = data if isinstance(data, DataSet) else DataSet.open(Path(data))
    read = read_rows(source, KnownImages.of_data_set(dataset), options)
    imported_from = "DataFrame" if isinstance(source, pd.DataFrame) else Path(source).name
    return as_predictions(read, data_set_record(dataset, options.split), imported_from)


def data_set_record(dataset: DataSet, split: str) -> MadeOn:
    """Return what predictions record of the data set and the split whose images they are of."""
    ids = dataset.ids
    return MadeOn(
        name=dataset.name,
        content_id=ids.content_id,
        split=split,
        split_id=ids.split_ids.get(split),
    )
