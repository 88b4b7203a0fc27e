"""`cxr configs`: the configurations that come with the program, and one in full."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scripts import console

if TYPE_CHECKING:
    from configs.describe import Summary


def config_names() -> list[str]:
    """Names of the shipped configurations, for the shell to complete; reads no file."""
    import configs

    return sorted(path.stem for path in Path(configs.__path__[0]).glob("*.toml"))


def configs(
    name: Annotated[
        str | None,
        typer.Argument(
            help="Show this one in full: a name from the list, a TOML file, or a run folder.",
            autocompletion=config_names,
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Replace a key of it, such as training.epochs=20."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for a program.")] = False,
) -> None:
    """List the configurations for cxr train, or show one in full with a comment on each key.

    What is shown in full is TOML that cxr train takes: save it with > mine.toml, edit it, and
    give the file.

    Example: cxr configs

    Example: cxr configs retinanet_small
    """
    from data_prep.contracts.errors import InputError

    if name is None:
        if set_:
            raise InputError("configs: --set changes one configuration; say which")
        _list(as_json)
        return
    text = read_text(name, set_ or [])
    if as_json:
        import tomllib

        console.emit_json(tomllib.loads(text))
    else:
        console.emit(text.rstrip())
    given = "".join(f" --set {each}" for each in set_ or [])
    if not Path(name).exists():
        console.next_step(f"cxr train {name}{given} --data DATA --out RUN")


def read_text(name: str, overrides: list[str]) -> str:
    """A configuration in full, from its name, its file, or the run that it trained."""
    from configs.describe import annotated
    from configs.load import find_config, read_config

    of_run = Path(name) / "config.toml"
    return annotated(read_config(of_run if of_run.is_file() else find_config(name), overrides))


def _list(as_json: bool) -> None:
    from configs.describe import summaries

    found = summaries()
    if as_json:
        console.emit_json([each._asdict() for each in found])
        return
    for line in _table(found):
        console.emit(line)
    console.next_step("cxr configs NAME shows one in full, cxr train NAME trains it")


def _table(found: list[Summary]) -> list[str]:
    heads = ("name", "kind", "network", "px", "epochs", "weights", "for")
    rows = [heads, *(tuple(map(str, each)) for each in found)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(heads))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
