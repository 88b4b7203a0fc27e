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
    """Base class of the models that check the JSON files in folders, one model for each file."""

    model_config = ConfigDict(strict=True, defer_build=True, protected_namespaces=())


ABSENT: Any = None
"""The default of a key that may be absent, but not null; nothing reads defaults."""
Pair = Annotated[list[float], Field(min_length=2, max_length=2)]
Edges = Annotated[list[float], Field(min_length=4, max_length=4)]
"""``x1, y1, x2, y2``."""
NumbersByName = dict[str, float | None]


class MadeOn(Record):
    """The data set that a run, predictions or a report were made on.

    Attributes:
        name: Name of the data set.
        content_id: Digest of the ids and pixels of its images.
        split: Name of the split that was used.
    """

    name: str = ABSENT
    content_id: str = ABSENT
    split: str = ABSENT


class Target(Record):
    """The findings that make an image positive, under one name.

    Attributes:
        any_of: Findings; an image is positive if any of them is present.
        display_name: Name for readers.
    """

    any_of: list[str]
    display_name: str = ABSENT


class DataSetIds(Record):
    """Digests of a data set's content, labels and splits.

    Attributes:
        content_id: Digest of the table of images.
        labels_id: Digest of the labels and boxes.
        split_ids: Digest of each split, by its name.
    """

    content_id: str
    labels_id: str
    split_ids: dict[str, str] = ABSENT


class PrepareSettings(Record):
    """Settings with which a data set was prepared.

    Attributes:
        source_id: Digest of the tables that were read from the source.
        window: Name of the DICOM window by which grey values are shown; None takes the first of
            each file.
    """

    source_id: str = ABSENT
    window: str | None = None


class DataSetRecord(Record):
    """``dataset.json``, which marks a data set folder as complete.

    Attributes:
        name: Name of the data set.
        source_root: Folder of the source, to which the paths of the images are relative.
        targets: Targets that can be evaluated, by name.
        ids: Digests by which two data sets are compared.
        settings: Options with which the data set was prepared.
        id_key: Fingerprint of the secret key that hid the ids; absent if ids are kept.
    """

    name: str
    source_root: str
    targets: dict[str, Target]
    ids: DataSetIds
    settings: PrepareSettings = ABSENT
    id_key: str = ABSENT


class SettingsRecord(Record):
    """``settings.json`` of a data set folder that is not complete yet.

    Attributes:
        settings: Options with which the data set is being prepared.
    """

    settings: PrepareSettings


class DrawnBy(Record):
    """Options with which a split was drawn.

    Attributes:
        val: Share of patients for validation, in [0, 1).
        test: Share of patients for test, in [0, 1].
        folds: Number of folds of the train and validation patients.
        seed: Random seed of the draw.
        method: ``balanced`` or ``hash``, as in `data_prep.splits.split.SplitRule`.
    """

    val: float | None = None
    test: float | None = None
    folds: int | None = None
    seed: int | None = None
    method: str | None = None


class SplitOrigin(Record):
    """Method by which the images of a split got their roles.

    Attributes:
        method: Phrase that names the method, such as ``by patient, StratifiedGroupKFold``.
        folds: Phrase on how the folds were made; absent if there are none.
        rule: Options of the draw; absent if the split was not drawn.
        n_images_added: Number of images that were added after the split was made.
    """

    method: str = ABSENT
    folds: str = ABSENT
    rule: DrawnBy = ABSENT
    n_images_added: int = ABSENT


class SplitRecord(Record):
    """``splits/NAME.json``, which says how a split was made.

    Attributes:
        how: Method by which the images got their roles.
    """

    how: SplitOrigin


class AuditProblem(Record):
    """A problem that an audit found, as `data_prep.audit.problem.Problem` explains its fields.

    Attributes:
        check: Short name of the check.
        severity: ``error``, ``warning`` or ``info``.
        message: One sentence for the owner of the data.
        count: Number of concerned units.
        examples: Ids of at most five of them.
        advice: What to do.
        unit: Thing that is counted, such as ``image``.
        images: First cases to look at, as ids or paths.
        pictures: Name of the key `images` in files of earlier versions.
        split: Name of the concerned split; empty for the whole data set.
    """

    check: str
    severity: Literal["error", "warning", "info"]
    message: str
    count: int
    examples: list[str]
    advice: str
    unit: str = ABSENT
    images: list[list[str]] = ABSENT
    pictures: list[list[str]] = ABSENT
    split: str = ABSENT


