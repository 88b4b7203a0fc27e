"""Lesion detector or image classifier: which finds the disease better, and how sure are we?

The public names, each loaded from its room when it is first used: importing this module takes
no time and needs no torch.

Example:
    >>> import cxr_compare
    >>> cxr_compare.choose_threshold.__module__
    'evaluation.decisions.thresholds'
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "InputError": "data_prep.contracts.errors",
    "DataSet": "data_prep.store.dataset",
    "Predictions": "data_prep.store.predictions",
    "augment": "data_prep.augment.augment",
    "audit": "data_prep.audit.audit",
    "combine": "data_prep.assemble.combine",
    "export_annotations": "data_prep.export.export",
    "find_duplicates": "data_prep.audit.patients",
    "find_leaks": "data_prep.audit.patients",
    "find_near_duplicates": "data_prep.duplicates.near_duplicates",
    "prepare": "data_prep.assemble.prepare",
    "read_dicom": "data_prep.images.dicom",
    "read_image": "data_prep.images.image",
    "split_by_patient": "data_prep.splits.split",
    "LesionDataset": "detection.dataset",
    "build_retinanet": "detection.model",
    "predict_boxes": "detection.inference",
    "ImageLabelDataset": "classification.dataset",
    "activation_map": "classification.inference",
    "build_chexnet": "classification.model",
    "build_classifier": "classification.model",
    "predict_scores": "classification.inference",
    "Decision": "evaluation.decisions.decision",
    "auroc_difference": "evaluation.statistics.auroc_variance",
    "average_precision": "evaluation.boxes.average_precision",
    "boxes_from_map": "evaluation.boxes.map_boxes",
    "choose_threshold": "evaluation.decisions.thresholds",
    "classification_metrics": "evaluation.metrics.image_metrics",
    "cluster_bootstrap": "evaluation.statistics.bootstrap",
    "compare_systems": "evaluation.compare.compare",
    "confusion_counts": "evaluation.metrics.image_metrics",
    "draw_overlay": "evaluation.overlays.draw",
    "match_boxes": "evaluation.boxes.average_precision",
    "mcnemar_test": "evaluation.statistics.mcnemar",
    "measure_shortcuts": "evaluation.systems.shortcuts",
    "net_benefit": "evaluation.compare.shares",
    "reduce_boxes": "evaluation.decisions.reduction",
    "write_report": "evaluation.report.report",
    "RunFolder": "training.run_folder",
    "fit": "training.fit",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cxr_compare' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
