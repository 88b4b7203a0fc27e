"""The JSON files in folders: one pydantic model for each kind of file.

`data_prep.contracts.json_files.read_json` checks a file with `record_error`. A model names the keys
that programs rely on; a file may contain more. A key with a default may be missing, as it is in
files of older versions. A key of a type ``X | None`` may be null. Types are strict: a whole number
counts as a number, but a text or a truth value does not.

A model is built when the first file of its kind is read. Commands that read no file do not import
this module, because importing pydantic takes time.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Strict, Tag, ValidationError


class Record(BaseModel):
    """Base class of the models of JSON objects in folders."""

    model_config = ConfigDict(strict=True, defer_build=True, protected_namespaces=())


ABSENT: Any = None
"""The default of a key that may be absent, but not null; nothing reads defaults."""
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Edges = Annotated[list[float], Field(min_length=4, max_length=4)]
"""``x1, y1, x2, y2``."""
NumbersByName = dict[str, float | None]


class MadeOn(Record):
    """The data set that a run, predictions or a report were made on."""

    name: str = ABSENT
    content_id: str = ABSENT
    split: str = ABSENT


class Target(Record):
    """The findings that make an image positive, under one name."""

    any_of: list[str]
    display_name: str = ABSENT


class DataSetIds(Record):
    """Digests of a data set's content, labels and splits."""

    content_id: str
    labels_id: str
    split_ids: dict[str, str] = ABSENT


class PrepareSettings(Record):
    """Settings with which a data set was prepared."""

    source_id: str = ABSENT
    window: str | None = None


class DataSetRecord(Record):
    """``dataset.json``, which marks a data set folder as complete."""

    name: str
    source_root: str
    targets: dict[str, Target]
    ids: DataSetIds
    settings: PrepareSettings = ABSENT
    id_key: str = ABSENT


class SettingsRecord(Record):
    """``settings.json`` of a data set folder that is not complete yet."""

    settings: PrepareSettings


class DrawnBy(Record):
    """Options with which a split was drawn."""

    val: float | None = None
    test: float | None = None
    folds: int | None = None
    seed: int | None = None
    method: str | None = None


class SplitOrigin(Record):
    """Method by which the images of a split got their roles."""

    method: str = ABSENT
    folds: str = ABSENT
    rule: DrawnBy = ABSENT
    n_images_added: int = ABSENT


class SplitRecord(Record):
    """``splits/NAME.json``, which says how a split was made."""

    how: SplitOrigin


class AuditProblem(Record):
    """A problem that an audit found."""

    check: str
    severity: Literal["error", "warning", "info"]
    message: str
    count: int
    examples: list[str]
    advice: str
    unit: str = ABSENT
    images: list[list[str]] = ABSENT
    pictures: list[list[str]] = ABSENT  # key of `images` in earlier versions
    split: str = ABSENT


class AuditFacts(Record):
    """Figures that an audit measured."""

    shortcuts: list[dict[str, Any]] = ABSENT


class AuditRecord(Record):
    """``audit.json``, which holds the problems that an audit found."""

    problems: list[AuditProblem]
    checked: dict[str, int]
    facts: AuditFacts = ABSENT


class NearDuplicatesRecord(Record):
    """``near_duplicates.json``, which holds pairs of images that look alike."""

    key: str
    pixels: str | None
    candidates: int
    undecided: int
    complete: bool
    # both ids, distance, how the second is turned, correlation
    pairs: list[Annotated[tuple[str, str, float, str, float | None], Strict(False)]]


class PixelsRecord(Record):
    """``pixels.json``, which marks a pixel store as complete."""

    size: int
    n_images: int
    pixels_id: str
    sha256: dict[str, str] = ABSENT


class PreprocessRecord(Record):
    """``preprocess.json``, which says how an image becomes the input of a model."""

    size: int
    mean: float
    std: float


class RunRecord(Record):
    """``run.json``, which marks a run as complete, and ``started.json`` of a run that has begun."""

    name: str = ABSENT
    model_kind: Literal["detector", "classifier"] = ABSENT
    target: str = ABSENT
    findings: list[str] = ABSENT
    data_set: MadeOn = ABSENT
    synthetic: bool = ABSENT


