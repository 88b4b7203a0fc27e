"""Made by tools/documents.py: what editors and type checkers read of the package."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, overload

from cxr_compare import metrics as metrics
from cxr_compare.data_prep.audit.audit import Audit as Audit
from cxr_compare.data_prep.audit.check_table import check_table as check_table
from cxr_compare.data_prep.audit.shared_patients import SplitCheck
from cxr_compare.data_prep.contracts.errors import InputError as InputError
from cxr_compare.data_prep.dataset import DataSet as DataSet
from cxr_compare.data_prep.export.export import ExportSummary
from cxr_compare.data_prep.store.predictions import Predictions as Predictions
from cxr_compare.data_prep.synth.phantom import PhantomSummary
from cxr_compare.evaluation.boxes.boxes_table import boxes_table as boxes_table
from cxr_compare.evaluation.choices import Choices as Choices
from cxr_compare.evaluation.report.result import Result as Result
from cxr_compare.evaluation.report.results_by_target import ResultsByTarget
from cxr_compare.scripts.commands.train import TrainedRuns
from cxr_compare.scripts.given_systems import SystemPaths
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath
from cxr_compare.scripts.runs import load as load
from cxr_compare.serving.answer import Answer as Answer
from cxr_compare.serving.answer import draw_answers as draw_answers
from cxr_compare.serving.answers import Answers as Answers
from cxr_compare.serving.run import Run as Run

__version__: str
__all__: list[str]
_HOMES: dict[str, str]

def synth(
    out: AnyPath,
    *,
    images: int = 2000,
    size: int = 256,
    seed: int = 0,
    progress: bool = False,
) -> PhantomSummary:
    """Write synthetic chest X-rays with known lesions, in RSNA's layout."""
    ...

def prepare(
    *paths: AnyPath,
    format: str | None = None,
    out: AnyPath | None = None,
    name: str | None = None,
    size: int | Sequence[int] | None = None,
    target: Mapping[str, Sequence[str]] | None = None,
    split: str | None = None,
    val: float = 0.15,
    test: float = 0.2,
    reference: str = "majority",
    sheet: str | None = None,
    columns: str | Sequence[str] = (),
    class_names: Any | Sequence[Any] = (),
    raw_boxes: bool = False,
    patient_pattern: str | None = None,
    exclude: AnyPath | None = None,
    id_key: AnyPath | None = None,
    keep_ids: bool = False,
    add: bool = False,
    join: AnyPath | Sequence[AnyPath] = (),
    workers: int | None = None,
    progress: bool = False,
) -> DataSet:
    """Make a data set folder: tables, split by patient, audit."""
    ...

def check(
    data: AnyPath,
    *,
    split: str | None = None,
    strict: bool = False,
    no_pixels: bool = False,
    burned_in_text: bool = False,
    train: AnyPath | Sequence[AnyPath] = (),
    mapping: AnyPath | None = None,
    progress: bool = False,
) -> Audit | SplitCheck:
    """Audit a data set, or check how a published split shares patients."""
    ...

def split(
    data: AnyPath,
    *,
    name: str,
    val: float | None = None,
    test: float | None = None,
    folds: int | None = None,
    test_folds: bool = False,
    seed: int | None = None,
    file: AnyPath | None = None,
    keep_test_of: str | None = None,
    share: float | None = None,
    replace: bool = False,
    progress: bool = False,
) -> Outcome:
    """Make another split by patient; copies of an image stay together."""
    ...

