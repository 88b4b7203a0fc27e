"""Options that several verbs have: on what they compute, and where."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

EngineOption = Annotated[
    Literal["local", "ray"],
    typer.Option(
        help="Where the work is done: processes of this machine, or a Ray cluster "
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
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda.")]
DevicesOption = Annotated[
    int, typer.Option(min=1, help="GPUs, or processes on the CPU, that share each batch.")
]
DespiteAuditOption = Annotated[
    bool,
    typer.Option("--despite-audit", help="Go on where the audit found what makes results wrong."),
]
