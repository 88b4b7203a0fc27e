"""The JSON files in folders: one pydantic model for each kind of file.

`data_prep.contracts.json_files.read_json` checks a file with `record_error`. A model names the keys
that programs rely on; a file may contain more. A key with a default may be missing. A key of a type
``X | None`` may be null. Types are strict: a whole number counts as a number, but a text or a truth
value does not.

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
    """The data set from which a run, predictions or a report were made.

    Attributes:
        name: Name of the data set.
        content_id: Digest (hexadecimal) of the ids, patients, files and sizes of its images;
            another data set has another digest.
        split: Name of its assignment of images to train, validation and test, such as ``default``.
    """

    name: str = ABSENT
    content_id: str = ABSENT
    split: str = ABSENT


class Target(Record):
    """One or several findings (diseases) that a model is to detect, under one name.

    Attributes:
        any_of: Names of findings. An image is positive if any of them is present.
        display_name: Name of the target on pages and in sentences, such as "Lung opacity".
    """

    any_of: list[str]
    display_name: str = ABSENT


class DataSetIds(Record):
    """Digests by which a program recognises that two data sets have the same images or labels.

    Attributes:
        content_id: Digest of the table of images.
        labels_id: Digest of the labels and boxes.
        split_ids: By name of a split (assignment of images to train, validation and test), its
            digest.
    """

    content_id: str
    labels_id: str
    split_ids: dict[str, str] = ABSENT


class PrepareSettings(Record):
    """Settings with which ``cxr prepare`` made a data set.

    Attributes:
        source_id: Digest of the tables that were read from the source, that is, the user's files.
    """

    source_id: str = ABSENT


class DataSetRecord(Record):
    """Content of ``dataset.json``, which marks a data set folder as complete.

    Attributes:
        name: Name of the data set.
        source_root: Folder of the user's image files, to which the paths of the images are
            relative.
        targets: By name: findings (diseases) that together make an image positive, and that can be
            evaluated under this name.
        ids: Digests by which two data sets are compared.
        settings: Options of ``cxr prepare`` with which the data set was made.
        id_key: Keyed hash by which the secret key is recognised that replaced ids by hashes; absent
            if the original ids are kept.
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
    """Options with which patients were drawn at random for training, validation and test.

    Attributes:
        val: Share of all patients that are drawn for validation, in [0, 1).
        test: Share of all patients that are drawn for test, in [0, 1].
        folds: Number of cross-validation folds into which the patients of train and validation are
            divided; None without folds.
        seed: Random seed of the draw.
    """

    val: float | None = None
    test: float | None = None
    folds: int | None = None
    seed: int | None = None


class SplitOrigin(Record):
    """Method by which each image of a split was assigned to train, validation or test.

    Attributes:
        method: Phrase that names the method, such as ``by patient, balanced``.
        folds: Phrase on how the folds were made; absent if there are none.
        rule: Options of the random draw; absent if the assignment was read from the user's files.
        n_images_added: Number of images that were added after the split was made.
    """

    method: str = ABSENT
    folds: str = ABSENT
    rule: DrawnBy = ABSENT
    n_images_added: int = ABSENT


class SplitRecord(Record):
    """``splits/NAME.json``, which says how images were assigned to train, validation and test.

    Attributes:
        how: Method of the assignment, and its options.
    """

    how: SplitOrigin


class AuditProblem(Record):
    """A problem that ``cxr check`` found in a data set.

    `data_prep.audit.problem.Problem` explains the fields in detail.

    Attributes:
        check: Short name of the check that found the problem, such as ``burned_in_text``.
        severity: ``error`` (results would be wrong), ``warning`` or ``info``.
        message: One sentence about the problem for the owner of the data.
        count: Number of units (see `unit`) that have the problem.
        examples: Ids of at most five of these units.
        advice: What the owner of the data should do, in one phrase.
        unit: Kind of thing that `count` counts, such as ``image`` or ``patient``.
        images: First cases to look at, one list each: the ids or paths of the images of the case.
        split: Name of the split (assignment of images to train, validation and test) with the
            problem; empty if it concerns the whole data set.
    """

    check: str
    severity: Literal["error", "warning", "info"]
    message: str
    count: int
    examples: list[str]
    advice: str
    unit: str = ABSENT
    images: list[list[str]] = ABSENT
    split: str = ABSENT


