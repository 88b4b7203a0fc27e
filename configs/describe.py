"""Descriptions of configurations: a short summary, or TOML with a comment on every key."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import tomli_w
from pydantic import BaseModel

from cxr_compare.configs.load import find_config, packaged_configs, read_config
from cxr_compare.configs.settings import Config, ProbeConfig

_SECTIONS = ("data", "model", "augmentation", "training")


_FOR = "# For: "  # begins the line of a packaged file that names its machine and purpose


class ConfigSummary(NamedTuple):
    """A short description of a training configuration that comes with the program.

    `image_size` is the side of the square input, px. `epochs` are the largest number; a dash for a
    probe (a linear layer on frozen features). `weights` are ``none`` for random ones. `suits` is a
    phrase on the machine and purpose for which the configuration was made.
    """

    name: str
    kind: str
    network: str
    image_size: int
    epochs: int | str
    weights: str
    suits: str


def summaries() -> list[ConfigSummary]:
    """Return a summary of every configuration that comes with the program, detectors first."""
    unsorted = [_summary(find_config(name)) for name in packaged_configs()]
    return sorted(unsorted, key=lambda summary: summary.kind, reverse=True)


def _summary(path: Path) -> ConfigSummary:
    config = read_config(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    return ConfigSummary(
        path.stem,
        config.kind,
        str(config.model.backbone),
        config.data.image_size,
        "–" if isinstance(config, ProbeConfig) else config.training.epochs,
        str(config.model.weights),
        next(line.removeprefix(_FOR) for line in lines if line.startswith(_FOR)),
    )


class _Key(NamedTuple):
    """A key of a configuration, as its description shows it."""

    section: str  # its table
    name: str  # name within the table
    values: str  # phrase for the values that it may have
    default: str | None  # as TOML writes it; None if the key has no default
    description: str


def _keys(settings: type[BaseModel]) -> Iterator[_Key]:
    """Yield every key of a configuration, in the order of its sections."""
    schema = settings.model_json_schema()
    for section in _SECTIONS:
        if section not in schema["properties"]:
            continue  # a probe has no augmentation
        table = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
        for name, key in table["properties"].items():
            required = name in table.get("required", ())
            default = None if required else json.dumps(key.get("default")).strip('"')
            yield _Key(section, name, _values(key), default, key.get("description", ""))


def _values(key: dict[str, Any]) -> str:
    """Describe the values that a key may have."""
    if "anyOf" in key:
        return " or ".join(_values(kind) for kind in key["anyOf"] if kind.get("type") != "null")
    if options := key.get("enum", [key["const"]] if "const" in key else None):
        return ", ".join(str(option) for option in options)
    if key.get("type") == "array":
        return f"list of {_values(key['items'])}"
    if key.get("type") in ("number", "integer"):
        bounds = {
            "minimum": "at least",
            "exclusiveMinimum": "above",
            "maximum": "at most",
            "exclusiveMaximum": "below",
            "multipleOf": "a multiple of",
        }
        return ", ".join(
            f"{phrase} {_number(key[bound])}" for bound, phrase in bounds.items() if bound in key
        )
    return {"boolean": "true, false", "string": "text"}.get(key.get("type", ""), "")


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


_KIND_COMMENTS = {"detector": "learns from boxes", "classifier": "learns from image labels"}


def _kind_comment(config: Config) -> str:
    """Return the comment on the kind of a configuration."""
    comment = _KIND_COMMENTS[config.kind]
    return f"{comment}; a probe, of frozen features" if isinstance(config, ProbeConfig) else comment


def annotated(config: Config) -> str:
    """Return a configuration as TOML with every key, including defaults, and a comment on each.

    `read_config` reads the text back as the same configuration. TOML cannot express a key without a
    value, so such a key is commented out.

    Example:
        >>> text = annotated(read_config(find_config("chexnet")))
        >>> next(line for line in text.splitlines() if line.startswith("clip"))
        'clip = 1.0  # largest gradient norm; 0 does not clip (at least 0)'
    """
    content = config.model_dump()
    lines = [
        _line("kind", config.kind, _kind_comment(config)),
        _line("name", config.name, str(type(config).model_fields["name"].description)),
    ]
    for key in _keys(type(config)):
        if f"[{key.section}]" not in lines:
            lines += ["", f"[{key.section}]"]
        limits = "" if key.values in ("", "text", "true, false") else f" ({key.values})"
        value = content[key.section][key.name]
        lines.append(_line(key.name, value, key.description + limits))
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, comment: str) -> str:
    """Write a key as a line of TOML."""
    if value is None:
        return f"# {name} =  # {comment}"
    line = f"{name} = {_toml_value(value)}"
    return f"{line}  # {comment}" if comment else line


def _toml_value(value: Any) -> str:
    """Write a value on one line, also a list, which tomli_w spreads."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