class AuditFacts(Record):
    """Figures that an audit measured.

    Attributes:
        shortcuts: One entry for each fact about images that predicts a target, with its AUROC.
    """

    shortcuts: list[dict[str, Any]] = ABSENT


class AuditRecord(Record):
    """``audit.json``, which holds the problems that an audit found.

    Attributes:
        problems: Problems that were found.
        checked: Number of checked images, patients, boxes and splits, by name.
        facts: Figures that the audit measured.
    """

    problems: list[AuditProblem]
    checked: dict[str, int]
    facts: AuditFacts = ABSENT


class NearDuplicatesRecord(Record):
    """``near_duplicates.json``, which holds pairs of images that look alike.

    Attributes:
        key: Digest of the images and settings of the search; another key makes the stored pairs
            invalid.
        pixels: Name of the pixel store whose pixels were compared, such as ``letterbox-160``; None
            if only fingerprints were compared.
        candidates: Number of pairs with similar fingerprints.
        undecided: Number of candidates for which the fingerprints do not decide and no pixels were
            compared.
        complete: True if all similar fingerprints were compared.
        pairs: For each pair: both image ids, number of differing bits of the fingerprints, how the
            second image is turned, and correlation of the pixels (None if they were not compared).
    """

    key: str
    pixels: str | None
    candidates: int
    undecided: int
    complete: bool
    pairs: list[Annotated[tuple[str, str, float, str, float | None], Strict(False)]]


class PixelsRecord(Record):
    """``pixels.json``, which marks a pixel store as complete.

    Attributes:
        size: Side of the square images, px.
        n_images: Number of images.
        pixels_id: Digest of the ids of the images and of their positions in the squares.
        sha256: SHA-256 digest of each file of pixels, by file name.
    """

    size: int
    n_images: int
    pixels_id: str
    sha256: dict[str, str] = ABSENT


class EncoderRecord(Record):
    """The network with which another program computed the features of a data set's images.

    Attributes:
        name: Name of the network.
        revision: Revision of its published weights.
        licence: Licence of these weights.
    """

    name: str
    revision: str
    licence: str


class FeaturesRecord(Record):
    """``features.json``, which marks a features folder as complete.

    Attributes:
        encoder: Network that computed the features.
        n_images: Number of images with features.
        channels: Number of features of an image, or of each cell of an image.
        grid: Number of rows and of columns of the cells; 1 and 1 for features of whole images.
        features_id: Digest of the stored features.
        data_set: Data set of the images.
    """

    encoder: EncoderRecord
    n_images: int
    channels: int
    grid: Annotated[list[int], Field(min_length=2, max_length=2)]
    features_id: str
    data_set: MadeOn


class PreprocessRecord(Record):
    """``preprocess.json``, which says how an image becomes the input of a model.

    Attributes:
        size: Side of the square input, px.
        mean: Mean that is subtracted from the pixels, on a scale of 0 to 1.
        std: Standard deviation by which they are divided, on the same scale.
    """

    size: int
    mean: float
    std: float


class RunRecord(Record):
    """``run.json``, which marks a run as complete, and ``started.json`` of a run that has begun.

    Attributes:
        name: Name of the trained system.
        model_kind: Kind of the model.
        target: Name of the target that it learned.
        findings: Findings in the order of its outputs.
        data_set: Data set and split that it was trained on.
        synthetic: True if all training images are synthetic.
    """

    name: str = ABSENT
    model_kind: Literal["detector", "classifier"] = ABSENT
    target: str = ABSENT
    findings: list[str] = ABSENT
    data_set: MadeOn = ABSENT
    synthetic: bool = ABSENT


class Architecture(Record):
    """The network to which the weights of a run belong.

    Attributes:
        name: Name of the network's family, such as ``retinanet`` or ``classifier``.
        arguments: Arguments with which the network is built again, by name.
    """

    name: str = ABSENT
    arguments: dict[str, Any] = ABSENT


