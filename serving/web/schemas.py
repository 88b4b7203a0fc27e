"""The JSON answers of the HTTP interface, as its OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cxr_compare.serving.answer import RESEARCH_USE, Status
from cxr_compare.serving.guard import WarningKind
from cxr_compare.serving.known_limits import SeenState

_MOST_SYSTEMS = 32
_LONGEST_TEXT = 4000  # of an answer that comes back in a visit: a table repeats it in each row
_File = Annotated[str, Field(max_length=1 << 29)]  # base64


class Refused(Exception):  # noqa: N818 - an answer
    """An HTTP request that the server refuses, with status, short code and message.

    Args:
        status: HTTP status, such as 422.
        code: Short name of the reason for programs, such as ``unreadable``.
        message: Reason in one line, with what to do.
        headers: HTTP headers of the response, by name; None for none.
        kind: Kind of the warning if an image is refused for a warning; else None.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        headers: Mapping[str, str] | None = None,
        kind: WarningKind | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.kind = kind
        self.headers = dict(headers or {})

    def body(self, request_id: str) -> dict[str, Any]:
        """Return the JSON body of the response, in the form of an `ErrorAnswer`.

        Args:
            request_id: Id of the request, as in the log.

        Returns:
            ``request_id``, and ``error`` with ``code``, ``message`` and, for a warning, its
            ``kind``.
        """
        error = {"code": self.code, "message": self.message}
        error |= {"kind": self.kind} if self.kind else {}
        return {"request_id": request_id, "error": error}


class _Model(BaseModel):
    model_config = ConfigDict(
        extra="forbid", protected_namespaces=(), allow_inf_nan=False, str_max_length=_LONGEST_TEXT
    )


class ErrorBody(_Model):
    """Reason why a request was refused.

    Attributes:
        code: Short name of the reason, such as ``unreadable``.
        message: One line that says what to do.
        kind: Kind of the warning if the code is ``doubtful``, else null.
    """

    code: str = Field(examples=["unreadable"])
    message: str = Field(
        description="One line that says what to do.",
        examples=["neither DICOM nor a known image format; give a DICOM, PNG or JPEG file"],
    )
    kind: WarningKind | None = Field(
        default=None, description="Of the warning, where the code is doubtful.", examples=[None]
    )


class ErrorAnswer(_Model):
    """Body of every response with a status from 400 on.

    Attributes:
        request_id: Id of the request, as in the log.
        error: Reason of the refusal.
    """

    request_id: str = Field(description="As the log names it.", examples=["5f0c9d1be0a4"])
    error: ErrorBody


class FindingScore(_Model):
    """Score of one finding that a system (trained network) learned.

    Attributes:
        finding: Name of the finding.
        score: Score in [0, 1]; a higher score means more suspicion.
    """

    finding: str = Field(examples=["lung_opacity"])
    score: float = Field(examples=[0.81])


class Frame(_Model):
    """Edges of a rectangle in px of the original image.

    The edges of an activation map may lie outside the image.

    Attributes:
        x1: Left edge, px.
        y1: Upper edge, px.
        x2: Right edge, px.
        y2: Lower edge, px.
    """

    x1: float = Field(examples=[312.0])
    y1: float = Field(examples=[401.5])
    x2: float = Field(examples=[498.0])
    y2: float = Field(examples=[655.0])


class Box(FindingScore, Frame):
    """Box of a positive image, with its score, in px of the original image.

    Attributes:
        finding: Name of the finding.
        score: Score in [0, 1]; a higher score means more suspicion.
        x1: Left edge, px.
        y1: Upper edge, px.
        x2: Right edge, px.
        y2: Lower edge, px.
    """


class ActivationMap(_Model):
    """Map that shows where a classifier sees the finding.

    Attributes:
        finding: Name of the finding.
        values: Rows of cells from above, each cell in [0, 1] on one scale for all images.
        frame: Outer edges of the cells.
    """

    finding: str = Field(examples=["lung_opacity"])
    values: list[list[float]] = Field(
        description="Rows of cells, 0 to 1 on one scale for all images.",
        examples=[[[0.0, 0.1], [0.2, 0.9]]],
    )
    frame: Frame


