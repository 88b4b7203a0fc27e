"""The HTTP interface: routes, and what holds for all of them."""

from __future__ import annotations

import asyncio
import csv
import io
import logging
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Body, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.answer import ANSWER_COLUMNS, LoadedRun, answer_row, inert_cell
from serving.web.analysis import Include, Server, too_busy
from serving.web.batcher import Busy, Places
from serving.web.files import Files
from serving.web.gate import REPORT_FILES, Gate, ReportCookie, with_security_headers
from serving.web.schemas import (
    ERRORS,
    RESEARCH_USE,
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
from serving.web.settings import ServeSettings
from serving.web.systems import (
    ServedSystem,
    report_figures,
    validation_figures,
    versions_of,
)

_LOG = logging.getLogger("cxr.serve")
_LONGEST_NAME = 120
_DRAIN_SECONDS = 2.0
_MOST_PARTS = 1_000_000  # values of the JSON of a report: to read it stops all else for a second
_PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
_REPORT_URL = f"{REPORT_FILES}report.html"
_UPLOAD = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "One chest X-ray: DICOM, PNG, JPEG or TIFF.",
                        }
                    },
                }
            }
        },
    }
}
_PIXELS: dict[str, Any] = {
    "description": "Width x height values of 2 bytes; 8-bit images keep theirs, of deeper ones the "
    "lowest is 0, and larger is always brighter.",
    "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    "headers": {
        name: {"description": words, "schema": {"type": "number"}}
        for name, words in {
            "X-Width": "Columns.",
            "X-Height": "Rows.",
            "X-Low": "Value that the file shows black, by its window or range.",
            "X-High": "Value that it shows white.",
            "X-Bits": "Bits of a stored value.",
        }.items()
    },
}
_VISIT_COLUMNS = (
    *ANSWER_COLUMNS, "undecided_because", "threshold_probability", "systems_disagree", "time",
    "view", "width", "height", "backend", "model_id", "request_id", "note",
)  # fmt: skip
_T = TypeVar("_T")
_Visit = Annotated[
    list[VisitEntry], Body(description="Answers of /v1/analyze.", min_length=1, max_length=500)
]


def build_app(
    systems: Sequence[LoadedRun],
    settings: ServeSettings,
    *,
    report: Path | None = None,
) -> FastAPI:
    """The server of some systems."""
    figures = [None for _ in systems] if report is None else report_figures(systems, report)
    served = [
        ServedSystem(run, on_test or validation_figures(run), _REPORT_URL if on_test else None)
        for run, on_test in zip(systems, figures, strict=True)
    ]
    server, cookie = Server(served, settings), ReportCookie()
    app = FastAPI(
        title="cxr-compare",
        version=metadata.version("cxr-compare"),
        summary="What lesion detectors and image classifiers say of a chest X-ray.",
        description=RESEARCH_USE,
        docs_url=None,  # its scripts would come from elsewhere
        redoc_url=None,
        lifespan=lambda app: server.running(),
    )
    app.state.server, app.state.cookie = server, cookie
    app.state.files = Files(settings.examples, report)
    app.include_router(_router)
    app.include_router(_reports)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Gate, settings=settings, cookie=cookie)
    app.add_middleware(
        _RequestLog, server=server
    )  # outermost: it counts what the gate refuses, too
    return app


