"""`cxr configs`: list the shipped training configurations, or print one."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Annotated

from cxr_compare.configs.describe import annotated, summaries
from cxr_compare.configs.load import find_config, read_config
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.options import Settings, config_names, settings_words
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import Argument
from cxr_compare.scripts.runner import command


@command
def list_configs(
    name: Annotated[str | None, Argument(completions=config_names)] = None, *, set_: Settings = None
) -> Outcome:
    """List the configurations for cxr train, or show one in full.

    A configuration is shown as TOML with a comment on each key. To change it, save it with
    > mine.toml, edit the file, and give the file to cxr train.

    Args:
        name: Configuration to show in full: a name from the list, a TOML file, or a run folder.
        set_: Replace a key of the configuration before it is shown, such as training.epochs=20.

    Returns:
        The list of configurations, or one configuration; `str` of the latter is TOML.

    Raises:
        InputError: There is no such configuration, or one of its keys is wrong.

    Example:
        cxr configs

        cxr configs retinanet_small --set training.epochs=20
    """
    if name is None:
        if set_:
            raise InputError("configs: --set changes one configuration; say which")

        rows = [summary._asdict() for summary in summaries()]
        step = "cxr configs NAME shows one in full, cxr train NAME trains it"
        return Outcome(_table(rows), rows, next_steps=(step,), piped=True)

    of_run = Path(name) / "config.toml"
    config = read_config(of_run if of_run.is_file() else find_config(name), set_ or ())
    text = annotated(config)
    changed = [word for text in settings_words(set_ or ()) for word in ("--set", text)]
    step = f"{shlex.join(['cxr', 'train', name, *changed])} --data DATA --out RUN"
    steps = () if Path(name).exists() else (step,)
    return Outcome(text.rstrip(), tomllib.loads(text), next_steps=steps, piped=True)


def _table(rows: list[dict[str, object]]) -> str:
    heads = ("name", "kind", "network", "px", "epochs", "weights", "for")
    cells = [heads, *(tuple(map(str, row.values())) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(heads))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    )
