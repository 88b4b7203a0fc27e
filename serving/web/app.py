"""Routes of ``cxr serve``: the page, and answers for an upload."""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import re
import threading
import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import FormData, Headers, MutableHeaders, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cxr_compare.data_prep.base.errors import InputError, Remedy, as_typed
from cxr_compare.data_prep.images.decoded_image import DecodedImage
from cxr_compare.data_prep.images.image import read_image, starts_like_dicom
from cxr_compare.data_prep.images.refused_files import MAX_PIXELS, TooLargeError
from cxr_compare.evaluation.policies import policy_text
from cxr_compare.evaluation.statistics.intervals import LEVEL
from cxr_compare.serving.answer import RESEARCH_USE, Answer, to_png_bytes
from cxr_compare.serving.run import Run
from cxr_compare.serving.web.schemas import Limits, ModelsAnswer, StateAnswer, SystemFacts

LOG = logging.getLogger("cxr.serve")
_PAGE = Path(__file__).with_name("page")
MEBIBYTE = 1 << 20
_ARRIVING = 64
"""Uploads that arrive, wait or are answered at a time, each in a file."""
_IN_MEMORY = 8
"""Uploads that are read and decoded at a time."""
_LAST_PORT = 65535
_LONGEST_NAME = 120
_STARTS = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
_POLICY = "default-src 'none'; img-src 'self' data: blob:; frame-ancestors 'none'; base-uri 'none'"
_OF_PAGE = f"{_POLICY}; script-src 'self'; style-src 'self'; connect-src 'self'; form-action 'none'"
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_HOST = re.compile(r"[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]")
_OPEN_PATHS = ("/", "/healthz")  # and the files of the page, which asks for the token
_UNAUTHORISED = "send the token of this server: Authorization: Bearer TOKEN"
_CLOSE = {"Connection": "close"}  # what still arrives is not read
_FILE = {"type": "string", "format": "binary", "description": "A chest X-ray."}
_FORM = {"schema": {"type": "object", "required": ["file"], "properties": {"file": _FILE}}}
_UPLOAD = {"requestBody": {"required": True, "content": {"multipart/form-data": _FORM}}}


@dataclass(frozen=True)
class ServeSettings:
    """Address, access and limits of a server.

    Attributes:
        token: What clients must send; needed where others can reach the address.
        allowed_hosts: Further names by which clients call the server.
        max_seconds: Time in which an upload must have arrived.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    allowed_hosts: tuple[str, ...] = ()
    max_bytes: int = 64 * MEBIBYTE
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        """Refuse an address that others can reach without a token, and what does not exist."""
        if not 0 <= self.port <= _LAST_PORT:
            raise InputError(f"port: {self.port} is none; choose one from 0 to {_LAST_PORT}")
        if self.token is None and not _is_loopback(self.host):
            raise InputError(
                f"host: others can reach {self.host}; write a token of 16 characters or more into "
                "a file",
                [Remedy(options={"token": "FILE"})],
            )
        for name in self.allowed_hosts:
            if not _HOST.fullmatch(name):
                option = as_typed({"allowed_host": name})
                raise InputError(
                    f"{option}: is no name; give one such as xray.example, without port"
                )

    @property
    def host_name(self) -> str:
        """The address as it stands in a URL."""
        return f"[{self.host}]" if ":" in self.host else self.host


def _is_loopback(host: str) -> bool:
    """Return True if a host name or IP address can be reached from this machine only."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def build_app(systems: Sequence[Run], settings: ServeSettings) -> FastAPI:
    """Build the application that serves runs."""
    app = FastAPI(
        title="cxr-compare",
        version=metadata.version("cxr-compare"),
        description=RESEARCH_USE,
        docs_url=None,
        redoc_url=None,
    )
    app.state.arriving = asyncio.Semaphore(_ARRIVING)
    app.state.in_memory = asyncio.Semaphore(_IN_MEMORY)
    app.state.lock = threading.Lock()  # one prediction at a time: it uses all processors
    by_name = {system.name: system for system in systems}

    @app.get("/v1/models")
    async def models() -> ModelsAnswer:
        facts = [_facts(system) for system in systems]
        limits = Limits(bytes=settings.max_bytes, pixels=MAX_PIXELS)
        return ModelsAnswer(systems=facts, limits=limits)

    @app.post("/v1/analyze", openapi_extra=_UPLOAD, response_model=list[Answer])
    async def analyze(request: Request) -> JSONResponse:
        """Answer for one image, as ``cxr predict --json`` does."""
        async with _upload(request, app, settings) as (name, content):
            answers = await asyncio.to_thread(_analyze, systems, app.state.lock, name, content)
            return JSONResponse([answer.to_json() for answer in answers])

    @app.post("/v1/overlay", openapi_extra=_UPLOAD, response_class=Response)
    async def overlay(request: Request, system: str | None = None) -> Response:
        """Draw the image and what each system, or one of them, says of it: a PNG file."""
        if system is not None and system not in by_name:
            raise HTTPException(404, "there is no such system; /v1/models lists them")
        chosen = systems if system is None else [by_name[system]]
        async with _upload(request, app, settings) as (name, content):
            answers = await asyncio.to_thread(_analyze, chosen, app.state.lock, name, content)
            drawn = await asyncio.to_thread(to_png_bytes, answers)
        return Response(drawn, media_type="image/png")

    @app.get("/healthz")
    async def healthz() -> StateAnswer:
        return StateAnswer()

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(_PAGE / "index.html")

    app.mount("/page", StaticFiles(directory=_PAGE))
    names = [settings.host_name, "localhost", "127.0.0.1", "[::1]", *settings.allowed_hosts]
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=names, www_redirect=False)
    app.add_middleware(_Gate, token=settings.token)
    return app