class AuditFacts(Record):
    """Figures that ``cxr check`` measured on a data set.

    Attributes:
        shortcuts: One entry for each target and each property of images other than the lungs, such
            as the outer border or the view: how well the property predicts the label, as an AUROC.
    """

    shortcuts: list[dict[str, Any]] = ABSENT


class AuditRecord(Record):
    """``audit.json``, which holds the problems that ``cxr check`` found in a data set.

    Attributes:
        problems: Problems that were found.
        checked: Number of things that were checked, by ``images``, ``patients``, ``boxes``,
            ``splits`` and others.
        facts: Figures that were measured.
    """

    problems: list[AuditProblem]
    checked: dict[str, int]
    facts: AuditFacts = ABSENT


class NearDuplicatesRecord(Record):
    """``near_duplicates.json``, which holds pairs of images of a data set that look alike.

    Attributes:
        key: Digest of the images and settings of the search; another key makes the stored pairs
            invalid.
        pixels: Size of the resized images whose pixels were compared, such as ``160 px``, or
            ``files``; None if only fingerprints (256-bit perceptual hashes) were compared.
        candidates: Number of pairs with similar fingerprints.
        undecided: Number of candidate pairs for which the fingerprints are not enough to decide,
            and whose pixels were not compared.
        complete: True if all pairs of similar fingerprints were compared; False if the search was
            cut short.
        pairs: For each pair: both image ids, number of differing bits of the fingerprints, how the
            second image is turned, and correlation of the pixels (None if they were not compared).
    """

    key: str
    pixels: str | None
    candidates: int
    undecided: int
    complete: bool
    pairs: list[Annotated[tuple[str, str, float, str, float | None], Strict(False)]]


class PreprocessRecord(Record):
    """``preprocess.json``, which says how an image becomes the input of a model.

    Attributes:
        size: Side of the square input image, px.
        mean: Mean that is subtracted from the pixels, which are scaled to 0 to 1.
        std: Standard deviation by which the pixels are then divided, on the same scale.
    """

    size: int
    mean: float
    std: float


class RunRecord(Record):
    """``run.json``, which marks a training run as complete, or ``started.json`` of one in progress.

    Attributes:
        name: Name of the trained model, such as ``RetinaNet``.
        model_kind: ``detector`` (predicts boxes) or ``classifier`` (predicts a score for each
            image).
        target: Name of the target that the model learned: the findings that make an image positive.
        findings: Names of the findings (diseases) in the order of the network's outputs.
        data_set: Data set and its split into train, validation and test.
        synthetic: True if the program drew all training images itself.
    """

    name: str = ABSENT
    model_kind: Literal["detector", "classifier"] = ABSENT
    target: str = ABSENT
    findings: list[str] = ABSENT
    data_set: MadeOn = ABSENT
    synthetic: bool = ABSENT


class Architecture(Record):
    """The network of a training run, to which the stored weights belong.

    Attributes:
        name: Name of the network's family, such as ``retinanet`` or ``classifier``.
        arguments: Keyword arguments with which the network is built again, by name.
    """

    name: str = ABSENT
    arguments: dict[str, Any] = ABSENT


class ModelRecord(Record):
    """``model.json``, which says how the network of a training run is built.

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
    """``guard.json``: parameters of the check whether an image looks like a frontal chest X-ray.

    A training run fits the check on its training images.

    Attributes:
        statistics: Version number of the image statistics that the check computes.
        size: Side of the square images from which the check was learned, px.
        limit: Log odds that an image is no frontal chest X-ray, from which it gets a warning.
        images: Number of training images from which the check was learned.
        false_alarms: Share of these images at or above the limit, in [0, 1]; the log odds of each
            image come from a fit without its patient.
        ages: Number of training images of patients under 2, of 2 to 11, of 12 to 17, and of 18 or
            more years; None if too few ages are known.
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
    """The target (findings that make an image positive) that a trained model predicts.

    Attributes:
        name: Name of the target in options and tables, such as ``opacity``.
        display_name: Name of the target on pages, such as "Lung opacity".
    """

    name: str
    display_name: str


class TrainingSet(Record):
    """A data set on which a model was trained.

    Attributes:
        name: Name of the data set.
        content_id: Digest of its table of images.
    """

    name: str
    content_id: str


