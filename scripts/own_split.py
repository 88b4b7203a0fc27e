"""Which split a verb works on where none is named."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.contracts.errors import InputError

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet

_USUAL = "default"


def own_split(split: str | None, sources: Iterable[Path], dataset: DataSet) -> str:
    """Name the split to work on.

    A model that learned on one split and is judged on another has often learned from the images
    that it is judged on, so the default is never another split than its own.
    """
    if split is not None:
        return split
    found = {source: _split_of(source, dataset) for source in sources}
    names = sorted(set(found.values()))
    if len(names) > 1:
        each = ", ".join(f"{source} '{name}'" for source, name in found.items())
        raise InputError(f"made on different splits: {each}; choose one with --split")
    return names[0] if names else _USUAL


def _split_of(source: Path, dataset: DataSet) -> str:
    from data_prep.contracts.json_files import read_json

    for name in ("predictions", "run", "export"):
        if (source / f"{name}.json").is_file():
            facts = read_json(source / f"{name}.json", name)
            made_on = (facts["run"] if name == "export" else facts).get("data_set") or {}
            here = made_on.get("content_id") == dataset.ids["content_id"]
            known = made_on.get("split") in dataset.ids["split_ids"]
            return str(made_on["split"]) if here and known else _USUAL
    return _USUAL  # opening it reports what is wrong with it