class Architecture(Record):
    """The network to which the weights of a run belong."""

    name: str = ABSENT
    arguments: dict[str, Any] = ABSENT


class ModelRecord(Record):
    """``model.json``, which says how the network of a run is built."""

    architecture: Architecture = ABSENT


class PackedArray(Record):
    """A float32 array as text in base64, with its shape."""

    shape: list[int]
    float32: str


class GuardRecord(Record):
    """``guard.json``, which holds the out-of-distribution check of a run."""

    statistics: int
    size: int
    limit: float
    images: int
    false_alarms: float
    ages: Annotated[list[int], Field(min_length=4, max_length=4)] | None
    arrays: dict[str, PackedArray]


class PredictedTarget(Record):
    """The target for which the validation images of a run were predicted."""

    name: str
    display_name: str


class TrainingSet(Record):
    """A data set that a system was trained on."""

    name: str
    content_id: str


class PredictionsRecord(Record):
    """``predictions.json``, which marks a predictions folder as complete."""

    system: str = ABSENT
    kind: Literal["boxes", "scores"] = ABSENT
    data_set: MadeOn | None = None
    target: PredictedTarget | None = None
    cost: dict[str, Any] | None = None
    trained_on: (
        Annotated[
            Annotated[str, Tag("as text")] | Annotated[list[TrainingSet], Tag("as list")],
            Discriminator(lambda value: "as text" if isinstance(value, str) else "as list"),
        ]
        | None
    ) = None


class UnfinishedPredictionsRecord(Record):
    """``unfinished.json`` of a predictions folder that is not complete yet."""

    identity: dict[str, Any]


class ReductionRecord(Record):
    """Rule that reduces the boxes of an image to its score."""

    rule: str
    min_score: float


class NoCalibration(Record):
    """Calibration that leaves the scores unchanged."""

    method: Literal["none"]


class IsotonicCalibration(Record):
    """Isotonic calibration: the probability at some scores, with interpolation between them."""

    method: Literal["isotonic"]
    scores: list[float]
    probabilities: list[float]


class LogisticCalibration(Record):
    """Logistic calibration: Platt's method, or a temperature (slope without intercept)."""

    method: str
    slope: float
    intercept: float
    no_box: float | None = None


def _calibration_tag(value: Any) -> str:
    method = value.get("method") if isinstance(value, dict) else None
    return f"method {method}" if method in ("none", "isotonic") else "method of two numbers"


AnyCalibration = Annotated[
    Annotated[NoCalibration, Tag("method none")]
    | Annotated[IsotonicCalibration, Tag("method isotonic")]
    | Annotated[LogisticCalibration, Tag("method of two numbers")],
    Discriminator(_calibration_tag),
]


class TuningRecord(Record):
    """Options with which ``cxr tune`` chose a decision."""

    calibration: str | None
    reductions: list[str]
    rule_out: str | None = None
    rule_in: str | None = None
    boxes_by: str | None = None


class TriageRecord(Record):
    """Scores below and above which triage decides without a reader."""

    below: float | None
    above: float | None
    referred: float
    ci_low: float
    ci_high: float
    why: list[str]


class PolicyRecord(Record):
    """Threshold of a policy with its figures on validation, or the reason why it has none."""

    threshold: float | None
    reason: str | None
    validation: NumbersByName


class MapBoxesRecord(Record):
    """Rule by which maps are cut into boxes."""

    level: float
    relative: bool
    most: int | None


class DecisionRecord(Record):
    """``decisions/TARGET.json``, which holds the choices that were made on validation images."""

    target: str
    chosen_on: dict[str, Any]
    choices: dict[str, Any] | None = None
    box_cut: float | None = None
    tried: list[dict[str, Any]]
    box_rule: str | None = None
    boxes_tried: list[dict[str, Any]] | None = None
    reduction: ReductionRecord | None
    calibration: AnyCalibration | None
    options: TuningRecord | None = None
    asked: TuningRecord | None = None  # former name of `options`
    triage: TriageRecord | None = None
    map_scale: Pair | None
    map_boxes: MapBoxesRecord | None = None
    map_box_level: float | None = None  # of earlier versions, in the place of `map_boxes`
    overlap: float | None = None
    policies: dict[str, PolicyRecord]
    validation: NumbersByName