class _Gate:
    """Asks for the token, adds headers, and keeps the text of faults out of log and answers."""

    def __init__(self, app: ASGIApp, token: str | None) -> None:
        self.app, self.token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or refuse it."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        has_begun = False

        async def with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                headers.update(_HEADERS)
                headers["Content-Security-Policy"] = _OF_PAGE
            await send(message)

        refusal = None
        try:
            if self._may_pass(scope):
                await self.app(scope, receive, with_headers)
            else:
                asked = {"WWW-Authenticate": 'Bearer realm="cxr"'}
                refusal = JSONResponse({"detail": _UNAUTHORISED}, 401, asked)
        except ClientDisconnect:
            return
        except asyncio.CancelledError:
            refusal = JSONResponse({"detail": "the server is ending"}, 503)
        except Exception as error:  # noqa: BLE001 - its text may quote a header
            frame = traceback.extract_tb(error.__traceback__)[-1]
            LOG.error("fault: %s at %s:%s", type(error).__name__, frame.filename, frame.lineno)
            refusal = JSONResponse({"detail": "a fault of this program; its log says where"}, 500)
        if refusal is not None and not has_begun:
            await refusal(scope, receive, with_headers)

    def _may_pass(self, scope: Scope) -> bool:
        path = scope["path"]
        if self.token is None or path in _OPEN_PATHS or path.startswith("/page/"):
            return True
        headers = Headers(scope=scope)
        scheme, _, given = headers.get("Authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(
            given.encode(), self.token.encode()
        )


def _facts(system: Run) -> SystemFacts:
    point, network, info = system.point, system.network, system.network.info
    auroc = None if system.decision is None else system.decision.auroc
    low, high = (None if auroc is None else auroc.interval_at(LEVEL)) or (None, None)
    return SystemFacts(
        name=system.name,
        kind=network.kind,
        colour=system.mark.colour,
        symbol=system.mark.clip_path,
        finding=system.target.display_name,
        policy=point.policy,
        policy_text=policy_text(point.policy),
        threshold=point.threshold,
        threshold_probability=point.probability(point.threshold),
        undecided_because=point.reason,
        trained_on=[data.name for data in info.training_sets],
        n_train=info.n_train,
        synthetic=info.synthetic,
        validation_auroc=None if auroc is None else auroc.estimate,
        ci_low=low,
        ci_high=high,
        cautions=system.cautions,
    )


