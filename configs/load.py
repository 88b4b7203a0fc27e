"""Reading of a configuration: a file, the name of a shipped one, or the name of a network."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from cxr_compare.configs.settings import KINDS, Classifier, Config, SettingsSection, Views
from cxr_compare.data_prep.base.errors import InputError, as_typed, nearest_name
from cxr_compare.data_prep.base.files import read_text_file

_FOLDER = Path(__file__).parent
_OF_NETWORKS = "chexnet"
# VGG diverges at the rate of the others, and no weights of ImageNet are of small_cnn.
_KEYS_OF_NETWORK: dict[str, dict[str, Any]] = {
    "vgg16": {"training.learning_rate": 3e-5},
    "vgg19": {"training.learning_rate": 3e-5},
    "small_cnn": {"model.weights": "none"},
}
Overrides = str | Sequence[str] | Mapping[str, Any] | None
"""A text ``section.key=value``, several, or values by ``section.key``."""


def config_names() -> list[str]:
    """Return the names of the configurations that are shipped."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def read_config(name: str | Path, overrides: Overrides = None) -> Config:
    """Read and check a configuration by its file, its name, or a network for ``chexnet``.

    Raises InputError, one line that names the file or option and the key.

    Examples:
        >>> read_config("chexnet", ["training.epochs=3"]).training.epochs
        3
    """
    texts = [overrides] if isinstance(overrides, str) else overrides or ()
    values = dict(texts) if isinstance(texts, Mapping) else dict(map(_parse, texts))
    path = Path(name)
    if path.suffix != ".toml" and str(name) in config_names():
        path = _FOLDER / f"{name}.toml"
    elif path.suffix != ".toml":
        _require_network(str(name))
        path = _FOLDER / f"{_OF_NETWORKS}.toml"
        values = _keys_of_network(str(name), values)
    return _checked(_parse_toml(read_text_file(path), str(path)), str(path), values)


def parse_config(text: str, source: str) -> Config:
    """Check a configuration that a training has stored; messages begin with `source`."""
    return _checked(_parse_toml(text, source), source, {})


class _Views(SettingsSection):
    views: Views


def require_views(views: Sequence[str]) -> None:
    """Refuse views that a training would not take; messages begin with ``views``."""
    try:
        _Views.model_validate({"views": [*views]})
    except ValidationError as error:
        raise InputError(problem_of_keys(error, ["views"])) from None