def list_configs(
    name: str | None = None,
    *,
    set_: str | Sequence[str] | Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Outcome:
    """List the configurations for cxr train, or show one in full."""
    ...

def train(
    config: str | Sequence[str],
    *,
    data: AnyPath,
    out: AnyPath,
    set_: str | Sequence[str] | Mapping[str, Any] | None = None,
    despite_audit: bool = False,
    device: str = "auto",
    devices: int = 1,
    progress: bool = False,
) -> Run | TrainedRuns:
    """Train a detector, a classifier or several, or fit a probe."""
    ...

def predict(
    *paths: AnyPath | Sequence[AnyPath],
    out: AnyPath | None = None,
    data: AnyPath | None = None,
    policy: str | None = None,
    csv: AnyPath | None = None,
    overlay: bool = True,
    strict: bool = False,
    verbose: bool = False,
    split: str | None = None,
    batch_size: int | None = None,
    backend: Literal["torch", "onnx", "openvino", "auto"] | None = None,
    precision: Literal["fp32", "bf16", "int8"] | None = None,
    device: str = "auto",
    finding: str | Sequence[str] | None = None,
    tta: str = "",
    maps: Literal["cam", "gradcam", "layercam"] = "cam",
    join: AnyPath | Sequence[AnyPath] = (),
    progress: bool = False,
) -> Answers | Predictions | Outcome:
    """Predict images, or the validation and test images of a data set."""
    ...

def import_predictions(
    file: Any,
    *,
    data: AnyPath,
    out: AnyPath,
    name: str | None = None,
    finding: str | None = None,
    columns: str | Sequence[str] = (),
    images: str = "all",
    class_names: str | None = None,
    split: str = "default",
    ignore_unknown: bool = False,
    coco_truth: AnyPath | None = None,
    scale: float | None = None,
    progress: bool = False,
) -> Predictions:
    """Import predictions of other software."""
    ...

def ensemble(
    predictions: AnyPath
    | SystemPaths
    | Sequence[AnyPath | SystemPaths]
    | Mapping[str, AnyPath | Sequence[AnyPath]]
    | Mapping[str, Any],
    *,
    data: AnyPath | None = None,
    truth: Any = None,
    boxes: Any = None,
    patients: Any = None,
    out: AnyPath | None = None,
    name: str | None = None,
    progress: bool = False,
) -> Predictions:
    """Join several systems into one: detectors, classifiers or both."""
    ...

def tune(
    predictions: AnyPath,
    *,
    data: AnyPath,
    target: str | None = None,
    policy: str | Sequence[str] | None = None,
    calibration: Literal["none", "temperature", "platt", "isotonic", "choose"] | None = None,
    reduction: Literal["max", "top_k", "noisy_or"]
    | Sequence[Literal["max", "top_k", "noisy_or"]]
    | None = None,
    boxes_by: str = "froc_mean",
    progress: bool = False,
) -> Choices:
    """Choose thresholds, calibration and boxes on validation images."""
    ...

@overload
def compare(  # type: ignore[overload-overlap]
    systems: AnyPath
    | SystemPaths
    | Sequence[AnyPath | SystemPaths]
    | Mapping[str, AnyPath | Sequence[AnyPath]]
    | Mapping[str, Any],
    *,
    data: AnyPath | None = None,
    truth: Any = None,
    boxes: Any = None,
    patients: Any = None,
    columns: str | Sequence[str] = (),
    scale: str | Sequence[str] | Mapping[str, float] = (),
    out: AnyPath | None = None,
    target: Literal["all"] | list[str] | tuple[str, ...],
    split: str | None = None,
    images: AnyPath | Sequence[AnyPath] = ("all",),
    replicates: int = 2000,
    protocol: AnyPath | None = None,
    margin: float | None = None,
    prevalence: str | None = None,
    unit: Literal["image", "study", "patient"] = "image",
    policy: str | Sequence[str] | None = None,
    metrics: Any | Sequence[Any] = (),
    charts: Any | Sequence[Any] = (),
    exposure: str | Sequence[str] = (),
    mapping: AnyPath | None = None,
    allow_shared_patients: bool = False,
    uncertain: Literal["positive", "negative"] | None = None,
    both: bool = False,
    hide_names: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> ResultsByTarget:
    """Evaluate systems on the same test images, and write the report."""
    ...

@overload
def compare(
    systems: AnyPath
    | SystemPaths
    | Sequence[AnyPath | SystemPaths]
    | Mapping[str, AnyPath | Sequence[AnyPath]]
    | Mapping[str, Any],
    *,
    data: AnyPath | None = None,
    truth: Any = None,
    boxes: Any = None,
    patients: Any = None,
    columns: str | Sequence[str] = (),
    scale: str | Sequence[str] | Mapping[str, float] = (),
    out: AnyPath | None = None,
    target: str | None = None,
    split: str | None = None,
    images: AnyPath | Sequence[AnyPath] = ("all",),
    replicates: int = 2000,
    protocol: AnyPath | None = None,
    margin: float | None = None,
    prevalence: str | None = None,
    unit: Literal["image", "study", "patient"] = "image",
    policy: str | Sequence[str] | None = None,
    metrics: Any | Sequence[Any] = (),
    charts: Any | Sequence[Any] = (),
    exposure: str | Sequence[str] = (),
    mapping: AnyPath | None = None,
    allow_shared_patients: bool = False,
    uncertain: Literal["positive", "negative"] | None = None,
    both: bool = False,
    hide_names: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> Result:
    """Evaluate systems on the same test images, and write the report."""
    ...

def folds(
    reports: AnyPath | Sequence[AnyPath],
    *,
    out: AnyPath,
    progress: bool = False,
) -> Outcome:
    """Average reports over the folds of a cross-validation."""
    ...

def overlay(
    systems: AnyPath
    | SystemPaths
    | Sequence[AnyPath | SystemPaths]
    | Mapping[str, AnyPath | Sequence[AnyPath]],
    *,
    data: AnyPath,
    out: AnyPath,
    target: str | None = None,
    image: str | Sequence[str] | None = None,
    split: str | None = None,
    limit: int = 20,
    policy: str | None = None,
    progress: bool = False,
) -> Outcome:
    """Draw image, truth and each system side by side, one PNG per image."""
    ...

def readers(
    ratings: AnyPath | Sequence[AnyPath],
    *,
    out: AnyPath,
    truth: AnyPath | None = None,
    data: AnyPath | None = None,
    target: str | None = None,
    system: AnyPath
    | SystemPaths
    | Sequence[AnyPath | SystemPaths]
    | Mapping[str, AnyPath | Sequence[AnyPath]] = (),
    readers: Literal["random", "fixed"] = "random",
    progress: bool = False,
) -> Outcome:
    """Analyse a reader study, by modality or against systems."""
    ...

def explain(
    boxes: AnyPath,
    *,
    figure: str | None = None,
    data: AnyPath | None = None,
    truth: AnyPath | None = None,
    split: str = "default",
    progress: bool = False,
) -> Outcome:
    """Compute the average precision of boxes by other programs' rules."""
    ...

def plan(
    *,
    auroc: float | Sequence[float],
    prevalence: float,
    difference: float | None = None,
    half_width: float | None = None,
    power: float = 0.8,
    correlation: float = 0.5,
    images: int = 1,
    within: float = 0.5,
    progress: bool = False,
) -> Outcome:
    """Compute how many test patients a study needs."""
    ...

def show(
    folder: AnyPath | None = None,
    *,
    machine: bool = False,
    card: bool = False,
    report: AnyPath | None = None,
    progress: bool = False,
) -> Outcome:
    """Describe a folder, print its model card, or describe this machine."""
    ...

def export(
    source: AnyPath,
    out: AnyPath | None = None,
    *,
    format: str = "",
    precision: Literal["fp32", "bf16", "int8"] | None = None,
    data: AnyPath | None = None,
    split: str | None = None,
    target: str | None = None,
    reader: str | None = None,
    images: str | None = None,
    progress: bool = False,
) -> Outcome | ExportSummary:
    """Write a run for use without torch, or the labels of a data set."""
    ...

def serve(
    runs: AnyPath | Sequence[AnyPath],
    *,
    port: int = 8000,
    host: str = "127.0.0.1",
    token: AnyPath | None = None,
    report: AnyPath | None = None,
    allowed_host: str | Sequence[str] | None = None,
    strict: bool = False,
    policy: str | None = None,
    backend: Literal["torch", "onnx", "openvino", "auto"] | None = None,
    precision: Literal["fp32", "bf16", "int8"] | None = None,
    device: str = "auto",
    progress: bool = False,
) -> Outcome:
    """Serve a page and an HTTP interface that predict chest X-rays."""
    ...