class _System(_Model):
    """Name of a system and the threshold by which it decides."""

    system: str = Field(examples=["RetinaNet"])
    kind: Literal["boxes", "scores", "both"]
    model_id: str = Field(examples=["a8f65d73658fc4a5"])
    backend: str = Field(examples=["openvino"])
    finding: str = Field(examples=["Lung opacity"])
    policy: str = Field(examples=["max_f1"])
    threshold: float | None = Field(description="On the score.", examples=[0.26])
    threshold_probability: float | None = Field(
        description="The threshold as a probability.", ge=0, le=1, examples=[0.33]
    )
    undecided_because: str | None = Field(examples=[None])


class SystemAnswer(_System):
    """Prediction of one system (trained network with its threshold) for the image.

    Attributes:
        system: Name of the system for people.
        kind: ``boxes`` for a detector, ``scores`` for a classifier.
        model_id: Digest of all that decides a prediction, such as the weights.
        backend: Program that computes: ``torch``, ``onnx`` or ``openvino``.
        finding: Name for people of the finding that is decided.
        policy: Name of the rule that chose the threshold on validation images, such as ``max_f1``.
        threshold: Lowest score at which an image is positive; null if the system has none.
        threshold_probability: Calibrated probability at the threshold; null without calibration.
        undecided_because: Reason why the system cannot decide on any image; null if it can.
        status: ``doubtful`` if there is a warning, and therefore no decision; else ``ok``.
        decision: Decision at the stored threshold; null if the system is undecided or `status` is
            ``doubtful``.
        computed_decision: Decision that score and threshold give, also if there is a warning. It is
            not meant for use.
        declared: Name and source of the threshold if somebody declared it; else null.
        warnings: Sentences on why the system cannot be trusted on this image, such as that it is no
            frontal chest X-ray.
        probability: Calibrated score, in [0, 1]; null without calibration.
        score: Score of the image, in [0, 1].
        findings: Score of each finding that the system learned.
        boxes: Predicted boxes.
        map: Activation map of a classifier, if the request asked for maps; else null.
        seen_in_training: ``train`` if the system learned from this image or a near copy, ``val`` if
            its weights and threshold were chosen with it, ``no`` for neither, ``unknown`` if the
            images of the training are not known.
        cautions: Sentences on what limits this prediction, such as that the system learned from the
            image.
    """

    status: Status = Field(
        description="doubtful: a warning speaks against this answer, which has no decision."
    )
    decision: Literal["positive", "negative"] | None = Field(
        description="At the frozen operating point; null where it is undecided or doubtful."
    )
    computed_decision: Literal["positive", "negative"] | None = Field(
        description="What score and threshold give, also of a doubtful answer: no decision to use."
    )
    declared: str | None = Field(
        default=None, description="Name and source of the threshold, if somebody declared it."
    )
    warnings: list[str] = Field(
        default=[], max_length=_MOST_SYSTEMS, description="What speaks against this answer."
    )
    seen_in_training: SeenState = Field(
        default="unknown",
        description="train: the system learned from this image or from a near copy of it. val: its "
        "weights and threshold were chosen with it. no: neither. unknown: the images that it "
        "learned from are not known.",
        examples=["no"],
    )
    cautions: list[str] = Field(
        default=[],
        max_length=_MOST_SYSTEMS,
        description="What limits this answer: the image trained the system, or the system was not "
        "shown to be better than guessing.",
        examples=[[]],
    )
    probability: float | None = Field(description="Calibrated.", ge=0, le=1, examples=[0.74])
    score: float = Field(description="Raw.", ge=0, le=1, examples=[0.81])
    findings: list[FindingScore]
    boxes: list[Box]
    map: ActivationMap | None = Field(
        description="With include=maps, of a classifier.", examples=[None]
    )


class ImageFacts(_Model):
    """Facts about the uploaded image.

    Attributes:
        name: Name of the file, as the client called it.
        width: Number of columns, px.
        height: Number of rows, px.
        format: File format, such as ``DICOM``.
        bits: Number of bits of a stored value.
        monochrome1: True if the file stores a negative, which was inverted.
        view: View that the header states, such as ``PA``; null if unknown.
    """

    name: str = Field(description="As the client called it.", examples=["chest.dcm"])
    width: int = Field(examples=[1024])
    height: int = Field(examples=[1024])
    format: str = Field(examples=["DICOM"])
    bits: int = Field(description="Of a stored value.", examples=[12])
    monochrome1: bool = Field(description="Stored as a negative; it was turned.", examples=[False])
    view: str | None = Field(description="As the header says.", examples=["PA"])