class _ReportRoute(APIRoute):
    """A route whose JSON is looked at before it is read: a few at a time, of bounded parts."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def bounded(request: Request) -> Response:
            async with _place(request, _server(request).reports):
                if (await request.body()).count(b",") > _MOST_PARTS:
                    raise Refused(413, "too_many", "too much for one report; send fewer answers")
                return await handler(request)

        return bounded


_router, _reports = APIRouter(), APIRouter(route_class=_ReportRoute)


def _server(request: Request) -> Server:
    return request.app.state.server


def _files(request: Request) -> Files:
    return request.app.state.files


@_router.get("/v1/models", tags=["answers"])
async def models(request: Request) -> ModelsAnswer:
    """The systems of this server, their operating points, and how they did."""
    server = _server(request)
    facts, settings = [system.facts for system in server.systems], server.settings
    return ModelsAnswer(
        systems=facts,
        versions=versions_of(frozenset(system.backend for system in facts)),
        limits=Limits(
            bytes=settings.max_bytes, pixels=settings.max_pixels, seconds=settings.seconds
        ),
        research_use=RESEARCH_USE,
    )


@_router.post("/v1/analyze", tags=["answers"], responses=ERRORS, openapi_extra=_UPLOAD)
async def analyze(
    request: Request,
    include: Annotated[
        list[Include], Query(description="What else is wanted; may be repeated.")
    ] = [],  # noqa: B006 - FastAPI copies it
) -> AnalyzeAnswer:
    """What every system says of one image: decision, probability, boxes in its pixels."""
    server = _server(request)
    if server.status != "ok":
        raise _not_now(server)
    async with _place(request, server.places):
        name, content = await _upload(request)
        request_id = request.scope["cxr_request_id"]
        work = server.analyze(request_id, name, content, frozenset(include))
        return await _unless_gone(request, work, server.settings.seconds)


@_router.post(
    "/v1/pixels", tags=["answers"], response_class=Response, openapi_extra=_UPLOAD,
    responses={**ERRORS, 200: _PIXELS},
)  # fmt: skip
async def pixels(request: Request) -> Response:
    """The image at full depth, before any window: rows of little-endian uint16."""
    server = _server(request)
    async with _place(request, server.places):
        _, content = await _upload(request)
        work = server.decoder.decode(content, deep=True)
        decoded = await _unless_gone(request, work, server.settings.seconds)
    deep = decoded.image.deep
    assert deep is not None  # noqa: S101 - it was asked for
    height, width = deep.values.shape
    facts = {
        "X-Width": str(width),
        "X-Height": str(height),
        "X-Low": f"{deep.low:.10g}",
        "X-High": f"{deep.high:.10g}",
        "X-Bits": str(decoded.bits),
    }
    return Response(deep.values.tobytes(), media_type="application/octet-stream", headers=facts)


@_reports.post(
    "/v1/report.csv", tags=["reports"], response_class=Response,
    responses={**ERRORS, 200: {"content": {"text/csv": {}}}},
)  # fmt: skip
async def report_csv(entries: _Visit) -> Response:
    """Answers as a table: a row an image and system. Nothing is kept."""
    sheet = io.StringIO(newline="")
    rows = csv.DictWriter(sheet, _VISIT_COLUMNS)
    rows.writeheader()
    rows.writerows(_row(entry, system) for entry in entries for system in entry.systems)
    content = sheet.getvalue().encode("utf-8-sig")  # so that a spreadsheet reads it as UTF-8
    headers = {"Content-Disposition": 'attachment; filename="answers.csv"'}
    return Response(content, media_type="text/csv; charset=utf-8", headers=headers)


def _row(entry: VisitEntry, system: SystemAnswer) -> dict[str, Any]:
    image = entry.image
    answer = {**system.model_dump(), "image": image.name, "warnings": entry.warnings}
    further = {
        "undecided_because": system.undecided_because,
        "threshold_probability": system.threshold_probability,
        "systems_disagree": entry.disagreement,
        "time": entry.time,
        "view": image.view,
        "width": image.width,
        "height": image.height,
        "backend": system.backend,
        "model_id": system.model_id,
        "request_id": entry.request_id,
        "note": RESEARCH_USE,
    }
    return answer_row(answer) | {column: inert_cell(value) for column, value in further.items()}


@_router.get("/healthz", tags=["state"])
async def healthz() -> StateAnswer:
    """Whether the server lives."""
    return StateAnswer(status="ok")


@_router.get("/readyz", tags=["state"], responses={503: {"model": StateAnswer}})
async def readyz(request: Request, response: Response) -> StateAnswer:
    """Whether it answers: 503 while it starts or stops."""
    status = _server(request).status
    response.status_code = 200 if status == "ok" else 503
    return StateAnswer(status=status)


@_router.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """Figures for Prometheus."""
    return Response(_server(request).metrics.text(), media_type=_PROMETHEUS)


@_router.get("/", include_in_schema=False)
async def page(request: Request) -> Response:
    """The page."""
    return _files(request).page("index.html")


@_router.get("/page/{name}", include_in_schema=False)
async def page_file(request: Request, name: str) -> Response:
    """A file of the page."""
    return _files(request).page(name)


@_router.get("/report/{name:path}", include_in_schema=False)
async def report_file(request: Request, name: str) -> Response:
    """A file of the report."""
    return _files(request).report(name)


@_router.post("/report/open", include_in_schema=False, status_code=204)
async def open_report(request: Request) -> Response:
    """Let the browser of the page, which has sent the token, follow links to the report."""
    cookie = request.app.state.cookie.header(request.headers.get("Origin", ""))
    return Response(status_code=204, headers={"Set-Cookie": cookie})


@_router.get("/examples", tags=["state"])
async def examples(request: Request) -> ExamplesAnswer:
    """Example images: phantoms, no patient."""
    names = _files(request).examples
    return ExamplesAnswer(
        examples=[ExampleFacts(name=name, url=f"/examples/{name}") for name in names]
    )


@_router.get("/examples/{name}", include_in_schema=False)
async def example(request: Request, name: str) -> Response:
    """An example image."""
    return _files(request).example(name)


@asynccontextmanager
async def _place(request: Request, places: Places) -> AsyncIterator[None]:
    """A place for an upload before it is read, or 429; what comes then is thrown away."""
    length = request.headers.get("Content-Length", "")
    size = int(length) if length.isdecimal() else _server(request).settings.max_bytes
    with ExitStack() as taken:
        try:
            taken.enter_context(places.take(size))
        except Busy as busy:
            with suppress(TimeoutError, ClientDisconnect):
                async with asyncio.timeout(_DRAIN_SECONDS):
                    async for _ in request.stream():
                        pass  # else the client, which still sends, would not see the answer
            raise too_busy(busy.retry_after) from None
        yield


class _InMemory(MultiPartParser):
    """Keeps what is uploaded off the disk."""

    spool_max_size = 1 << 40


async def _upload(request: Request) -> tuple[str, bytes]:
    """The one file of a request: what the client calls it, and its content."""
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
    """What a client calls a file, without folders and what cannot be printed."""
    last = name.replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in last if sign.isprintable())[:_LONGEST_NAME] or "image"


async def _unless_gone(request: Request, work: Awaitable[_T], seconds: float) -> _T:
    """The outcome of a request's work, which ends with its time or when the client is gone."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_disconnect(request.receive))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise Refused(499, "client_gone", "the client closed the connection")
        raise Refused(504, "too_slow", f"no answer within {seconds:g} seconds; try again")
    finally:
        task.cancel()
        gone.cancel()


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _not_now(server: Server) -> Refused:
    message = f"the server is {server.status}; try again"
    return Refused(503, server.status, message, {"Retry-After": "5"})


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)  # noqa: S101
    return _error_of(error)