class ModelRecord(Record):
    """``model.json``, which says how the network of a run is built.

    Attributes:
        architecture: Name and arguments of the network.
    """

    architecture: Architecture = ABSENT


class PackedArray(Record):
    """A float32 array as text in base64, with its shape.

    Attributes:
        shape: Length of each axis.
        float32: The values as bytes in base64.
    """

    shape: list[int]
    float32: str


class GuardRecord(Record):
    """``guard.json``, which holds the out-of-distribution check of a run.

    Attributes:
        statistics: Version of the image statistics that the check computes.
        size: Side of the square images that the check was learned from, px.
        limit: Guard distance from which an image gets a warning.
        images: Number of training images that the check was learned from.
        false_alarms: Share of these images at or above the limit, each measured by a fit without
            it.
        ages: Number of training images of patients under 2, of 2 to 11, of 12 to 17, and of 18 or
            more years; None if few ages are known.
        arrays: Fitted parameters by name, see `serving.guard.GuardFit`.
    """

    statistics: int
    size: int
    limit: float
    images: int
    false_alarms: float
    ages: Annotated[list[int], Field(min_length=4, max_length=4)] | None
    arrays: dict[str, PackedArray]


class PredictedTarget(Record):
    """The target for which the validation images of a run were predicted.

    Attributes:
        name: Name of the target.
        display_name: Name for readers.
    """

    name: str
    display_name: str


class TrainingSet(Record):
    """A data set that a system was trained on.

    Attributes:
        name: Name of the data set.
        content_id: Digest of its table of images.
    """

    name: str
    content_id: str


class PredictionsRecord(Record):
    """``predictions.json``, which marks a predictions folder as complete.

    Attributes:
        system: Name of the system.
        kind: ``boxes`` of a detector, or ``scores`` of a classifier or reader.
        data_set: Data set and split of the predicted images; None if unknown.
        target: Target that was predicted; None if the predictions belong to no single target.
        cost: Parameters, FLOPs and latency by name; None if unknown.
        trained_on: Data sets of the training, or a text such as ``unknown``.
    """

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
    """``unfinished.json`` of a predictions folder that is not complete yet.

    Attributes:
        identity: Facts that must be unchanged when another call continues the folder, by name.
    """

    identity: dict[str, Any]


class ReductionRecord(Record):
    """Rule that reduces the boxes of an image to its score.

    Attributes:
        rule: Name of the rule, such as ``max`` for the highest box score.
        min_score: Score below which boxes are ignored, in [0, 1].
    """

    rule: str
    min_score: float


class NoCalibration(Record):
    """Calibration that leaves the scores unchanged.

    Attributes:
        method: Always ``none``.
    """

    method: Literal["none"]


class IsotonicCalibration(Record):
    """Isotonic calibration: the probability at some scores, with interpolation between them.

    Attributes:
        method: Always ``isotonic``.
        scores: Scores at which the probability is stored, ascending.
        probabilities: Probability at each of these scores, in [0, 1].
    """

    method: Literal["isotonic"]
    scores: list[float]
    probabilities: list[float]


class LogisticCalibration(Record):
    """Logistic calibration: Platt's method, or a temperature (slope without intercept).

    Attributes:
        method: ``platt`` or ``temperature``.
        slope: Factor of the score's log odds.
        intercept: Constant that is added to them.
        no_box: Probability of a score of 0, which other scores never go below; None if scores of 0
            are not treated separately.
    """

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
    """Options with which ``cxr tune`` chose a decision.

    Attributes:
        calibration: Requested method of calibration; None if the default was taken.
        reductions: Rules for reducing boxes to a score that were tried.
        rule_out: Policy for calling images negative without a reader; None without triage.
        rule_in: Policy for calling images positive without a reader; None without it.
        boxes_by: Requested rule for choosing boxes; None if the default was taken.
    """

    calibration: str | None
    reductions: list[str]
    rule_out: str | None = None
    rule_in: str | None = None
    boxes_by: str | None = None


