"""Record of a data set that a test writes by hand, with what it does not state filled in."""

from typing import Any

from cxr_compare.data_prep.dataset import DataSetIds, DataSetInfo


def data_set_info(**stated: Any) -> DataSetInfo:
    """Return the record of a data set."""
    usual = {
        "name": "set",
        "source_root": "source",
        "targets": {},
        "ids": DataSetIds(content_id="c", labels_id="l"),
        "request": "r",
    }
    return DataSetInfo(**usual | stated)