def _parse_toml(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # a number of 5,000 digits raises ValueError
        raise InputError(f"{source}: is not TOML: {error}") from None


def dump_config(config: BaseModel) -> str:
    """Return a configuration as TOML with all its values, also those that were left out."""
    content = config.model_dump(exclude_none=True)
    return tomli_w.dumps({"kind": content.pop("kind"), **content})


def explain_config(config: BaseModel) -> str:
    """Return a configuration as TOML, with what each key means as a comment."""
    section = config
    lines = []
    for line in dump_config(config).splitlines():
        if line.startswith("["):
            section = getattr(config, line.strip("[]"))
            left_out = [key for key, value in section if value is None]
            lines += [line, *(f"# {key}: {_meaning(section, key)}" for key in left_out)]
            continue
        key = line.partition(" = ")[0]
        meaning = _meaning(section, key) if key in type(section).model_fields else ""
        lines.append(f"{line}  # {meaning}" if meaning else line)
    return "\n".join(lines)


def _meaning(section: BaseModel, key: str) -> str:
    """Return the meaning of a key, and the values that it takes if they are few."""
    field = type(section).model_fields[key]
    choices = [each for each in get_args(field.annotation) if isinstance(each, str)]
    listed = f"one of {', '.join(choices)}" if 1 < len(choices) < 10 else ""
    return "; ".join(text for text in (field.description, listed) if text)


def first_difference(old: BaseModel, new: BaseModel) -> str | None:
    """Return a phrase about the first key in which two configurations differ; None if equal."""
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    for key in sorted({**before, **after}):
        if before.get(key) != after.get(key):
            return f"{key} was {before.get(key)!r}, is now {after.get(key)!r}"
    return None


def problem_of_keys(error: ValidationError, known_keys: Sequence[str]) -> str:
    """Return the problem of one key in words; an unknown key first, with the nearest known one."""
    errors = error.errors(include_url=False, include_context=False)
    first = min(errors, key=lambda problem: problem["type"] != "extra_forbidden")
    key = _key_of(first)
    section, _, leaf = key.rpartition(".")
    own_loss = "a loss of your own is an argument of cxr_compare.train (docs/own-parts.md)"
    if first["type"] == "extra_forbidden":
        leaves = {name.rpartition(".")[2]: name for name in known_keys}
        if not section:
            leaves |= {name: name for name in (key.partition(".")[0] for key in known_keys)}
        near = difflib.get_close_matches(leaf, leaves, 1)
        siblings = [name for name in known_keys if name.rpartition(".")[0] == section]
        advice = f"did you mean {leaves[near[0]]}?" if near else f"known: {', '.join(siblings)}"
        return f"{key}: unknown key; {own_loss if leaf == 'loss' else advice}"
    if first["type"] == "missing":
        return f"{key}: is missing"
    # A value that may be of two types has a problem with each.
    messages = [problem["msg"] for problem in errors if _key_of(problem) == key]
    plain = [message.removeprefix("Value error, ") for message in messages]
    text = ", or ".join(dict.fromkeys(message[:1].lower() + message[1:] for message in plain))
    value = first["input"]
    given = "" if isinstance(value, dict) else f", got {value!r}"
    return f"{key}: {text}{given}" + (f"; {own_loss}" if leaf == "loss" else "")


def _key_of(error: Any) -> str:
    # The place of a value that may be of two types ends with one of them, such as constrained-int,
    # and that of a member of a list with its number.
    is_no_key = re.compile(r"literal\[.*|constrained-\w+|\d+").fullmatch
    return ".".join(str(part) for part in error["loc"] if not is_no_key(str(part)))


def _require_network(name: str) -> None:
    networks = get_args(Classifier)
    if name not in networks:
        near = nearest_name(name, [*config_names(), *networks], "")
        lists = "cxr configs prints the configurations, and docs/models.md has the networks"
        raise InputError(f"{name}: no configuration or network; {f'{near} {lists}'.strip()}")


def _keys_of_network(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that make the configuration of classifiers one of this network."""
    size = values.get("data.image_size")
    if name == "inception_v3" and isinstance(size, int):
        values["data.image_size"] = max(size, 96)  # it reads no image under 75 px
    return {"name": name, "model.backbone": name, **_KEYS_OF_NETWORK.get(name, {}), **values}


def _parse(text: str) -> tuple[str, Any]:
    key, equals, value = (part.strip() for part in text.partition("="))
    if not equals or not re.fullmatch(r"[\w.]+", key):
        raise InputError(f"{as_typed({'set_': [text]})}: write it as section.key=value")
    try:
        return key, tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        return key, value  # a plain word or a path


def _checked(content: dict[str, Any], source: str, values: Mapping[str, Any]) -> Config:
    for key, value in values.items():
        *sections, leaf = key.split(".")
        table = content
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                given = as_typed({"set_": [key]})
                raise InputError(f"{given}: '{section}' is a value, not a section")
        table[leaf] = value
    kind = content.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise InputError(f"{source}: kind must be one of {', '.join(KINDS)}, got {kind!r}")
    settings = KINDS[kind]
    try:
        return settings.model_validate(content)
    except ValidationError as error:
        problem = problem_of_keys(error, list(_keys(settings)))
    key, _, reason = problem.partition(": ")
    given = as_typed({"set_": [key]})
    raise InputError(f"{given}: {reason}" if key in values else f"{source}: {problem}")


def _keys(model: Any, prefix: str = "") -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            keys += _keys(inner, f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


def _flat(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        is_section = isinstance(value, dict)
        flat |= _flat(value, f"{prefix}{key}.") if is_section else {prefix + key: value}
    return flat