class PredictionsRecord(Record):
    """Content of ``predictions.json``, which marks a folder with predictions of one system.

    A system is a trained model or a human reader. The file is written last, so its folder is
    complete.

    Attributes:
        system: Name of the system, such as ``RetinaNet``.
        kind: ``boxes`` of a detector, ``scores`` of a classifier or a human reader, or ``both``
            of a joint system.
        data_set: Data set of the predicted images, and its split into train, validation and test;
            None if unknown.
        target: Findings that the system predicted, as one target; None if the predictions belong to
            no single target.
        cost: Number of parameters, FLOPs, latency in ms and others, by name; None if unknown.
        trained_on: Data sets on which the system was trained, or a text such as ``unknown``.
    """

    system: str = ABSENT
    kind: Literal["boxes", "scores", "both"] = ABSENT
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
        identity: Facts by name (kind of model, digest of model and settings, data set). A later
            call continues the folder only if its own facts are equal to these.
    """

    identity: dict[str, Any]


class ReductionRecord(Record):
    """Rule by which the scores of a detector's boxes on an image become one score of the image.

    Attributes:
        rule: Name of the rule, such as ``max`` for the highest box score.
        min_score: Score in [0, 1]; boxes with a lower score are ignored.
    """

    rule: str
    min_score: float


class NoCalibration(Record):
    """Calibration that takes the scores unchanged as probabilities.

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
    """Logistic calibration: Platt's method, or a temperature (a slope without intercept).

    The probability is ``sigmoid(slope * logit(score) + intercept)``.

    Attributes:
        method: ``platt`` or ``temperature``.
        slope: Factor of the score's log odds.
        intercept: Constant that is added to the scaled log odds.
        no_box: Probability of an image with a score of 0 (without a box); images with other scores
            get at least this probability. None if scores of 0 are not treated separately.
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
    """Options with which ``cxr tune`` chose thresholds and calibration on validation images.

    Attributes:
        calibration: Requested method of calibration, such as ``platt``; None if the user requested
            no particular method.
        reductions: Rules that were tried for turning the box scores of an image into one score,
            such as ``max``.
        boxes_by: Requested metric, such as ``ap50_decided``, by which the settings of a detector's
            boxes are chosen; None if the user requested no particular metric.
    """

    calibration: str | None
    reductions: list[str]
    boxes_by: str | None = None


class PolicyRecord(Record):
    """Score threshold of one operating point, with its figures on validation images.

    An operating point is a rule that chooses the threshold on validation images, such as
    ``max_f1`` (the highest F1 score).

    Attributes:
        threshold: Image score from which an image is called positive; None if no threshold fulfils
            the operating point.
        reason: Reason why there is no threshold; None if there is a threshold.
        validation: Figures on validation images at this threshold, by metric, such as ``recall``.
    """

    threshold: float | None
    reason: str | None
    validation: NumbersByName


class DeclaredRecord(Record):
    """Threshold that somebody declared for a system, with its name and source.

    Attributes:
        name: Short name of the aim.
        threshold: Image score from which an image is called positive.
        source: Sentence part that says on what grounds the threshold was declared.
        validation: Figures on validation images at this threshold, by metric, such as ``recall``;
            None if they were not computed.
    """

    name: str
    threshold: float
    source: str
    validation: NumbersByName | None = None


class MapBoxesRecord(Record):
    """Rule by which a classifier's activation maps are cut into boxes.

    Attributes:
        level: Value from which a cell of an activation map belongs to a box; its unit depends on
            `relative`.
        relative: True if `level` is a share, in [0, 1], of the range of each single map from its
            lowest to its highest value; False if it is a raw value of the map.
        most: Largest number of boxes of an image; None sets no limit.
    """

    level: float
    relative: bool
    most: int | None


class DecisionRecord(Record):
    """``decisions/TARGET.json``: thresholds, calibration and box rules chosen on validation images.

    ``cxr tune`` writes it for one system (a trained model or a human reader) and one target.

    Attributes:
        target: Name of the target: the findings that make an image positive.
        chosen_on: Digests and numbers of the validation images, and ``inference_id``, the digest of
            the model and its prediction settings.
        choices: Under ``calibration``, the loss of each calibration that was compared.
        box_cut: Box score from which a predicted box counts in the competition metric of RSNA 2018;
            None if no such score was chosen.
        tried: Rules that were tried for turning box scores into an image score, each with its
            figure on validation images, such as the AUROC.
        box_rule: Sentence part on the rule that decides which boxes of a detector are kept; None
            without boxes.
        boxes_tried: Settings of that rule that were tried, each with its figure on validation
            images; None if no settings were compared.
        reduction: Rule by which box scores become the score of an image; None for a classifier.
        calibration: Function that turns a score into a probability; None without calibration.
        options: Options of the call of ``cxr tune``; None if all were left at their defaults.
        map_scale: Raw values of activation maps that are drawn as 0 and as 1; None without maps.
        map_boxes: Rule by which activation maps are cut into boxes; None without maps.
        overlap: Largest IoU that two kept boxes of a detector may have; of boxes that overlap more,
            only the one with the highest score is kept. None keeps all boxes.
        policies: Threshold and figures of each operating point, by its name, such as ``max_f1``.
        declared: Threshold that was declared for the system; None if none was.
        validation: Figures on validation images that need no threshold, such as AUROC, by metric.
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
    map_scale: Pair | None
    map_boxes: MapBoxesRecord | None = None
    overlap: float | None = None
    policies: dict[str, PolicyRecord]
    declared: DeclaredRecord | None = None
    validation: NumbersByName