class ResultSummary(Record):
    """Table 1 of a report as texts: a row has its section, its name and a text a column."""

    columns: list[str]
    rows: list[list[str]]


class ResultRecord(Record):
    """``result.json``, which holds those parts of a report that are in no table."""

    policy: str
    policies: list[str]
    seed: int
    overlays: dict[str, str]
    columns: dict[str, dict[str, str]]
    summary: ResultSummary
    charts: list[dict[str, Any]]


class ExportTarget(PredictedTarget):
    """The target that an export answers for."""

    any_of: list[str]


class StoredAuroc(Record):
    """AUROC of a run on images that it did not learn from, with its 95 % interval."""

    estimate: float
    ci_low: float | None
    ci_high: float | None
    images: Literal["test", "validation"]
    n_images: int | None


class ExportRecord(Record):
    """``export.json``, which marks an export as complete."""

    format: Literal["onnx", "openvino"]
    precision: Literal["fp32", "bf16", "int8"]
    kind: Literal["boxes", "scores"]
    findings: list[str]
    size: int
    level_sizes: list[int]
    target: ExportTarget
    run: RunRecord
    map_frame: Edges | None
    map_levels: list[Pair]
    files: dict[str, str] = ABSENT
    validation_auroc: StoredAuroc = ABSENT


class ProofMeasure(Record):
    """One difference between the answers of an export and those of its run."""

    case: str
    name: str
    value: float
    limit: float | None
    original: float | None
    exported: float | None


class ExportProof(Record):
    """Comparison of an export with its run."""

    verdict: str
    images: str
    measures: list[ProofMeasure]


class CardRecord(Record):
    """``card.json``, which holds the facts about an export."""

    kind: str = Field(alias="is")
    run: str
    learned_from: str
    calibrated_on: str | None
    proof: ExportProof


class PhantomArguments(Record):
    """Arguments with which synthetic images were drawn."""

    seed: int


class PhantomRecord(Record):
    """``synth.json``, which marks a folder of synthetic images as complete."""

    arguments: PhantomArguments
    counts: dict[str, int] = ABSENT


class EvaluatedOn(MadeOn):
    """The data set on which a report was made."""

    labels_id: str = ABSENT


class ReportOrigin(Record):
    """Data set and systems of a report."""

    data_set: EvaluatedOn
    systems: dict[str, dict[str, Any]] = ABSENT


class MetricsRecord(Record):
    """``metrics.json``, which marks a report as complete."""

    target: str
    systems: list[str] = ABSENT
    thresholds: dict[str, NumbersByName] = ABSENT
    metrics: list[dict[str, Any]]
    question: dict[str, Any] | None = None
    provenance: ReportOrigin


class BestTrial(Record):
    """The best trial of a sweep."""

    number: int
    value: float
    best_epoch: int
    settings: dict[str, str]
    folder: str
    run: str


class TrialSpread(Record):
    """Smallest, median and largest value of the trials of a sweep."""

    n: int
    low: float
    median: float
    high: float


class Trial(Record):
    """A trial of a sweep."""

    number: int
    state: str
    value: float | None
    epochs: int | None


class SweepRecord(Record):
    """``sweep.json``, which marks a sweep as complete."""

    objective: str
    space: dict[str, str]
    as_it_stands: int | None
    data_set: MadeOn
    best: BestTrial
    spread: TrialSpread
    trials: list[Trial]


class StartedSweepRecord(Record):
    """``sweep.started.json`` of a sweep that is not complete yet."""

    config: str
    space: dict[str, str]
    data_set: MadeOn
    sweep_seed: int
    pruning: bool


class CurveStatement(Record):
    """A sentence about a learning curve."""

    text: str


class CurveOrigin(Record):
    """Data set of a learning curve."""

    data_set: MadeOn