def _error_of(refused: Refused) -> Response:
    return JSONResponse(refused.body, refused.status, headers=refused.headers or None)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    code, message = {
        404: ("not_found", "there is nothing here"),
        405: ("method_not_allowed", "this path takes another method"),
    }.get(error.status_code, ("refused", str(error.detail)))
    return _error_of(Refused(error.status_code, code, message, error.headers))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    first = error.errors()[0]
    place = " ".join(map(str, first["loc"]))
    return _error_of(Refused(400, "bad_input", f"{place}: {first['msg']}"))


class _RequestLog:
    """Gives each request an id, counts it, and logs id, route, status and seconds alone."""

    def __init__(self, app: ASGIApp, server: Server) -> None:
        self._app, self._server = app, server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["cxr_request_id"] = secrets.token_hex(6)
        start, status = time.monotonic(), 500
        begun = False

        async def noting(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = with_security_headers(message["headers"])
                message["headers"].append((b"x-request-id", request_id.encode()))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except asyncio.CancelledError:  # the server ends, and waits no longer
            if not begun:
                await _error_of(_not_now(self._server))(scope, receive, noting)
        except Exception as error:  # noqa: BLE001 - its text may quote a header
            _LOG.error("%s failed: %s", request_id, _where(error))
            if not begun:
                words = f"something went wrong; the log names it as {request_id}"
                await _error_of(Refused(500, "internal", words))(scope, receive, noting)
        seconds = time.monotonic() - start
        route = getattr(scope.get("route"), "path", "none")
        self._server.metrics.count(route, status, seconds)
        _LOG.info("%s %s %s %d %.3f s", request_id, scope["method"], route, status, seconds)


def _where(error: BaseException) -> str:
    """The kind of an error and the lines it came from, without its text."""
    places: list[str] = []
    trace: Any = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        places.append(f"{Path(code.co_filename).name}:{trace.tb_lineno}")
        trace = trace.tb_next
    return f"{type(error).__name__} at {' '.join(places[-6:])}"
