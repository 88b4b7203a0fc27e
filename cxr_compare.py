"""Lesion detector or image classifier: which finds the disease better, and how sure are we?

The public names, each loaded from its room when it is first used: importing this module takes
no time and needs no torch.

Example:
    >>> import cxr_compare
    >>> cxr_compare.choose_threshold.__module__
    'evaluation.decisions.thresholds'
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which do not look into the table below
    from classification.dataset import ImageLabelDataset as ImageLabelDataset
    from classification.inference import activation_map as activation_map
    from classification.inference import predict_scores as predict_scores
    from classification.model import build_chexnet as build_chexnet
    from classification.model import build_classifier as build_classifier
    from data_prep.assemble.combine import combine as combine
    from data_prep.audit.audit import audit as audit
    from data_prep.audit.patients import find_duplicates as find_duplicates
    from data_prep.audit.patients import find_leaks as find_leaks
    from data_prep.augment.augment import augment as augment
    from data_prep.contracts.errors import InputError as InputError
    from data_prep.duplicates.near_duplicates import find_near_duplicates as find_near_duplicates
    from data_prep.export.export import export_annotations as export_annotations
    from data_prep.images.dicom import read_dicom as read_dicom
    from data_prep.images.image import read_image as read_image
    from data_prep.splits.split import SplitRule as SplitRule
    from data_prep.splits.split import split_by_patient as split_by_patient
    from data_prep.store.dataset import DataSet as DataSet
    from data_prep.store.predictions import Predictions as Predictions
    from data_prep.synth.phantom import write_phantom as write_phantom
    from data_prep.work.engine import open_engine as open_engine
    from detection.dataset import LesionDataset as LesionDataset
    from detection.inference import predict_boxes as predict_boxes
    from detection.model import build_retinanet as build_retinanet
    from evaluation.boxes.average_precision import average_precision as average_precision
    from evaluation.boxes.map_boxes import boxes_from_map as boxes_from_map
    from evaluation.boxes.matching import match_boxes as match_boxes
    from evaluation.compare.compare import compare_systems as compare_systems
    from evaluation.decisions.decision import Decision as Decision
    from evaluation.decisions.reduction import reduce_boxes as reduce_boxes
    from evaluation.decisions.thresholds import choose_threshold as choose_threshold
    from evaluation.metrics.image_metrics import classification_metrics as classification_metrics
    from evaluation.metrics.image_metrics import confusion_counts as confusion_counts
    from evaluation.metrics.image_metrics import net_benefit as net_benefit
    from evaluation.overlays.draw import draw_overlay as draw_overlay
    from evaluation.report.report import write_report as write_report
    from evaluation.statistics.auroc_variance import auroc_difference as auroc_difference
    from evaluation.statistics.bootstrap import cluster_bootstrap as cluster_bootstrap
    from evaluation.statistics.mcnemar import mcnemar_test as mcnemar_test
    from evaluation.systems.shortcuts import measure_shortcuts as measure_shortcuts
    from scripts.api import load as load
    from scripts.api import train as train
    from scripts.compare import compare as compare
    from scripts.import_predictions import import_predictions as import_predictions
    from scripts.prepare import prepare as prepare
    from serving.answer import draw_answers as draw_answers
    from training.fit import fit as fit
    from training.run_folder import RunFolder as RunFolder

from cxr_start import require_own_rooms

__version__ = "0.1.0"

_HOMES = {
    "load": "scripts.api",
    "train": "scripts.api",
    "compare": "scripts.compare",
    "draw_answers": "serving.answer",
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
    "open_engine": "data_prep.work.engine",
    "prepare": "scripts.prepare",
    "read_dicom": "data_prep.images.dicom",
    "read_image": "data_prep.images.image",
    "SplitRule": "data_prep.splits.split",
    "split_by_patient": "data_prep.splits.split",
    "write_phantom": "data_prep.synth.phantom",
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
    "import_predictions": "scripts.import_predictions",
    "match_boxes": "evaluation.boxes.matching",
    "mcnemar_test": "evaluation.statistics.mcnemar",
    "measure_shortcuts": "evaluation.systems.shortcuts",
    "net_benefit": "evaluation.metrics.image_metrics",
    "reduce_boxes": "evaluation.decisions.reduction",
    "write_report": "evaluation.report.report",
    "RunFolder": "training.run_folder",
    "fit": "training.fit",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'cxr_compare' has no attribute '{name}'")
    require_own_rooms()
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