class CurveRecord(Record):
    """``curve.json``, which holds the statements about a learning curve."""

    findings: dict[str, list[CurveStatement]]
    provenance: CurveOrigin


class VarianceComponents(Record):
    """Variance of the readers' figures in a reader study, divided by its causes."""

    reader: float
    interaction: float
    cov1: float
    cov2: float
    cov3: float
    error: float


class CrossedAnalysis(Record):
    """Analysis of a reader study in which every reader read every case."""

    components: VarianceComponents | None = None


class ReadersRecord(Record):
    """``readers.json``, which marks the analysis of a reader study as complete."""

    primary: str
    n_positive: int
    n_cases: int
    crossed: dict[str, CrossedAnalysis | None]


RECORDS: dict[str, type[Record]] = {
    "dataset": DataSetRecord,
    "settings": SettingsRecord,
    "split": SplitRecord,
    "audit": AuditRecord,
    "near_duplicates": NearDuplicatesRecord,
    "pixels": PixelsRecord,
    "preprocess": PreprocessRecord,
    "run": RunRecord,
    "started_run": RunRecord,
    "model": ModelRecord,
    "guard": GuardRecord,
    "predictions": PredictionsRecord,
    "unfinished_predictions": UnfinishedPredictionsRecord,
    "decision": DecisionRecord,
    "result": ResultRecord,
    "export": ExportRecord,
    "card": CardRecord,
    "synth": PhantomRecord,
    "metrics": MetricsRecord,
    "sweep": SweepRecord,
    "sweep_started": StartedSweepRecord,
    "curve": CurveRecord,
    "readers": ReadersRecord,
}
"""The model of each kind of JSON file that programs read again."""


def record_error(kind: str, content: Any) -> str | None:
    """Return the first problem of a JSON file, as key, rule and value.

    Args:
        kind: Kind of the file. A kind without a model may have any keys.
        content: Content of the file, as `json.loads` returns it.

    Returns:
        The problem in one line; None if the content matches its model.

    Example:
        >>> record_error("preprocess", {"size": 512, "mean": "dark", "std": 0.2})
        "mean must be a number, got 'dark'"
    """
    problem = _impossible_value(content)
    if problem is not None:
        return problem
    model = RECORDS.get(kind)
    if model is None:
        return None
    try:
        model.model_validate(content)
    except ValidationError as error:
        return _error_line(error.errors(include_url=False)[0], content)
    return None


_RULES = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


def _error_line(error: Any, content: Any) -> str:
    """Convert an error of pydantic to a message of ours."""
    position = ""
    value = content
    for part in error["loc"]:
        # pydantic also names which member of a union it tried, which is no key of the file.
        if isinstance(value, dict) and part in value:
            position = f"{position}.{part}".lstrip(".")
            value = value[part]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            position = f"{position}[{part}]"
            value = value[part]
    kind = error["type"]
    context = error.get("ctx", {})
    if kind == "missing" and isinstance(value, dict):
        return f"{position or 'it'} lacks '{error['loc'][-1]}'"
    if kind in ("missing", "too_short", "too_long"):
        return f"{position} must hold another number of values, got {len(value)}"
    if kind == "literal_error":
        rule = f"must be {context['expected'].replace(chr(39), '')}"
    else:
        rule = _RULES.get(kind) or error["msg"]
    return f"{position or 'it'} {rule}, got {str(value)[:40]!r}"


_MAX_DEPTH = 40
_MAX_NUMBER = 2**63


def _impossible_value(value: Any, depth: int = 0) -> str | None:
    """Return a problem that no JSON file of ours has: huge numbers, broken texts, deep nesting."""
    if isinstance(value, dict | list):
        if depth > _MAX_DEPTH:
            return f"is nested more than {_MAX_DEPTH} deep"
        inner = [*value, *value.values()] if isinstance(value, dict) else value
        return next(filter(None, (_impossible_value(item, depth + 1) for item in inner)), None)
    if isinstance(value, str) and ("\0" in value or any("\ud800" <= c <= "\udfff" for c in value)):
        return f"holds a text with a character that no text has: {value[:40]!r}"
    if isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:
        return "holds a number that is none, or too large"
    return None
