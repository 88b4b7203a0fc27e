"""Configurations for people: the shipped ones in a line each, and one in full with its comments."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import tomli_w

from configs.load import (
    CONFIG_CLASSES,
    find_config,
    read_config,
    shipped_configs,
)
from configs.settings import ClassifierConfig, DetectorConfig

_SECTIONS = ("data", "model", "augmentation", "training")
_FOR = "# For: "  # the line of a shipped file that says which machine and purpose it suits


class _ConfigSummary(NamedTuple):
    """A shipped configuration in short."""

    name: str  # as ``cxr train`` takes it
    kind: str  # detector or classifier
    network: str
    image_size: int  # px, a side
    epochs: int  # at most
    weights: str  # what it starts from
    suits: str  # the machine and the purpose


def summaries() -> list[_ConfigSummary]:
    """Every shipped configuration, detectors first.

    Example:
        >>> [summary.network for summary in summaries() if summary.name == "retinanet"]
        ['resnet50']
    """
    found = [_summary(find_config(name)) for name in shipped_configs()]
    return sorted(found, key=lambda summary: summary.kind, reverse=True)


def _summary(path: Path) -> _ConfigSummary:
    config = read_config(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    return _ConfigSummary(
        path.stem,
        config.kind,
        config.model.network,
        config.data.image_size,
        config.training.epochs,
        config.model.weights,
        next(line.removeprefix(_FOR) for line in lines if line.startswith(_FOR)),
    )


class Key(NamedTuple):
    """A key of a configuration."""

    section: str  # its table
    name: str  # within the table
    values: str  # which it may have, in words
    default: str | None  # as TOML writes it; None where it has to be given
    description: str  # what it does


def _keys(kind: str) -> Iterator[Key]:
    """Every key of a kind of model, in the order of its sections."""
    schema = CONFIG_CLASSES[kind].model_json_schema()
    for section in _SECTIONS:
        table = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
        for name, key in table["properties"].items():
            required = name in table.get("required", ())
            default = None if required else json.dumps(key.get("default")).strip('"')
            yield Key(section, name, _values(key), default, key.get("description", ""))


def key_table(kind: Literal["detector", "classifier"]) -> str:
    """Every key of a configuration as a table in Markdown, which the documents hold.

    Example:
        >>> [line for line in key_table("detector").splitlines() if "`training.clip`" in line]
        ['| `training.clip` | at least 0 | 0.0 | largest gradient norm; 0 does not clip |']
    """
    lines = ["| key | values | default | what it does |", "|---|---|---|---|"]
    for key in _keys(kind):
        default = "required" if key.default is None else key.default
        cells = (f"`{key.section}.{key.name}`", key.values, default, key.description)
        lines.append(f"| {' | '.join(cells).replace('null', 'none')} |")
    return "\n".join(lines) + "\n"


def _values(key: dict[str, Any]) -> str:
    """The values that a key may have, in words."""
    if "anyOf" in key:
        return " or ".join(_values(kind) for kind in key["anyOf"] if kind.get("type") != "null")
    if options := key.get("enum", [key["const"]] if "const" in key else None):
        return ", ".join(str(option) for option in options)
    if key.get("type") == "array":
        return f"list of {_values(key['items'])}"
    if key.get("type") in ("number", "integer"):
        bounds = (
            ("minimum", "at least"), ("exclusiveMinimum", "above"), ("maximum", "at most"),
            ("exclusiveMaximum", "below"), ("multipleOf", "a multiple of"),
        )  # fmt: skip
        return ", ".join(f"{word} {_number(key[bound])}" for bound, word in bounds if bound in key)
    return {"boolean": "true, false", "string": "text"}.get(key.get("type", ""), "")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


_KIND = {
    "detector": "learns from boxes",
    "classifier": "learns from image labels",
}


def annotated(config: DetectorConfig | ClassifierConfig) -> str:
    """A configuration as TOML with every key, defaults included, and a comment on each.

    Args:
        config: From `read_config`.

    Returns:
        Text that `read_config` reads back as the same configuration; a key without a value, for
        which TOML has no word, is commented out.

    Example:
        >>> text = annotated(read_config(find_config("chexnet")))
        >>> next(line for line in text.splitlines() if line.startswith("clip"))
        'clip = 1.0  # largest gradient norm; 0 does not clip (at least 0)'
    """
    content = config.model_dump()
    lines = [
        _line("kind", config.kind, _KIND[config.kind]),
        _line("name", config.name, str(type(config).model_fields["name"].description)),
    ]
    for key in _keys(config.kind):
        if f"[{key.section}]" not in lines:
            lines += ["", f"[{key.section}]"]
        limits = "" if key.values in ("", "text", "true, false") else f" ({key.values})"
        value = content[key.section][key.name]
        lines.append(_line(key.name, value, key.description + limits))
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, comment: str = "") -> str:
    """A key as a line of TOML."""
    if value is None:
        return f"# {name} =  # {comment}"
    # One line, also of a list, which tomli_w spreads.
    written = tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
    if isinstance(value, list):
        items = [tomli_w.dumps({"x": item}).removeprefix("x = ").strip() for item in value]
        written = f"[{', '.join(items)}]"
    return f"{name} = {written}" + (f"  # {comment}" if comment else "")
