"""`cxr serve`."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cxr_compare.commands.console import say
from cxr_compare.commands.options import AnyPath, Device, Policy, is_run, open_runs, run_names
from cxr_compare.data_prep.base.errors import InputError, require_extra

_SHORTEST_TOKEN = 16


def serve(
    *runs: Annotated[
        str, Parameter(help="Runs or exports, or a folder of them; NAME=PATH renames.")
    ],
    port: int = 8000,
    host: str = "127.0.0.1",
    token: AnyPath | None = None,
    allowed_host: list[str] | None = None,
    policy: Policy = None,
    device: Device = "auto",
) -> None:
    """Serve runs to browsers and programs: a page, and POST /v1/analyze.

    Args:
        port: Port to listen on; 0 takes a free one.
        host: Address to listen on; others than this machine need a token.
        token: File with the token that clients must send.
        allowed_host: Name by which clients may call this server; may be repeated.
    """
    require_extra("serve", "serve")
    named_runs = run_names(runs)
    if not named_runs:
        raise InputError("serve: give runs of cxr train, exports, or a folder of them")
    for _, path in named_runs:
        if not is_run(path):
            raise InputError(f"serve: {path} is no run of cxr train, and holds none")
    from cxr_compare.serving.web.server import ServeSettings, listen, serve_forever, warm_up

    settings = ServeSettings(
        host=host,
        port=port,
        token=None if token is None else read_token(Path(token)),
        allowed_hosts=tuple(allowed_host or ()),
    )
    with listen(settings) as listening:
        systems = open_runs(named_runs, policy=policy, device=device)
        warm_up(systems)
        for caution in (caution for system in systems for caution in system.cautions):
            say(f"CAUTION: {caution}")
        say(f"Page: http://{settings.host_name}:{listening.getsockname()[1]}/  (Ctrl-C ends it)")
        serve_forever(systems, settings, listening)


def read_token(file: Path) -> str:
    """Read a token from a file that nobody else may read."""
    try:
        mode = file.stat().st_mode
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"token: {file} cannot be read ({type(error).__name__})") from None
    if os.name != "nt" and stat.S_IMODE(mode) & 0o077:
        raise InputError(f"token: others may read {file}; run: chmod 600 {file}")
    if len(text) < _SHORTEST_TOKEN or not text.isascii() or not text.isprintable():
        raise InputError(
            f"token: write {_SHORTEST_TOKEN} or more printable ASCII characters into {file}"
        )
    return text