def _analyze(
    systems: Sequence[Run], lock: threading.Lock, name: str, content: bytes
) -> list[Answer]:
    with _file_in_memory(content) as path:
        image = _read(path, content)
        try:
            with lock:
                answers = [system.answer(str(path), image) for system in systems]
        except InputError as error:
            raise HTTPException(422, str(error).removeprefix(f"{path}: ")) from None
    return [answer.model_copy(update={"image": name}) for answer in answers]


def _read(path: Path, content: bytes) -> DecodedImage:
    if not (starts_like_dicom(content[:132]) or content.startswith(_STARTS)):
        raise HTTPException(415, "this is no image; give a DICOM, PNG, JPEG or TIFF file")
    try:
        return read_image(path)
    except InputError as error:
        reason = str(error).removeprefix(f"{path}: ").replace(str(path), "the file")
        raise HTTPException(413 if isinstance(error, TooLargeError) else 422, reason) from None


@contextmanager
def _file_in_memory(content: bytes) -> Iterator[Path]:
    """Give an upload a path without writing it to a disk, where the system can."""
    if not hasattr(os, "memfd_create"):
        with TemporaryDirectory() as folder:
            path = Path(folder, "upload")
            path.write_bytes(content)
            yield path
        return
    with os.fdopen(os.memfd_create("upload"), "wb") as file:
        file.write(content)
        file.flush()
        yield Path(f"/proc/self/fd/{file.fileno()}")


@asynccontextmanager
async def _upload(
    request: Request, app: FastAPI, settings: ServeSettings
) -> AsyncIterator[tuple[str, bytes]]:
    """Receive the one file of a request, of bounded size and in bounded time.

    A large one lies in a file without a name, and is read when there is room in memory: however
    slowly it arrives, it keeps no other one waiting.
    """
    if _is_of_another_site(request.headers):
        raise HTTPException(403, "sent by a page of another site; use the page of this server")
    if not request.headers.get("Content-Type", "").lower().startswith("multipart/form-data"):
        raise HTTPException(415, "send the image as the field 'file' of multipart/form-data")
    _require_size(int(request.headers.get("Content-Length", 0)), settings.max_bytes)
    async with app.state.arriving:
        form = await _receive(request, settings)
        try:
            file = form.get("file")
            if not isinstance(file, UploadFile):
                raise HTTPException(400, "send one image as the field 'file'")
            if not file.size:
                raise HTTPException(400, "the file is empty; send an image")
            async with app.state.in_memory:
                yield _name_of(file), await file.read()
        finally:
            await form.close()


def _is_of_another_site(headers: Headers) -> bool:
    """Return True for the page of another site; browsers before 2023 state its origin alone."""
    site = headers.get("Sec-Fetch-Site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("Origin")
    return origin is not None and urlsplit(origin).netloc != headers.get("Host")


def _require_size(size: int, most: int) -> None:
    if size > most:
        reason = f"larger than the limit of {most / MEBIBYTE:,.4g} MiB"
        raise HTTPException(413, reason, _CLOSE)


async def _receive(request: Request, settings: ServeSettings) -> FormData:
    async def bounded() -> AsyncGenerator[bytes]:
        n_bytes = 0
        async for part in request.stream():
            n_bytes += len(part)
            _require_size(n_bytes, settings.max_bytes)
            yield part

    parser = MultiPartParser(request.headers, bounded(), max_files=1, max_fields=0)
    try:
        async with asyncio.timeout(settings.max_seconds):
            return await parser.parse()
    except TimeoutError:
        raise HTTPException(408, "the image arrived too slowly; send it again", _CLOSE) from None
    except MultiPartException as error:
        raise HTTPException(400, f"{error.message}; send one image as 'file'") from None
    except OSError as error:
        LOG.error("an upload cannot be stored while it arrives: %s", error.strerror)
        reason = "the server has no room for the image; its log says why"
        raise HTTPException(507, reason, _CLOSE) from None


def _name_of(file: UploadFile) -> str:
    last = (file.filename or "").replace("\\", "/").rpartition("/")[2]
    return "".join(sign for sign in last if sign.isprintable())[:_LONGEST_NAME] or "image"
