"""The JSON answers of the HTTP interface, as its OpenAPI document describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cxr_compare.serving.answer import RESEARCH_USE, Answer, Status, SystemFields
from cxr_compare.serving.guard import WarningKind


class Refused(Exception):  # noqa: N818 - an answer
    """An HTTP request that the server refuses, with status, short code and message.

    `status` is the HTTP status, such as 422; `code` names the reason for programs, such as
    ``unreadable``; `message` says it in one line, with what to do. `kind` is that of the warning if
    an image is refused for a warning.
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
        self.headers = headers
        self.error = ErrorBody(code=code, message=message, kind=kind)


class _Model(BaseModel):
    model_config = ConfigDict(
        protected_namespaces=(), allow_inf_nan=False, use_attribute_docstrings=True
    )


class ErrorBody(_Model):
    """Reason why a request was refused."""

    code: str = Field(examples=["unreadable"])
    """Short name of the reason, for programs."""
    message: str = Field(
        examples=["neither DICOM nor a known image format; give a DICOM, PNG or JPEG file"]
    )
    """One line that says what to do."""
    kind: WarningKind | None = Field(default=None, examples=[None])
    """Kind of the warning if the code is ``doubtful``, else null."""


class ErrorAnswer(_Model):
    """Body of every response with a status from 400 on."""

    request_id: str = Field(examples=["5f0c9d1be0a4"])
    """Id of the request, as in the log."""
    error: ErrorBody


class ImageFacts(_Model):
    """Facts about the uploaded image."""

    name: str = Field(examples=["chest.dcm"])
    """Name of the file, as the client called it."""
    width: int = Field(examples=[1024])
    height: int = Field(examples=[1024])
    format: str = Field(examples=["DICOM"])
    bits: int = Field(examples=[12])
    """Number of bits of a stored value."""
    monochrome1: bool = Field(examples=[False])
    """True if the file stores a negative, which was inverted."""
    view: str | None = Field(examples=["PA"])
    """View that the header states; null if unknown."""


class AnalyzeAnswer(_Model):
    """Predictions of all systems (trained networks) for one image: the response to an upload."""

    request_id: str = Field(examples=["5f0c9d1be0a4"])
    """Id of the request, as in the log."""
    image: ImageFacts
    status: Status
    """``doubtful`` if there is a warning for any system, else ``ok``."""
    warnings: list[str] = Field(examples=[[]])
    """Sentences on why systems cannot be trusted on this image; read them first."""
    warning_kinds: list[WarningKind] = Field(examples=[[]])
    """Kind of each warning, for programs, such as ``negative``."""
    cautions: list[str] = Field(examples=[[]])
    """Sentences on what limits the predictions, of all systems, without repetition."""
    notes: list[str] = Field(examples=[[]])
    """Sentences on what was done to show the image."""
    disagreement: bool | None = Field(examples=[False])
    """True if systems decide differently; null with fewer than two decisions."""
    systems: list[Answer]
    """Prediction of each system."""
    overlay_png: str | None = Field(default=None, examples=[None])
    """Overlay as a PNG file in base64, with ``include=overlay``; else null."""
    csv: str | None = Field(default=None, examples=[None])
    """Table of ``cxr predict --csv`` for this image, with ``include=csv``; else null."""
    versions: dict[str, str] = Field(examples=[{"cxr-compare": "0.1.0"}])
    """Version of each program, by its name."""
    research_use: str = Field(default=RESEARCH_USE, examples=[RESEARCH_USE])
    """Sentence that limits the use to research."""


class Figure(_Model):
    """Value of one metric of a detector or classifier, with its 95 % interval if it has one."""

    metric: str = Field(examples=["auroc"])
    """Short name of the metric."""
    title: str = Field(examples=["AUROC"])
    """Name of the metric for readers."""
    estimate: float | None = Field(examples=[0.937])
    """Value of the metric; null if it is undefined."""
    ci_low: float | None = Field(examples=[0.902])
    ci_high: float | None = Field(examples=[0.960])
    policy: str = Field(examples=[""])
    """Name of the rule that chose the threshold at which the metric was measured; empty for a
    metric without a threshold."""