class AnalyzeAnswer(_Model):
    """Predictions of all systems (trained networks) for one image: the response to an upload.

    Attributes:
        request_id: Id of the request, as in the log.
        image: Facts about the image.
        status: ``doubtful`` if there is a warning for any system, else ``ok``.
        warnings: Sentences on why systems cannot be trusted on this image; read them first.
        warning_kinds: Kind of each warning, for programs, such as ``negative``.
        notes: Sentences on what was done to show the image.
        disagreement: True if systems decide differently; null with fewer than two decisions.
        systems: Prediction of each system.
        overlay_png: Overlay as a PNG file in base64, if it was requested; else null.
        versions: Version of each program, by its name.
        research_use: Sentence that limits the use to research.
        cautions: Sentences on what limits the predictions, of all systems, without repetition.
    """

    request_id: str = Field(examples=["5f0c9d1be0a4"])
    image: ImageFacts
    status: Status = Field(description="doubtful where it is so of a system, else ok.")
    warnings: list[str] = Field(
        description="What speaks against the answers; to be read first.", examples=[[]]
    )
    warning_kinds: list[WarningKind] = Field(
        default=[], max_length=_MOST_SYSTEMS, description="Of each warning.", examples=[[]]
    )
    cautions: list[str] = Field(
        default=[],
        max_length=2 * _MOST_SYSTEMS,
        description="The cautions of all systems, without repetition.",
        examples=[[]],
    )
    notes: list[str] = Field(
        default=[], description="What was done to show the image.", examples=[[]]
    )
    disagreement: bool | None = Field(
        description="Whether the systems decide differently; null with fewer than two decisions "
        "that count.",
        examples=[False],
    )
    systems: list[SystemAnswer]
    overlay_png: _File | None = Field(description="base64, with include=overlay.", examples=[None])
    versions: dict[str, str] = Field(examples=[{"cxr-compare": "0.1.0"}])
    research_use: str = Field(examples=[RESEARCH_USE])


class VisitEntry(AnalyzeAnswer):
    """Response to an upload that a client has kept, with its time. Unknown keys are ignored.

    Attributes:
        warnings: Sentences on why systems cannot be trusted on the image.
        notes: Sentences on what was done to show the image.
        systems: Prediction of each system.
        time: Time of the response as text, such as ``2026-11-22 01:10``; empty if unknown.
    """

    model_config = ConfigDict(extra="ignore")

    warnings: list[str] = Field(max_length=_MOST_SYSTEMS, examples=[[]])
    notes: list[str] = Field(default=[], max_length=_MOST_SYSTEMS, examples=[[]])
    systems: list[SystemAnswer] = Field(max_length=_MOST_SYSTEMS)
    time: str = Field(default="", max_length=40, examples=["2026-11-22 01:10"])


class Figure(_Model):
    """Value of one metric of a detector or classifier, with its 95 % interval if it has one.

    Attributes:
        metric: Short name of the metric, such as ``auroc``.
        title: Name of the metric for readers.
        estimate: Value of the metric; null if it is undefined.
        ci_low: Lower end of the 95 % interval; null without an interval.
        ci_high: Upper end of the interval; null without an interval.
        policy: Name of the rule that chose the threshold at which the metric was measured, such as
            ``max_f1``; empty for a metric without a threshold.
    """

    metric: str = Field(examples=["auroc"])
    title: str = Field(examples=["AUROC"])
    estimate: float | None = Field(examples=[0.937])
    ci_low: float | None = Field(examples=[0.902])
    ci_high: float | None = Field(examples=[0.960])
    policy: str = Field(description="Empty where no threshold plays a part.", examples=[""])


class ReportFigures(_Model):
    """Metrics of a system on images that it was not trained on.

    Attributes:
        images: ``test`` for metrics from a report of `cxr compare`. ``validation`` for metrics on
            the images that also chose the threshold, which are too favourable.
        data_set: Name of the data set; null if unknown.
        n_images: Number of images; null if unknown.
        n_patients: Number of patients; null if unknown.
        n_positive: Number of positive images; null if unknown.
        figures: The values of the metrics.
        cautions: Sentences that a reader of the metrics should know.
    """

    images: str = Field(
        description="test: of a report of cxr compare. validation: chosen on the same images, so "
        "flattering.",
        examples=["test"],
    )
    data_set: str | None = Field(examples=["Synthetic chest X-rays"])
    n_images: int | None = Field(examples=[564])
    n_patients: int | None = Field(examples=[305])
    n_positive: int | None = Field(examples=[162])
    figures: list[Figure]
    cautions: list[str] = Field(
        examples=[["Synthetic images: the figures say nothing about patients."]]
    )


