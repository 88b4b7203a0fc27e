"""The HTTP interface: its routes, and the files that it serves."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from fastapi.routing import APIRoute
from markupsafe import Markup
from pydantic import BeforeValidator
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cxr_compare.data_prep.contracts.csv_files import inert_cell
from cxr_compare.data_prep.images.refused_files import MAX_PIXELS
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.overlays.contours import CONTOUR_PROBABILITIES
from cxr_compare.evaluation.overlays.draw import mark_source
from cxr_compare.evaluation.overlays.legend import MARKS
from cxr_compare.serving.answer import ANSWER_COLUMNS, RESEARCH_USE, answer_row
from cxr_compare.serving.web.analysis import Include, Server
from cxr_compare.serving.web.schemas import (
    ERRORS,
    AnalyzeAnswer,
    ExampleFacts,
    ExamplesAnswer,
    Limits,
    ModelsAnswer,
    Refused,
    StateAnswer,
    SystemAnswer,
    VisitEntry,
)
from cxr_compare.serving.web.systems import versions_of

_LONGEST_NAME = 120
_MOST_PARTS = 1_000_000  # values of the JSON of a report: to read it stops all else for a second
_PAGE = Path(__file__).with_name("page")
_LEGEND_PLACE = "<!-- legend -->"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".dcm": "application/dicom",
}
_OF_REPORT = frozenset(_KINDS) - {".dcm", ".json"}
# Scripts and styles of the report are inside its pages, and may connect to no address.
_REPORT_POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_BINARY = {"type": "string", "format": "binary"}
_FILE = {**_BINARY, "description": "One chest X-ray: DICOM, PNG, JPEG or TIFF."}
_FORM = {"schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}}}
_UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": _FORM}}}
_PIXELS: dict[str, Any] = {
    "description": "Width x height values of 2 bytes; 8-bit images keep theirs, of deeper ones the "
    "lowest is 0, and larger is always brighter.",
    "content": {"application/octet-stream": {"schema": _BINARY}},
    "headers": {
        name: {"description": text, "schema": {"type": "number"}}
        for name, text in {
            "X-Width": "Columns.",
            "X-Height": "Rows.",
            "X-Low": "Value that the file shows black, by its window or range.",
            "X-High": "Value that it shows white.",
            "X-Bits": "Bits of a stored value.",
        }.items()
    },
}
RESULT_FORMATS = (  # columns of a visit's table besides those of an answer
    "undecided_because",
    "threshold_probability",
    "systems_disagree",
    "time",
    "view",
    "width",
    "height",
    "backend",
    "model_id",
    "request_id",
    "note",
)
_Visit = Annotated[
    list[VisitEntry], Body(description="Answers of /v1/analyze.", min_length=1, max_length=500)
]


class Files:
    """The files that a server sends, by name. The names are listed when the server starts.

    Args:
        report: Report folder; None if there is no report.

    Attributes:
        page: Path of each file of the HTML page, by file name.
        index: Content of the HTML page.
        examples: Path of each example image, by file name.
        report: Path of each file of the report, by its path in the report folder.
    """

    def __init__(self, report: Path | None) -> None:
        self.page = _listed(_PAGE, deep=False)
        self.index = (_PAGE / "index.html").read_text("utf-8").replace(_LEGEND_PLACE, _legend())
        self.examples = _listed(_PAGE / "examples", deep=False)
        self.report = {} if report is None else _listed(report, deep=True)


def _legend() -> str:
    """Return the marks of the page's images as list items; the page shows those that it draws."""
    levels = listing([f"{100 * level:.0f} %" for level in CONTOUR_PROBABILITIES])
    details = {
        "box": "",
        "contours": f" at {levels} of its scale",
        "cell": f", where it reaches {100 * CONTOUR_PROBABILITIES[0]:.0f} % of its scale",
    }
    item = Markup('<li data-mark="{}" hidden><img class="mark" src="{}" alt="">{}</li>')
    return "".join(
        item.format(name, mark_source(MARKS[name]), f"{MARKS[name].text}{detail}")
        for name, detail in details.items()
    )


