"""`cxr serve`: serve the reading page and the HTTP interface of runs and exports."""

from __future__ import annotations

import os
import signal
import socket
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cxr_compare.data_prep.contracts.errors import InputError, require_packages
from cxr_compare.scripts import console
from cxr_compare.scripts.options import Backend, Device, Policy, Precision
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runs import (
    Runs,
    open_runs,
    parse_runs,
    read_paths,
    require_backends,
    say_cautions,
)

if TYPE_CHECKING:
    from cxr_compare.serving.web.limits import ServeSettings

_NEEDED = ("fastapi", "uvicorn", "python_multipart")
_GRACE = 3  # seconds that requests under way get when the server ends
_TOKEN_VARIABLE = "CXR_TOKEN"  # noqa: S105 - its name
# Numbers of characters
_SHORTEST_TOKEN = 16
_LONGEST_TOKEN = 4096


@command
def serve(
    runs: Runs,
    *,
    port: Annotated[int, Argument(minimum=0, maximum=65535)] = 8000,
    host: str = "127.0.0.1",
    token: Annotated[AnyPath | None, Argument(metavar="FILE")] = None,
    report: Annotated[AnyPath | None, Argument(folder_kind="report", metavar="FOLDER")] = None,
    allowed_host: Annotated[list[str] | None, Argument(metavar="NAME")] = None,
    strict: bool = False,
    policy: Policy = None,
    backend: Backend = None,
    precision: Precision = None,
    device: Device = "auto",
) -> Outcome:
    """Serve a page and an HTTP interface that predict chest X-rays.

    The predictions are those of cxr predict. No upload is stored. The command prints the address of
    the page. Programs use the paths below /v1, which openapi.json describes. Press Ctrl-C to end
    the server.

    Args:
        runs: Runs (folders of cxr train) or exports (of cxr export), each as PATH or NAME=PATH.
        port: Port to listen on. 0 takes a free one.
        host: Address to listen on. If other machines can reach it, a token is required.
        token: File with the token that clients must send (Authorization: Bearer TOKEN). Other users
            must not be able to read the file. By default the token is in the environment variable
            CXR_TOKEN.
        report: Report folder of cxr compare. The page then shows the figures of the systems on test
            images, and links the report.
        allowed_host: Name by which clients may call the server, beside its address.
        strict: Refuse images with a warning, such as one that is no frontal chest X-ray. Without it
            they are predicted, and the warning is shown in place of a decision.

    Returns:
        The number of the signal that ended the server, once it has ended.

    Raises:
        InputError: The port is in use, other machines could reach it without a token, or a folder
            is wrong.

    Example:
        cxr serve out/retinanet out/chexnet --port 8000

        cxr serve out/chexnet --backend openvino --host 0.0.0.0 --token token.txt
        --allowed-host xray.example
    """
    token = as_path(token)
    report = as_path(report)
    require_packages("serve", "serve", _NEEDED)
    named = parse_runs(read_paths(runs), "cxr serve")
    options = {"policy": policy, "backend": backend, "precision": precision, "device": device}
    require_backends(named, options)
    from cxr_compare.serving.web.limits import ServeSettings
    from cxr_compare.serving.web.server import run_server

    served = ServeSettings(
        host=host,
        port=port,
        token=read_token(token),
        allowed_hosts=tuple(allowed_host or ()),
        strict=strict,
    )
    with _listening(served) as listening:
        loaded = open_runs(named, options)
        page = _address(host, listening.getsockname()[1])

        def say_that_it_serves() -> None:
            say_cautions(loaded)  # now: the report has given its figures
            console.say(page)

        ended_by = run_server(
            loaded,
            served,
            listening,
            report=report,
            grace=_GRACE,
            on_start=say_that_it_serves,
        )
    if console.printed_as() is None:
        return Outcome("Server ended", {"signal": ended_by})
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it has ended: nothing is left to interrupt
    console.say("Server ended")
    sys.exit(128 + ended_by)  # as a shell says it: 130 for Ctrl-C, 143 for SIGTERM


def _address(host: str, port: int) -> str:
    """Return the line that names the page's address, as a browser on this machine opens it."""
    opens = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104
    others = "" if opens == host else "; other machines open it by the name of an --allowed-host"
    shown = f"[{opens}]" if ":" in opens else opens
    return f"Page: http://{shown}:{port}/  (Ctrl-C ends it{others})"


def read_token(file: Path | None) -> str | None:
    """Return the token that clients of the server must send, from a file or from ``CXR_TOKEN``.

    `file` None reads the variable; the result is None if it is not set. Raises InputError if the
    file cannot be read or other users may read it, or the token is shorter than 16 characters, too
    long, or not printable ASCII.
    """
    if file is None:
        token = os.environ.get(_TOKEN_VARIABLE)
        origin = _TOKEN_VARIABLE
        if token is None:
            return None
    else:
        origin = f"--token {file}"
        try:
            with file.open(encoding="utf-8") as opened:
                if os.name != "nt" and stat.S_IMODE(os.fstat(opened.fileno()).st_mode) & 0o077:
                    raise InputError(f"{origin}: others may read it; run: chmod 600 {file}")
                token = opened.read(_LONGEST_TOKEN + 2)  # two more for the line break
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "is not text"
            raise InputError(f"{origin}: {(reason or 'cannot be read').lower()}") from None
    token = token.strip()
    is_of_length = _SHORTEST_TOKEN <= len(token) <= _LONGEST_TOKEN
    if not is_of_length or not token.isascii() or not token.isprintable():
        raise InputError(
            f"{origin}: the token must be {_SHORTEST_TOKEN} or more printable ASCII characters "
            f"on one line, at most {_LONGEST_TOKEN:,}; make one: python -c 'import secrets; "
            "print(secrets.token_urlsafe(32))'"
        )
    return token


def _listening(settings: ServeSettings) -> socket.socket:
    """Open the socket before models are loaded, so that a port in use is reported at once."""
    where = f"serve --host {settings.host} --port {settings.port}"
    try:
        addresses = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = addresses[0]
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
