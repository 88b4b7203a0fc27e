"""The HTTP interface: its routes, and the files that it serves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse, HTMLResponse
from markupsafe import Markup
from pydantic import BeforeValidator
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from cxr_compare.data_prep.images.refused_files import MAX_PIXELS
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.overlays.contours import CONTOUR_PROBABILITIES
from cxr_compare.evaluation.overlays.draw import mark_source
from cxr_compare.evaluation.overlays.legend import MARKS
from cxr_compare.serving.web.analysis import Include, Server
from cxr_compare.serving.web.limits import MEBIBYTE
from cxr_compare.serving.web.schemas import (
    ERRORS,
    AnalyzeAnswer,
    ExampleFacts,
    ExamplesAnswer,
    Limits,
    ModelsAnswer,
    Refused,
    StateAnswer,
)
from cxr_compare.serving.web.systems import versions_of

_LONGEST_NAME = 120
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


class Files:
    """The files that a server sends, by name. The names are listed when the server starts.

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


router = APIRouter()


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
    request_id = request.scope["cxr_request_id"]
    async with _upload(request) as (name, content):
        return await _server(request).analyze(request_id, name, content, frozenset(include))


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
    async with _upload(request) as (_, content):
        decoded = await _server(request).decode(content, deep=True)
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


@router.get("/healthz", tags=["state"])
async def healthz() -> StateAnswer:
    """Report that the server is ready to predict; it listens only once it is."""
    return StateAnswer()


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


@asynccontextmanager
async def _upload(request: Request) -> AsyncIterator[tuple[str, bytes]]:
    """Give the one file of a request, its name at the client and its content, once there is room.

    Few uploads are in memory at a time: the body of a request that waits is not read.
    """
    # Browsers name the site of the page that posts; other programs send no such header.
    if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        raise Refused(403, "origin", "sent by a page of another site; use the page of this server")
    server = _server(request)
    seconds = server.settings.patience
    async with server.places:
        try:
            async with asyncio.timeout(seconds):
                received = await _read_form(request, server.settings.max_bytes)
        except TimeoutError:
            message = f"the image did not arrive within {seconds:g} seconds; send it again"
            raise Refused(408, "slow", message, {"Connection": "close"}) from None
        yield received


async def _read_form(request: Request, most: int) -> tuple[str, bytes]:
    """Read the one file of a form."""
    kind = request.headers.get("Content-Type", "")
    if not kind.lower().startswith("multipart/form-data"):
        raise Refused(
            415, "not_multipart", "send the image as the field 'file' of multipart/form-data"
        )
    stream = _bounded(request.stream(), most)
    parser = _InMemory(request.headers, stream, max_files=1, max_fields=0)
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


async def _bounded(stream: AsyncIterable[bytes], most: int) -> AsyncGenerator[bytes]:
    """Pass the parts of a body on, and refuse a body of more than `most` bytes."""
    received = 0
    async for part in stream:
        received += len(part)
        if received > most:
            message = f"larger than the limit of {most / MEBIBYTE:,.4g} MiB"
            raise Refused(413, "too_large", message, {"Connection": "close"})
        yield part


def _plain_name(name: str) -> str:
    """Return the client's name of a file, without folders and unprintable characters."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in last if sign.isprintable())[:_LONGEST_NAME] or "image"
