"""Options of the verbs whose work on images other machines can share: prepare, check, predict."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        help="Where images are worked on: processes of this machine, or a Ray cluster "
        "(cxr-compare[cluster]; docs/scale.md)."
    ),
]
AddressOption = Annotated[
    str | None,
    typer.Option(
        help="Ray cluster to join: auto or HOST:PORT; if left out, one is started on this machine "
        "and ended."
    ),
]