class ExportTarget(PredictedTarget):
    """The target (one or several findings) that an exported model predicts.

    Attributes:
        any_of: Names of findings. An image is positive if any of them is present.
    """

    any_of: list[str]


class StoredAuroc(Record):
    """AUROC of a training run on images that it was not trained on, with a 95 % interval.

    Attributes:
        estimate: AUROC, in [0, 1].
        ci_low: Lower end of the interval; None without an interval.
        ci_high: Upper end of the interval; None without an interval.
        images: Images of the AUROC: ``test`` or ``validation``.
        n_images: Number of images; None if unknown.
    """

    estimate: float
    ci_low: float | None
    ci_high: float | None
    images: Literal["test", "validation"]
    n_images: int | None


class ExportRecord(Record):
    """``export.json``, which marks the folder of an exported model as complete.

    Attributes:
        format: File format of the network.
        precision: Number format in which the network computes.
        kind: ``boxes`` for a detector, or ``scores`` for a classifier.
        findings: Names of the findings (diseases) in the order of the network's outputs.
        size: Side of the square input images, px.
        level_sizes: Number of anchors on each level of a detector's feature pyramid; empty for a
            classifier.
        target: Findings that the model predicts, as one target.
        run: Content of ``run.json`` of the training run that was exported.
        map_frame: Outer edges of a classifier's activation map, xyxy in px of the input image; None
            for a detector.
        map_levels: For each contour that is drawn over an image: a probability, and the raw value
            of the activation map that corresponds to it.
        files: SHA-256 digest of each file of the network, by file name.
        validation_auroc: AUROC of the training run on its validation images; absent if it is
            unknown.
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
    """One measured difference between the outputs of an exported model and its training run.

    Attributes:
        case: Phrase that names the images on which the outputs were compared.
        name: Name of the difference, such as the largest difference of scores.
        value: The measured difference.
        limit: Largest difference with which the exported model is accepted; None if there is no
            limit.
        original: If two figures such as AUROCs are compared, the figure of the training run; else
            None.
        exported: If two figures are compared, the figure of the exported model; else None.
    """

    case: str
    name: str
    value: float
    limit: float | None
    original: float | None
    exported: float | None


class ExportProof(Record):
    """Comparison of the outputs of an exported model with those of its training run.

    Attributes:
        verdict: ``kept`` if every difference is within its limit; ``refused`` otherwise.
        images: Phrase on the images that were compared, such as their number.
        measures: Differences that were measured.
    """

    verdict: str
    images: str
    measures: list[ProofMeasure]


class CardRecord(Record):
    """``card.json``, which holds the facts about an exported model for its users.

    Attributes:
        kind: One sentence that says what the exported model is; the key in the file is ``is``.
        run: Name of the training run that was exported.
        learned_from: Phrase on the images of the training.
        calibrated_on: Phrase on the images from which int8 value ranges were estimated; None for
            other precisions.
        proof: Comparison of the outputs of the exported model with those of the training run.
    """

    kind: str = Field(alias="is")
    run: str
    learned_from: str
    calibrated_on: str | None
    proof: ExportProof


class PhantomArguments(Record):
    """Arguments with which ``cxr synth`` drew synthetic images.

    Attributes:
        seed: Random seed of the images.
    """

    seed: int


class PhantomRecord(Record):
    """``synth.json``, which marks a folder of synthetic images as complete.

    Attributes:
        arguments: Arguments of ``cxr synth`` with which the images were drawn.
        counts: Numbers of images, patients, lesions and others, by name.
    """

    arguments: PhantomArguments
    counts: dict[str, int] = ABSENT


class EvaluatedOn(MadeOn):
    """The data set on which a comparison report was made.

    Attributes:
        labels_id: Digest of the labels and boxes.
    """

    labels_id: str = ABSENT


class ReportOrigin(Record):
    """Data set and systems (models or human readers) from which a comparison report was made.

    Attributes:
        data_set: Data set that was evaluated, and its split into train, validation and test.
        systems: For each system by its name, facts such as its kind and the data on which it was
            trained.
    """

    data_set: EvaluatedOn
    systems: dict[str, dict[str, Any]] = ABSENT


class AnswerTable(Record):
    """The main table of a report as texts.

    Attributes:
        index: Heading of the section and name of each row.
        columns: Headings of the columns.
        data: Text of each column, row by row.
    """

    index: list[list[str]]
    columns: list[str]
    data: list[list[str]]


class AnswerRecord(Record):
    """``answer.json``, which holds the answer of a comparison and marks its report as complete.

    Attributes:
        headline: The answer in one sentence.
        cautions: Reasons why it may be wrong.
        reading: Sentences on how the truth and the systems were read.
        names_images: True if such a sentence, or a caution on reading, names an image.
        findings: Sentences on further comparisons.
        claims: Differences in the primary figure between two systems, which the headline states.
        target: Name of the target (findings that make an image positive) that was evaluated.
        systems: Names of the compared systems.
        policy: Operating point, such as ``max_f1``, whose threshold is used for everything that is
            shown at a single threshold.
        policies: Operating points for which at least one system has a threshold.
        thresholds: For each system by name, the score threshold by operating point, such as
            ``max_f1``; null if the operating point has no threshold.
        table: The main table of the report.
        seed: Random seed of the bootstrap resampling.
        overlays: By image id, the file name of the image with boxes and contours drawn on it.
        call: Systems, data and options of the command that made the comparison, by key; None if
            it was not a command.
        provenance: Data set and systems of the report.
    """

    headline: str
    cautions: list[str] = ABSENT
    reading: list[str] = ABSENT
    names_images: bool = ABSENT
    findings: list[str] = ABSENT
    claims: list[dict[str, Any]] = ABSENT
    target: str
    systems: list[str] = ABSENT
    policy: str = ABSENT
    policies: list[str] = ABSENT
    thresholds: dict[str, NumbersByName] = ABSENT
    table: AnswerTable = ABSENT
    seed: int = ABSENT
    overlays: dict[str, str] = ABSENT
    call: dict[str, Any] | None = None
    provenance: ReportOrigin


RECORDS: dict[str, type[Record]] = {
    "dataset": DataSetRecord,
    "settings": SettingsRecord,
    "split": SplitRecord,
    "audit": AuditRecord,
    "near_duplicates": NearDuplicatesRecord,
    "preprocess": PreprocessRecord,
    "run": RunRecord,
    "started_run": RunRecord,
    "model": ModelRecord,
    "guard": GuardRecord,
    "predictions": PredictionsRecord,
    "unfinished_predictions": UnfinishedPredictionsRecord,
    "decision": DecisionRecord,
    "export": ExportRecord,
    "card": CardRecord,
    "synth": PhantomRecord,
    "answer": AnswerRecord,
}
"""The model of each kind of JSON file that programs read again."""


def record_error(kind: str, content: Any, model: type[Record] | None = None) -> str | None:
    """Return a line on the first problem of a JSON file's content: key, rule and value.

    Args:
        kind: Kind of a JSON file that this program writes, such as "preprocess". For a kind without
            a model, every content is accepted.
        content: Content of the file, as `json.loads` returns it.
        model: Model of the content; None takes that of the kind in `RECORDS`.

    Returns:
        The problem in one line; None if the content matches the model of its kind.

    Example:
        >>> record_error("preprocess", {"size": 512, "mean": "dark", "std": 0.2})
        "mean must be a number, got 'dark'"
    """
    problem = _impossible_value(content)
    if problem is not None:
        return problem
    model = model or RECORDS.get(kind)
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
    if isinstance(value, str) and ("\0" in value or _has_surrogate(value)):
        return f"holds a text with a character that no text has: {value[:40]!r}"
    if isinstance(value, int | float) and not abs(value) < _MAX_NUMBER:
        return "holds a number that is none, or too large"
    return None


def _has_surrogate(text: str) -> bool:
    """Return True for a text with half of a character, which no file can hold."""
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)
