"""`cxr serve`: the reading page and the HTTP interface, for runs and exports."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.answers import (
    BackendOption,
    PolicyOption,
    PrecisionOption,
    open_runs,
    parse_runs,
    require_packages,
)
from scripts.options import DeviceOption

if TYPE_CHECKING:
    from serving.web.settings import ServeSettings

_NEEDED = ("fastapi", "uvicorn", "python_multipart", "prometheus_client")
_GRACE = 3  # seconds that requests under way get when the server ends
_TOKEN_VARIABLE = "CXR_TOKEN"  # noqa: S105 - its name
_SHORTEST_TOKEN = 16


def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN|EXPORT ...",
            help="Folders that cxr train or cxr export made, each as PATH or NAME=PATH.",
        ),
    ],
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8000,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. Any but this machine's own (127.0.0.1) needs a token."
        ),
    ] = "127.0.0.1",
    *,
    token: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File with the token that clients must send (Authorization: Bearer TOKEN); "
            f"without it the environment's {_TOKEN_VARIABLE}, if set.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="Name by which clients may call the server. May be repeated."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Report of cxr compare: the systems' figures on their test images, and its page.",
        ),
    ] = None,
    examples: Annotated[
        Path | None,
        typer.Option(help="Folder of example images; phantoms come with the program."),
    ] = None,
    policy: PolicyOption = None,
    backend: BackendOption = None,
    precision: PrecisionOption = None,
    device: DeviceOption = "auto",
    max_mib: Annotated[
        int, typer.Option("--max-mib", min=1, max=512, help="Largest upload, MiB.")
    ] = 64,
    max_megapixels: Annotated[
        int, typer.Option(min=1, max=100, help="Largest image, megapixels.")
    ] = 100,
    seconds: Annotated[float, typer.Option(min=0.1, help="Time limit of a request.")] = 30.0,
    queue: Annotated[
        int, typer.Option(min=1, help="Images that may wait; more are refused with 429.")
    ] = 64,
    batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Images at a time; by default what suits back end and size."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that decode uploads.")] = 1,
    rate: Annotated[
        float, typer.Option(min=0.0, help="Requests a second from one client; 0: no limit.")
    ] = 0.0,
) -> None:
    """Serve a page and an HTTP interface that answer for chest X-rays, on this machine.

    The answers are those of cxr predict. Nothing that is uploaded is kept. The page is at the
    address that is shown, the interface under /v1 (openapi.json describes it). Ctrl-C ends it.

    Example: cxr serve out/retinanet out/chexnet --port 8000

    Example: cxr serve out/chexnet/exports/openvino-fp32 --host 0.0.0.0 --token token.txt
    """
    require_packages("serve", _NEEDED)
    given = parse_runs(runs)
    from serving.web.settings import MEBIBYTE, ServeSettings

    settings = ServeSettings(
        host=host,
        port=port,
        token=_read_token(token),
        allowed_hosts=tuple(allow_host or ()),
        max_bytes=max_mib * MEBIBYTE,
        max_pixels=max_megapixels * 1_000_000,
        seconds=seconds,
        queue=queue,
        batch=batch_size or 1,
        workers=workers,
        rate=rate,
        examples=_folder(examples, "--examples"),
    )
    if not settings.is_loopback and settings.token is None:
        raise InputError(
            f"serve --host {host}: others can reach that address, so a token is required; write "
            f"one of {_SHORTEST_TOKEN} signs or more into a file and give it as --token FILE"
        )
    if report is not None:
        from data_prep.store.folder_kinds import require_kind

        require_kind(report, "report")
    with _listening(settings) as listening:
        options = {
            "policy": policy, "backend": backend, "precision": precision, "device": device,
        }  # fmt: skip
        loaded = open_runs(given, options)
        if batch_size is None:
            from dataclasses import replace

            settings = replace(settings, batch=min(run.model.batch_size for run in loaded))
        from serving.web.server import run_server

        shown = f"[{host}]" if ":" in host else host
        page = f"Page: http://{shown}:{listening.getsockname()[1]}/  (Ctrl-C ends it)"
        ended_by = run_server(
            loaded, settings, listening, report=report, grace=_GRACE,
            on_start=lambda: console.say(page),
        )  # fmt: skip
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended: nothing is left to interrupt
    console.say("Server ended")
    sys.exit(128 + ended_by)  # as a shell says it: 130 for Ctrl-C, 143 for SIGTERM


def _read_token(file: Path | None) -> str | None:
    """The token, of the file or the environment."""
    if file is None:
        token, origin = os.environ.get(_TOKEN_VARIABLE), _TOKEN_VARIABLE
        if token is None:
            return None
    else:
        origin = f"--token {file}"
        try:
            token = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise InputError(f"{origin}: {(reason or 'cannot be read').lower()}") from None
    token = token.strip()
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise InputError(
            f"{origin}: the token must be {_SHORTEST_TOKEN} or more printable ASCII signs on one "
            "line; make one: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
        )
    return token


def _folder(path: Path | None, option: str) -> Path | None:
    if path is not None and not path.is_dir():
        raise InputError(f"{option} {path}: is not a folder")
    return path


def _listening(settings: ServeSettings) -> socket.socket:
    """The socket, taken before models are loaded: a port in use is said at once."""
    where = f"serve --host {settings.host} --port {settings.port}"
    try:
        found = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listening = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"{where}: {(error.strerror or str(error)).lower()}") from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        listening.close()
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"{where}: {reason}; choose another with --port") from None
    return listening
