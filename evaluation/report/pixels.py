"""Pixels of the evaluated images, on which a report draws, and what single readers drew."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from cxr_compare.data_prep.base.boxes import EDGES
from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.tables import REFERENCE_READER
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.data_prep.pixels import ImageFile
from cxr_compare.evaluation.inputs.image_sizes import ImageFiles
from cxr_compare.evaluation.report.cases import Pixels


def readings_of(dataset: DataSet, findings: Sequence[str]) -> pd.DataFrame:
    """Return the boxes of the single readers of a data set, for some findings.

    They have ``image_id``, ``reader`` and edges; a reader without a box has a row without edges.
    """
    tables = []
    for name in ("findings", "boxes"):
        table = dataset.table(name)
        is_single = table["reader"] != REFERENCE_READER
        tables.append(table[is_single & table["finding"].isin(findings)])
    read, boxes = tables
    keys = ["image_id", "reader"]
    columns = [*keys, *EDGES]
    return read[keys].drop_duplicates().merge(boxes[columns], on=keys, how="outer")[columns]


def pixels_of_files(files: ImageFiles) -> Pixels:
    """Return the pixels of image files, for images that have no data set."""

    def read(image_id: str) -> npt.NDArray[np.uint8]:
        path = files.find(image_id)
        if path is None:
            raise InputError(f"{files.where}: has no file of image '{image_id}'")
        return ImageFile(path, None).read()

    return read