class SystemFacts(_System):
    """Facts about a system (trained network with its threshold) of this server.

    Attributes:
        system: Name of the system for people.
        kind: ``boxes`` for a detector, ``scores`` for a classifier.
        model_id: Digest of all that decides a prediction, such as the weights.
        backend: Program that computes: ``torch``, ``onnx`` or ``openvino``.
        finding: Name for people of the finding that is decided.
        policy: Name of the rule that chose the threshold on validation images, such as ``max_f1``.
        threshold: Lowest score at which an image is positive; null if the system has none.
        threshold_probability: Calibrated probability at the threshold; null without calibration.
        undecided_because: Reason why the system cannot decide on any image; null if it can.
        findings: Findings that the system learned.
        precision: Number format of the computation, such as ``fp32``.
        image_size: Side of the square image that the network reads, px.
        trained_on: Names of the data sets of the training.
        synthetic: True if all training images were synthetic.
        guard: True if the system can recognise images that are no frontal chest X-rays.
        report: Metrics of the system; null if none are known.
        report_url: Address of the report on this server; null without a report.
        cautions: Sentences on what limits all predictions of the system.
    """

    findings: list[str] = Field(examples=[["lung_opacity"]])
    precision: str = Field(examples=["fp32"])
    image_size: int = Field(description="Side of what the network sees, px.", examples=[512])
    trained_on: list[str] = Field(examples=[["RSNA Pneumonia Detection Challenge 2018"]])
    synthetic: bool = Field(description="Whether it learned from synthetic images alone.")
    cautions: list[str] = Field(
        default=[],
        description="What limits all its answers, such as that it was not shown to be better than "
        "guessing, by its AUROC on test or validation images.",
        examples=[
            [
                "RetinaNet was not shown to be better than guessing: AUROC 0.52 (95 % interval "
                "0.43 to 0.61) on 68 validation images"
            ]
        ],
    )
    guard: bool = Field(description="Whether it tells what is no frontal chest X-ray.")
    report: ReportFigures | None
    report_url: str | None = Field(examples=["/report/report.html"])


class Limits(_Model):
    """Limits of a request.

    Attributes:
        bytes: Largest size of a request's body, bytes.
        pixels: Largest number of pixels of an image.
    """

    bytes: int = Field(examples=[67108864])
    pixels: int = Field(examples=[100000000])


class ModelsAnswer(_Model):
    """The systems (trained networks with their thresholds) with which this server predicts.

    Attributes:
        systems: Facts about each system.
        missed_together: Share of the positive images that every system decides as negative, as the
            only value in `figures`; null if it is not known.
        versions: Version of each program, by its name.
        limits: Limits of a request.
        research_use: Sentence that limits the use to research.
    """

    systems: list[SystemFacts]
    missed_together: ReportFigures | None = Field(
        description="The positives that no system found: their share as the one figure. null where "
        "that is not known."
    )
    versions: dict[str, str] = Field(examples=[{"cxr-compare": "0.1.0"}])
    limits: Limits
    research_use: str = Field(examples=[RESEARCH_USE])


class StateAnswer(_Model):
    """State of the server.

    Attributes:
        status: ``ok`` if the server answers requests, else ``starting`` or ``stopping``.
    """

    status: Literal["ok", "starting", "stopping"]


class ExampleFacts(_Model):
    """Name and address of an example image.

    Attributes:
        name: Name of the file.
        url: Path on this server.
    """

    name: str = Field(examples=["phantom-1.png"])
    url: str = Field(examples=["/examples/phantom-1.png"])


class ExamplesAnswer(_Model):
    """List of the example images.

    Attributes:
        examples: Name and address of each example image.
    """

    examples: list[ExampleFacts]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "Bad input",
        401: "Token missing or wrong",
        403: "Origin not allowed",
        413: "Too large",
        415: "Type refused",
        422: "Not an image that can be read; with --strict also one that a warning speaks against "
        "(code doubtful)",
        503: "Starting or stopping; Retry-After says when to try again",
    }.items()
}
"""Error responses of the routes that take an upload, by HTTP status, for the OpenAPI document."""