class ReportFigures(_Model):
    """Metrics of a system on images that it was not trained on."""

    images: str = Field(examples=["test"])
    """``test`` for metrics from a report of `cxr compare`. ``validation`` for metrics on the images
    that also chose the threshold, which are too favourable."""
    data_set: str | None = Field(examples=["Synthetic chest X-rays"])
    n_images: int | None = Field(examples=[564])
    n_patients: int | None = Field(examples=[305])
    n_positive: int | None = Field(examples=[162])
    figures: list[Figure]
    cautions: list[str] = Field(
        examples=[["Synthetic images: the figures say nothing about patients."]]
    )
    """Sentences that a reader of the metrics should know."""


class SystemFacts(_Model, SystemFields):
    """Facts about a system (trained network with its threshold) of this server."""

    findings: list[str] = Field(examples=[["lung_opacity"]])
    """Findings that the system learned."""
    model_id: str = Field(examples=["a8f65d73658fc4a5"])
    """Digest of all that decides a prediction, such as the weights."""
    backend: str = Field(examples=["openvino"])
    """Program that computes: ``torch``, ``onnx`` or ``openvino``."""
    precision: str = Field(examples=["fp32"])
    """Number format of the computation."""
    image_size: int = Field(examples=[512])
    """Side of the square image that the network reads, px."""
    trained_on: list[str] = Field(examples=[["RSNA Pneumonia Detection Challenge 2018"]])
    """Names of the data sets of the training."""
    synthetic: bool
    """True if all training images were synthetic."""
    guard: bool
    """True if the system can recognise images that are no frontal chest X-rays."""
    cautions: list[str] = Field(examples=[[]])
    """Sentences on what limits all predictions of the system, such as that it was not shown to be
    better than guessing."""
    report: ReportFigures | None
    """Metrics of the system; null if none are known."""
    report_url: str | None = Field(examples=["/report/report.html"])
    """Address of the report on this server; null without a report."""


class Limits(_Model):
    """Limits of a request."""

    bytes: int = Field(examples=[67108864])
    """Largest size of a request's body, bytes."""
    pixels: int = Field(examples=[100000000])
    """Largest number of pixels of an image."""


class ModelsAnswer(_Model):
    """The systems (trained networks with their thresholds) with which this server predicts."""

    systems: list[SystemFacts]
    missed_together: ReportFigures | None
    """Share of the positive images that every system decides as negative, as the only value in
    `figures`; null if it is not known."""
    versions: dict[str, str] = Field(examples=[{"cxr-compare": "0.1.0"}])
    """Version of each program, by its name."""
    limits: Limits
    research_use: str = Field(default=RESEARCH_USE, examples=[RESEARCH_USE])
    """Sentence that limits the use to research."""


class StateAnswer(_Model):
    """State of the server, which answers only once it can predict."""

    status: Literal["ok"] = "ok"


class ExampleFacts(_Model):
    """Name and address of an example image."""

    name: str = Field(examples=["phantom-1.png"])
    url: str = Field(examples=["/examples/phantom-1.png"])
    """Path on this server."""


class ExamplesAnswer(_Model):
    """List of the example images."""

    examples: list[ExampleFacts]


ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": text}
    for status, text in {
        400: "Bad input",
        401: "Token missing or wrong",
        403: "Sent by a page of another site",
        408: "The body did not arrive in time",
        413: "Too large",
        415: "Type refused",
        422: "Not an image that can be read; with --strict also one that a warning speaks against "
        "(code doubtful)",
        503: "Too many connections, or stopping",
    }.items()
}
"""Error responses of the routes that take an upload, by HTTP status, for the OpenAPI document."""
