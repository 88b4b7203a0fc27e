"""Data sets with the labels of several readers."""

import pandas as pd

from cxr_compare.data_prep.contracts.tables import read_table
from cxr_compare.data_prep.dataset import DataSet
from tests.stored_json import put_table


def add_readers(dataset: DataSet, others: dict[str, list[str]]) -> DataSet:
    """Add readers who differ from the reference on the named images, and open the set."""
    path = dataset.folder / "findings.parquet"
    reference = read_table(path, "findings")
    swapped = reference["state"].map({"present": "absent", "absent": "present"})
    tables = [
        reference.assign(
            reader=name, state=reference["state"].mask(reference["image_id"].isin(ids), swapped)
        )
        for name, ids in others.items()
    ]
    put_table(pd.concat([reference, *tables], ignore_index=True), path, "findings")
    return DataSet.open(dataset.folder)