class TriageRecord(Record):
    """Thresholds of triage: the scores below and above which no reader needs to decide.

    Attributes:
        below: Score below which an image is called negative; None if no image is.
        above: Score from which an image is called positive; None if no image is.
        referred: Share of the validation images that a reader must decide, in [0, 1].
        ci_low: Lower end of the 95 % interval of `referred`.
        ci_high: Upper end of this interval.
        why: Reasons why no image is called negative, called positive or referred to a reader.
    """

    below: float | None
    above: float | None
    referred: float
    ci_low: float
    ci_high: float
    why: list[str]


class PolicyRecord(Record):
    """Threshold of a policy with its figures on validation, or the reason why it has none.

    Attributes:
        threshold: Score from which an image is called positive; None if the policy has no
            threshold.
        reason: Reason why there is none; None if there is a threshold.
        validation: Figures on validation images at this threshold, by metric.
    """

    threshold: float | None
    reason: str | None
    validation: NumbersByName


class MapBoxesRecord(Record):
    """Rule by which maps are cut into boxes.

    Attributes:
        level: Value from which a cell of an activation map belongs to a box.
        relative: True if the level is a share of the range of each single map, from its lowest to
            its highest value.
        most: Largest number of boxes of an image; None sets no limit.
    """

    level: float
    relative: bool
    most: int | None


class DecisionRecord(Record):
    """``decisions/TARGET.json``, which holds the choices that were made on validation images.

    Attributes:
        target: Name of the target.
        chosen_on: Ids and numbers of the validation images, and the id of the system's way of
            predicting.
        choices: Under ``calibration``, the loss of each calibration that was compared; None in
            files of earlier versions.
        box_cut: Score from which a box is called in the RSNA score; None if it was not chosen.
        tried: Settings that were tried, each with its figure on validation images.
        box_rule: Phrase on the rule that decides which boxes stay; None without boxes.
        boxes_tried: Rules for boxes that were tried, each with its figure; None if none were
            compared.
        reduction: Rule that reduces the boxes of an image to its score; None for a classifier.
        calibration: Function that turns a score into a probability; None without calibration.
        options: Options of the call of ``cxr tune``; None for its defaults.
        asked: Former name of the key `options`.
        triage: Scores at which no reader needs to decide; None without triage.
        map_scale: Raw values of activation maps that are drawn as 0 and as 1; None without maps.
        map_boxes: Rule by which maps are cut into boxes; None without maps.
        map_box_level: The level of that rule in files of earlier versions.
        overlap: Largest IoU of two boxes of a detector that both stay; None keeps all boxes.
        policies: Threshold and figures of each policy, by name.
        validation: Figures on validation images that need no threshold, by metric.
    """

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
    asked: TuningRecord | None = None
    triage: TriageRecord | None = None
    map_scale: Pair | None
    map_boxes: MapBoxesRecord | None = None
    map_box_level: float | None = None
    overlap: float | None = None
    policies: dict[str, PolicyRecord]
    validation: NumbersByName


class ResultSummary(Record):
    """Table 1 of a report as texts: a row has its section, its name and a text a column.

    Attributes:
        columns: Headings of the columns.
        rows: For each row: its section, its name, and the text of each column.
    """

    columns: list[str]
    rows: list[list[str]]


class ResultRecord(Record):
    """``result.json``, which holds those parts of a report that are in no table.

    Attributes:
        policy: Policy whose threshold is used for everything that is shown at one threshold.
        policies: Policies by which at least one system has a threshold.
        seed: Random seed of the resampling.
        overlays: File of each overlay image, by image id.
        columns: For each table, the type of each column, by name.
        summary: Table 1 of the report.
        charts: Content of each chart.
    """

    policy: str
    policies: list[str]
    seed: int
    overlays: dict[str, str]
    columns: dict[str, dict[str, str]]
    summary: ResultSummary
    charts: list[dict[str, Any]]


class ExportTarget(PredictedTarget):
    """The target that an export answers for.

    Attributes:
        any_of: Findings; an image is positive if any of them is present.
    """

    any_of: list[str]


