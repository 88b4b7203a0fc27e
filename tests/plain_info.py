"""Records of folders that a test writes by hand, with what it does not state filled in."""

from typing import Any

from cxr_compare.data_prep.contracts.finding_names import Target
from cxr_compare.data_prep.store.dataset_info import DataSetIds, DataSetInfo
from cxr_compare.serving.export_spec import ExportSpec
from cxr_compare.training.run_info import RunInfo


def data_set_info(**stated: Any) -> DataSetInfo:
    """Return the record of a data set."""
    usual = {
        "name": "set",
        "source_format": "table",
        "source_root": "source",
        "targets": {},
        "ids": DataSetIds(content_id="c", labels_id="l"),
        "settings": {},
    }
    return DataSetInfo(**usual | stated)


def export_spec(**stated: Any) -> ExportSpec:
    """Return the description of an exported network."""
    usual = {
        "format": "onnx",
        "precision": "fp32",
        "kind": "scores",
        "findings": ("mass",),
        "target": Target("mass", ("mass",), "Mass"),
        "size": 64,
        "run": RunInfo(name="run"),
    }
    return ExportSpec(**usual | stated)
