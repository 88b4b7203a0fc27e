"""Configurations for people: the shipped ones in a line each, and one in full with its comments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import tomli_w
from pydantic import BaseModel

from configs.load import (
    CONFIG_CLASSES,
    find_config,
    read_config,
    read_zoo,
    shipped_configs,
    shipped_zoos,
)
from configs.settings import ClassifierConfig, DetectorConfig

_SECTIONS = ("data", "model", "augmentation", "training")
_FOR = "# For: "  # the line of a shipped file that says which machine and purpose it suits


class Summary(NamedTuple):
    """A shipped configuration in short; of a list of models, what they share.

    Attributes:
        name: As ``cxr train`` takes it.
        kind: detector, classifier, or zoo: a list of classifiers.
        network: The network, or how many.
        image_size: px, a side.
        epochs: At most.
        weights: What it starts from.
        suits: The machine and the purpose.
    """

    name: str
    kind: str
    network: str
    image_size: int
    epochs: int
    weights: str
    suits: str


def summaries() -> list[Summary]:
    """Every shipped configuration, detectors first and lists of models last.

    Example:
        >>> [each.network for each in summaries() if each.name == "retinanet"]
        ['resnet50']
    """
    found = [_summary(name, [read_config(find_config(name))]) for name in shipped_configs()]
    zoos = [_summary(name, read_zoo(find_config(name))) for name in shipped_zoos()]
    return [*sorted(found, key=lambda each: each.kind, reverse=True), *zoos]


def _summary(name: str, configs: Sequence[DetectorConfig | ClassifierConfig]) -> Summary:
    first = configs[0]
    networks = [_network(config) for config in configs]
    lines = find_config(name).read_text(encoding="utf-8").splitlines()
    return Summary(
        name,
        "zoo" if configs[1:] else first.kind,
        f"{len(networks)} networks" if configs[1:] else networks[0],
        first.data.image_size,
        first.training.epochs,
        first.model.weights,
        next(line.removeprefix(_FOR) for line in lines if line.startswith(_FOR)),
    )


def _network(config: DetectorConfig | ClassifierConfig) -> str:
    if isinstance(config, DetectorConfig):
        return config.model.backbone
    return config.model.architecture


class Key(NamedTuple):
    """A key of a configuration.

    Attributes:
        section: Its table.
        name: Within the table.
        values: Which it may have, in words.
        default: As TOML writes it; None where it has to be given.
        description: What it does.
    """

    section: str
    name: str
    values: str
    default: str | None
    description: str


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
        return " or ".join(_values(each) for each in key["anyOf"] if each.get("type") != "null")
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
    "zoo": "a list of classifiers, each trained into a folder of its own",
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
    lines = [*_head(config.kind), _line("name", config.name, _name_comment(config)), ""]
    return "\n".join([*lines, *_tables(config.kind, content, set())]) + "\n"


def annotated_zoo(configs: Sequence[ClassifierConfig]) -> str:
    """A list of models as TOML: what they share with a comment on each key, then what differs.

    Args:
        configs: From `read_zoo`.

    Returns:
        Text that `read_zoo` reads back as the same models.
    """
    contents = [config.model_dump() for config in configs]
    apart = {
        (key.section, key.name)
        for key in _keys("classifier")
        if any(_at(content, key) != _at(contents[0], key) for content in contents)
    }
    lines = [*_head("zoo"), "", *_tables("classifier", contents[0], apart)]
    for content in contents:
        lines += ["", "[[models]]", _line("name", content["name"])]
        for section, name in sorted(apart):
            if (value := content[section][name]) is not None:
                lines.append(_line(f"{section}.{name}", value))
    return "\n".join(lines) + "\n"


def _head(kind: str) -> list[str]:
    return [_line("kind", kind, _KIND[kind])]


def _name_comment(config: BaseModel) -> str:
    return str(type(config).model_fields["name"].description)


def _tables(kind: str, content: dict[str, Any], without: set[tuple[str, str]]) -> list[str]:
    """The sections' lines, a blank one between them."""
    lines: list[str] = []
    for section in _SECTIONS:
        lines += ["", f"[{section}]"] if lines else [f"[{section}]"]
        lines += [
            _line(key.name, _at(content, key), _comment(key))
            for key in _keys(kind)
            if key.section == section and (section, key.name) not in without
        ]
    return lines


def _at(content: dict[str, Any], key: Key) -> Any:
    return content[key.section][key.name]


def _comment(key: Key) -> str:
    told = "" if key.values in ("", "text", "true, false") else f" ({key.values})"
    return key.description + told


def _line(name: str, value: Any, comment: str = "") -> str:
    """A key as a line of TOML."""
    if value is None:
        return f"# {name} =  # {comment}"
    # One line, also of a list, which tomli_w spreads.
    written = tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
    if isinstance(value, list):
        each = [tomli_w.dumps({"x": item}).removeprefix("x = ").strip() for item in value]
        written = f"[{', '.join(each)}]"
    return f"{name} = {written}" + (f"  # {comment}" if comment else "")