class StoredAuroc(Record):
    """AUROC of a run on images that it did not learn from, with its 95 % interval.

    Attributes:
        estimate: AUROC, in [0, 1].
        ci_low: Lower end of the interval; None without an interval.
        ci_high: Upper end of the interval; None without an interval.
        images: Kind of the images: ``test``, or ``validation``.
        n_images: Number of images; None if unknown.
    """

    estimate: float
    ci_low: float | None
    ci_high: float | None
    images: Literal["test", "validation"]
    n_images: int | None


class ExportRecord(Record):
    """``export.json``, which marks an export as complete.

    Attributes:
        format: Format of the network's file.
        precision: Number format of the computation.
        kind: ``boxes`` of a detector, or ``scores`` of a classifier.
        findings: Findings in the order of the outputs.
        size: Side of the square input images, px.
        level_sizes: Number of anchors on each level of a detector; empty for a classifier.
        target: Target that was learned.
        run: Content of ``run.json`` of the run that was exported.
        map_frame: Outer edges of a classifier's activation map, xyxy in px of the input; None for a
            detector.
        map_levels: Probability and raw map value of each contour that overlays draw.
        files: SHA-256 digest of each file of the network, by file name.
        validation_auroc: AUROC of the run on its validation images; absent if it is unknown.
    """

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
    """One difference between the answers of an export and those of its run.

    Attributes:
        case: Phrase on the images that were compared.
        name: Name of the difference.
        value: The difference.
        limit: Largest difference with which the export is kept; None if there is no limit.
        original: Figure of the run if two figures are compared, else None.
        exported: Figure of the export if two figures are compared, else None.
    """

    case: str
    name: str
    value: float
    limit: float | None
    original: float | None
    exported: float | None


class ExportProof(Record):
    """Comparison of an export with its run.

    Attributes:
        verdict: ``kept`` if every difference is within its limit, ``refused`` otherwise.
        images: Phrase on the images that were compared, such as their number.
        measures: Differences that were measured.
    """

    verdict: str
    images: str
    measures: list[ProofMeasure]


class CardRecord(Record):
    """``card.json``, which holds the facts about an export.

    Attributes:
        kind: One sentence that says what the export is; the key in the file is ``is``.
        run: Name of the run that was exported.
        learned_from: Phrase on the images of the training.
        calibrated_on: Phrase on the images of the int8 calibration; None for other precisions.
        proof: Comparison of the export with its run.
    """

    kind: str = Field(alias="is")
    run: str
    learned_from: str
    calibrated_on: str | None
    proof: ExportProof


class PhantomArguments(Record):
    """Arguments with which synthetic images were drawn.

    Attributes:
        seed: Random seed of the images.
    """

    seed: int


class PhantomRecord(Record):
    """``synth.json``, which marks a folder of synthetic images as complete.

    Attributes:
        arguments: Arguments with which the images were drawn.
        counts: Numbers of images, patients, lesions and others, by name.
    """

    arguments: PhantomArguments
    counts: dict[str, int] = ABSENT


class EvaluatedOn(MadeOn):
    """The data set on which a report was made.

    Attributes:
        labels_id: Digest of the labels and boxes.
    """

    labels_id: str = ABSENT


class ReportOrigin(Record):
    """Data set and systems of a report.

    Attributes:
        data_set: Data set and split that were evaluated.
        systems: Facts about each system, by its name.
    """

    data_set: EvaluatedOn
    systems: dict[str, dict[str, Any]] = ABSENT


class MetricsRecord(Record):
    """``metrics.json``, which marks a report as complete.

    Attributes:
        target: Name of the target that was evaluated.
        systems: Names of the systems.
        thresholds: Threshold by policy, for each system by its name; None if a policy has none.
        metrics: One entry for each figure, as docs/metrics.schema.json describes it.
        question: Settings that the comparison was made with; None in files of earlier versions.
        provenance: Data set and systems of the report.
    """

    target: str
    systems: list[str] = ABSENT
    thresholds: dict[str, NumbersByName] = ABSENT
    metrics: list[dict[str, Any]]
    question: dict[str, Any] | None = None
    provenance: ReportOrigin


