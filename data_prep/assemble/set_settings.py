"""What a data set was made with, to know it again and to see that its source has changed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.contracts.pseudonyms import key_id
from data_prep.contracts.tables import frame_digest
from data_prep.formats.source import ReadOptions, SourceTables


def source_id(tables: SourceTables) -> str:
    """Digest all that a reader found."""
    frames = [
        tables.images,
        tables.findings,
        tables.boxes,
        tables.split,
        tables.excluded,
        tables.official,
    ]
    parts = [frame_digest(frame.astype("str"), frame.columns) for frame in frames]
    return frame_digest(pd.DataFrame({"part": parts}), ["part"])


def user_choices(
    options: ReadOptions,
    targets: Mapping[str, Sequence[str]],
    split: str | Path | None,
    window: str | None,
    key: bytes | None,
) -> dict[str, Any]:
    """What the user asked for beyond the defaults.

    Returns:
        JSON-ready; the key itself is not in it, only its `key_id`.

    Example:
        >>> user_choices(ReadOptions(class_names=("mass",)), {}, None, "LUNG", None)
        {'class_names': ['mass'], 'window': 'LUNG'}
    """
    told = {f.name: getattr(options, f.name) for f in fields(options)}
    extras: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else str(value)
        for name, value in told.items()
        if value != getattr(ReadOptions(), name)
    }
    if targets:
        extras["targets"] = {name: list(members) for name, members in targets.items()}
    if split is not None:
        extras["split"] = str(split)
    if window is not None:
        extras["window"] = window
    if key is not None:
        extras["id_key"] = key_id(key)
    return extras