def _listed(folder: Path, *, deep: bool) -> dict[str, Path]:
    """Return the files of a folder that may be sent, by their path in it."""
    root = folder.resolve()
    return {
        path.relative_to(root).as_posix(): path
        for path in sorted(root.rglob("*") if deep else root.glob("*"))
        if path.is_file()
        and path.suffix in (_OF_REPORT if deep else _KINDS)
        and path.resolve().is_relative_to(root)
    }


def _file(listed: dict[str, Path], name: str) -> Response:
    path = listed.get(name)
    if path is None:
        raise Refused(404, "not_found", "there is nothing here")
    return FileResponse(path, media_type=_KINDS[path.suffix])


class _ReportRoute(APIRoute):
    """A route whose JSON is read only if its number of parts is bounded."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            body = await request.body()
            if body.count(b",") > _MOST_PARTS:
                raise Refused(413, "too_many", "too much for one report; send fewer answers")
            return await handler(request)

        return bounded


router = APIRouter()
reports = APIRouter(route_class=_ReportRoute)


def _server(request: Request) -> Server:
    return request.app.state.server


def _files(request: Request) -> Files:
    return request.app.state.files


@router.get("/v1/models", tags=["answers"])
async def models(request: Request) -> ModelsAnswer:
    """List the systems (trained networks) of this server, with their thresholds and metrics."""
    server = _server(request)
    facts = [system.facts for system in server.systems]
    limits = Limits(bytes=server.settings.max_bytes, pixels=MAX_PIXELS)
    return ModelsAnswer(
        systems=facts,
        missed_together=server.missed_together,
        versions=versions_of(frozenset(system.backend for system in facts)),
        limits=limits,
        research_use=RESEARCH_USE,
    )


@router.post("/v1/analyze", tags=["answers"], responses=ERRORS, openapi_extra=_UPLOAD)
async def analyze(
    request: Request,
    include: Annotated[
        list[Include],
        BeforeValidator(lambda texts: [name for text in texts for name in text.split(",")]),
        Query(description="What else is sent; may be repeated, or have commas between."),
    ] = [],  # noqa: B006 - FastAPI copies it
) -> AnalyzeAnswer:
    """Predict one image with every system: decision, probability, and boxes in px of the image."""
    server = _server(request)
    if server.status != "ok":
        raise not_now(server)
    name, content = await _upload(request)
    request_id = request.scope["cxr_request_id"]
    return await asyncio.to_thread(server.analyze, request_id, name, content, frozenset(include))


@router.post(
    "/v1/pixels",
    tags=["answers"],
    response_class=Response,
    openapi_extra=_UPLOAD,
    responses={**ERRORS, 200: _PIXELS},
)
async def pixels(request: Request) -> Response:
    """Decode an uploaded image, and send its pixels back at full depth, before any window.

    The body of the response has the rows from above as little-endian uint16.
    """
    _, content = await _upload(request)
    decoded = await asyncio.to_thread(_server(request).decode_deep, content)
    deep = decoded.image.deep
    assert deep is not None  # noqa: S101 - it was asked for
    height, width = deep.values.shape
    facts = {
        "X-Width": str(width),
        "X-Height": str(height),
        "X-Low": f"{deep.black:.10g}",
        "X-High": f"{deep.white:.10g}",
        "X-Bits": str(decoded.bits),
    }
    return Response(deep.values.tobytes(), media_type="application/octet-stream", headers=facts)


@reports.post(
    "/v1/report.csv",
    tags=["reports"],
    response_class=Response,
    responses={**ERRORS, 200: {"content": {"text/csv": {}}}},
)
async def report_csv(entries: _Visit) -> Response:
    """Return predictions that a client has kept as a CSV table. Nothing is stored.

    The table has one row for each image and system (trained network).
    """
    sheet = io.StringIO(newline="")
    rows = csv.DictWriter(sheet, (*ANSWER_COLUMNS, *RESULT_FORMATS))
    rows.writeheader()
    rows.writerows(_row(entry, system) for entry in entries for system in entry.systems)
    content = sheet.getvalue().encode("utf-8-sig")  # so that a spreadsheet reads it as UTF-8
    headers = {"Content-Disposition": 'attachment; filename="answers.csv"'}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


def _row(entry: VisitEntry, system: SystemAnswer) -> dict[str, Any]:
    answer = {**system.model_dump(), "image": entry.image.name}
    facts = (
        answer
        | entry.image.model_dump()
        | {
            "systems_disagree": entry.disagreement,
            "time": entry.time,
            "request_id": entry.request_id,
            "note": RESEARCH_USE,
        }
    )
    return answer_row(answer) | {name: inert_cell(facts[name]) for name in RESULT_FORMATS}


@router.get("/healthz", tags=["state"])
async def healthz() -> StateAnswer:
    """Report that the server is alive."""
    return StateAnswer(status="ok")


@router.get("/readyz", tags=["state"], responses={503: {"model": StateAnswer}})
async def readyz(request: Request, response: Response) -> StateAnswer:
    """Report whether the server can predict. The status is 503 while it starts or stops."""
    status = _server(request).status
    response.status_code = 200 if status == "ok" else 503
    return StateAnswer(status=status)


@router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """Send the HTML page on which a reader uploads images and sees the predictions."""
    return HTMLResponse(_files(request).index)


@router.get("/page/{name}", include_in_schema=False)
async def page_file(request: Request, name: str) -> Response:
    """Send a file of the HTML page, such as its style sheet."""
    return _file(_files(request).page, name)


@router.get("/report/{name:path}", include_in_schema=False)
async def report_file(request: Request, name: str) -> Response:
    """Send a file of the report of `cxr compare` that the server was started with."""
    response = _file(_files(request).report, name)
    response.headers["Content-Security-Policy"] = _REPORT_POLICY
    return response


@router.get("/examples", tags=["state"])
async def examples(request: Request) -> ExamplesAnswer:
    """List the example images, which are synthetic unless the server has a folder of its own."""
    names = _files(request).examples
    facts = [ExampleFacts(name=name, url=f"/examples/{name}") for name in names]
    return ExamplesAnswer(examples=facts)


@router.get("/examples/{name}", include_in_schema=False)
async def example(request: Request, name: str) -> Response:
    """Send an example image."""
    return _file(_files(request).examples, name)


class _InMemory(MultiPartParser):
    """Keeps what is uploaded off the disk."""

    spool_max_size = 1 << 40


async def _upload(request: Request) -> tuple[str, bytes]:
    """Return the one file of a request: its name at the client, and its content."""
    kind = request.headers.get("Content-Type", "")
    if kind.partition(";")[0].strip().lower() != "multipart/form-data":
        raise Refused(
            415, "not_multipart", "send the image as the field 'file' of multipart/form-data"
        )
    parser = _InMemory(request.headers, request.stream(), max_files=1, max_fields=0)
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise Refused(
            400, "bad_form", f"{error.message}; send one image as the field 'file'"
        ) from None
    try:
        upload = form.get("file")
        if not isinstance(upload, UploadFile):
            raise Refused(400, "no_file", "send one image as the field 'file'")
        content = await upload.read()
    finally:
        await form.close()
    if not content:
        raise Refused(400, "empty", "the file is empty; send an image")
    return _plain_name(upload.filename or ""), content


def _plain_name(name: str) -> str:
    """Return the client's name of a file, without folders and unprintable characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in last if sign.isprintable())[:_LONGEST_NAME] or "image"


def not_now(server: Server) -> Refused:
    """Return the error (status 503) for a request that comes while the server starts or stops.

    Args:
        server: State of the server, whose ``status`` the message names.
    """
    message = f"the server is {server.status}; try again"
    return Refused(503, server.status, message, {"Retry-After": "5"})