class BestTrial(Record):
    """The best trial of a sweep.

    Attributes:
        number: Number of the trial, from 0.
        value: Value of the figure by which trials are compared.
        best_epoch: Epoch whose weights were kept, from 1.
        settings: Values that were tried, as texts by key of the configuration.
        folder: Folder with a copy of the trial's run, relative to the sweep.
        run: The trial's own run folder, relative to the sweep.
    """

    number: int
    value: float
    best_epoch: int
    settings: dict[str, str]
    folder: str
    run: str


class TrialSpread(Record):
    """Smallest, median and largest value of the figure by which a sweep compares its trials.

    Attributes:
        n: Number of complete trials.
        low: Smallest value.
        median: Median value.
        high: Largest value.
    """

    n: int
    low: float
    median: float
    high: float


class Trial(Record):
    """A trial of a sweep: one training with its own values of some keys.

    Attributes:
        number: Number of the trial, from 0.
        state: ``complete``, ``failed``, ``pruned`` (stopped early), ``repeated`` (its values were
            tried before) or another state of Optuna.
        value: Value of the figure by which trials are compared; None if the trial is not complete.
        epochs: Number of epochs that were trained; None if unknown.
    """

    number: int
    state: str
    value: float | None
    epochs: int | None


class SweepRecord(Record):
    """``sweep.json``, which marks a sweep as complete.

    Attributes:
        objective: Name of the figure on validation by which trials are compared.
        space: Tried range of each key of the configuration, as text by key.
        as_it_stands: Number of the trial with the unchanged configuration; None if there is no such
            trial.
        data_set: Data set and split of the trainings.
        best: Trial with the best value.
        spread: Distribution of the values of complete trials.
        trials: All trials, in their order.
    """

    objective: str
    space: dict[str, str]
    as_it_stands: int | None
    data_set: MadeOn
    best: BestTrial
    spread: TrialSpread
    trials: list[Trial]


class StartedSweepRecord(Record):
    """``sweep.started.json`` of a sweep that is not complete yet.

    Attributes:
        config: Configuration that the trials share, as text.
        space: Tried range of each key of the configuration, as text by key.
        data_set: Data set and split of the trainings.
        sweep_seed: Random seed of the proposed values.
        pruning: True if trials that fall behind are stopped.
    """

    config: str
    space: dict[str, str]
    data_set: MadeOn
    sweep_seed: int
    pruning: bool


class CurveStatement(Record):
    """A sentence about a learning curve.

    Attributes:
        text: The sentence.
    """

    text: str


class CurveOrigin(Record):
    """Data set of a learning curve.

    Attributes:
        data_set: Data set and split of the trainings.
    """

    data_set: MadeOn


class CurveRecord(Record):
    """``curve.json``, which holds the statements about a learning curve.

    Attributes:
        findings: Sentences on the curve, in lists by subject.
        provenance: Data set of the curve.
    """

    findings: dict[str, list[CurveStatement]]
    provenance: CurveOrigin


class VarianceComponents(Record):
    """Variance of the readers' figures in a reader study, divided by its causes.

    Attributes:
        reader: Variance between readers.
        interaction: Variance between readers in the effect of a system.
        cov1: Covariance over cases of two systems with the same reader.
        cov2: Covariance over cases of two readers with the same system.
        cov3: Covariance over cases of two readers with different systems.
        error: Variance over cases of one reader's figure with one system.
    """

    reader: float
    interaction: float
    cov1: float
    cov2: float
    cov3: float
    error: float


class CrossedAnalysis(Record):
    """Analysis of a reader study in which every reader read every case.

    Attributes:
        components: Variance by its causes; None if it was not estimated.
    """

    components: VarianceComponents | None = None


class ReadersRecord(Record):
    """``readers.json``, which marks the analysis of a reader study as complete.

    Attributes:
        primary: Name of the figure that answers the question of the study.
        n_positive: Number of positive cases.
        n_cases: Number of cases.
        crossed: Analysis of each figure, by its name; None if not every reader read every case.
    """

    primary: str
    n_positive: int
    n_cases: int
    crossed: dict[str, CrossedAnalysis | None]


RECORDS: dict[str, type[Record]] = {
    "dataset": DataSetRecord,
    "settings": SettingsRecord,
    "split": SplitRecord,
    "features": FeaturesRecord,
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
