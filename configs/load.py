"""Configurations and protocols in TOML, read and described; an error is one line."""

from __future__ import annotations

import difflib
import hashlib
import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args

import tomli_w
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from cxr_compare.configs.settings import KINDS, Config, Section, config_class
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_files import parse_toml, read_toml_file

_FOLDER = Path(__file__).parent


def _shipped_configs() -> list[str]:
    """Names of the configurations that come with the program."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_config(name: str) -> Path:
    """A configuration's file: a path, or the name of one that comes with the program.

    Raises:
        InputError: Neither.

    Example:
        >>> find_config("chexnet").name
        'chexnet.toml'
    """
    if Path(name).is_file():
        return Path(name)
    names = _shipped_configs()
    if name in names:
        return _FOLDER / f"{name}.toml"
    near = difflib.get_close_matches(name, names, n=1)
    meant = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(
        f"{name}: no such file, and no configuration of that name; there are "
        f"{', '.join(names)} ('cxr configs' describes them){meant}"
    )


def read_config(path: Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read and check a configuration in TOML, and complete it with defaults.

    Args:
        path: Its file.
        overrides: What replaces the file's values, by ``section.key``; or texts
            ``section.key=value``, values as in TOML, plain words without quotes.

    Raises:
        InputError: The file cannot be read, a key is unknown (names the nearest) or missing, or
            a value has the wrong type or lies outside its range.

    Example:
        >>> read_config(find_config("chexnet"), ["training.epochs=3"]).training.epochs
        3
    """
    content = read_toml_file(path)
    values = overrides if isinstance(overrides, Mapping) else dict(map(_parsed, overrides))
    replace_keys(content, values, "--set {}")
    return _check(content, str(path), set(values))


def parse_config(text: str, place: str) -> Config:
    """Check a configuration's TOML, as a run folder holds it, also one of an older version.

    Raises:
        InputError: As `read_config`; it names the place.
    """
    content = parse_toml(text, place)
    _renew(content)
    return _check(content, place, set())


def _renew(content: dict[str, Any]) -> None:
    """Rename the keys that runs of before November 2026 have, and leave out what is no more."""
    model, training = (content.get(section) for section in ("model", "training"))
    if not isinstance(model, dict) or not isinstance(training, dict):
        return  # a damaged one, of which the check says what is wrong
    if content.get("kind") == "classifier" and "architecture" in model:
        model["backbone"] = model.pop("architecture")
    if (layers := model.pop("trainable_layers", None)) is not None:
        model["trainable"] = "all" if layers == 5 else layers
    for key in ("hard_negatives", "mixup"):
        training.pop(key, None)


def dump_config(config: BaseModel) -> str:
    """Write a configuration as TOML, defaults included, so that it holds all that was used."""
    content = config.model_dump(exclude_none=True)  # TOML has no such value
    return tomli_w.dumps({"kind": content.pop("kind"), **content})


def first_difference(old: BaseModel, new: BaseModel) -> str | None:
    """The first key in which two configurations differ, with both values.

    Example:
        >>> old = read_config(find_config("chexnet"), ["training.seed=1"])
        >>> first_difference(old, read_config(find_config("chexnet"), ["training.seed=2"]))
        'training.seed was 1, is now 2'
    """
    before, after = _flat(old.model_dump()), _flat(new.model_dump())
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            return f"{key} was {before.get(key)!r}, is now {after.get(key)!r}"
    return None


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        flat |= (
            _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        )
    return flat


def replace_keys(content: dict[str, Any], values: Mapping[str, Any], place: str) -> None:
    """Replace values of a configuration's content, by ``section.key``.

    Another architecture gives the configuration its name, and keys that it does not have are left
    out before. `content` is changed in place; errors name the place, with ``{}`` for the key.
    """
    key, model = "model.architecture", content.get("model")
    if key in values and content.get("kind") == "detector" and isinstance(model, dict):
        architecture, before = str(values[key]), model.get("architecture", "retinanet")
        config = _config_class("detector", architecture, place.replace("{}", key))
        settings: Any = config.model_fields["model"].annotation
        content["model"] = {k: v for k, v in model.items() if k in settings.model_fields}
        if architecture != before:
            content["name"] = architecture  # else a report would call it what it is not
    for key, value in values.items():
        *sections, leaf = key.split(".")
        table = content
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                given = place.replace("{}", key)
                raise InputError(f"{given}: '{section}' is a value, not a section")
        table[leaf] = value


def _parsed(override: str) -> tuple[str, Any]:
    """Key and value of ``section.key=value``."""
    key, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not re.fullmatch(r"[\w.]+", key):
        raise InputError(f"--set {override}: write it as section.key=value")
    return key, _parse_value(text, override)


def _parse_value(text: str, override: str) -> Any:
    if "\n" not in text:
        try:
            return tomllib.loads(f"value = {text}")["value"]
        except (ValueError, RecursionError):
            if re.fullmatch(r"[\w ./~:+-]+", text):
                return text  # a plain word or a path, which a shell would strip of its quotes
    raise InputError(f"--set {override}: the value is not TOML; quote texts: key='\"text\"'")


def _check(content: dict[str, Any], path: str, overridden: set[str]) -> Any:
    kind, model = content.get("kind"), content.get("model")
    if kind not in KINDS:
        place = "--set kind: on " * ("kind" in overridden) + path
        kinds = ", ".join(f'"{known}"' for known in KINDS)
        raise InputError(f"{place}: kind must be one of {kinds}, got {kind!r}")
    keys_of_model = model if isinstance(model, dict) else {}
    architecture = str(keys_of_model.get("architecture", "retinanet"))
    settings = _config_class(kind, architecture, f"{path}: model.architecture")
    try:
        return settings.model_validate(content)
    except ValidationError as error:
        key, first = _first(error)
    place = f"--set {key}" if key in overridden else f"{path}: {key}"
    if first["type"] == "value_error":  # a rule of ours, maybe over several keys, which it names
        rule = first["msg"].removeprefix("Value error, ")
        named = set(re.findall(r"\w+", rule))
        inside = sorted(o for o in overridden if o.startswith(f"{key}.".lstrip(".")))
        if given := [f"--set {o}" for o in inside if o.rpartition(".")[2] in named]:
            place = f"{' '.join(given)}: on {path}"
        raise InputError(f"{place.removesuffix(': ')}: {rule}")
    raise InputError(f"{place}: {_problem(first, key, settings)}")


def _config_class(kind: str, architecture: str, place: str) -> Any:
    try:
        return config_class(kind, architecture)
    except ValueError as error:
        raise InputError(f"{place}: {error}") from None


def _first(error: ValidationError) -> tuple[str, Mapping[str, Any]]:
    """The key and error to report: an unknown key first, which often explains a missing one."""
    errors = error.errors(include_url=False, include_context=False)
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    return ".".join(map(str, first["loc"])), first


def _problem(error: Mapping[str, Any], key: str, model: type[BaseModel]) -> str:
    """What pydantic says of a key, in one line."""
    if error["type"] == "extra_forbidden":
        return f"unknown key{_suggestion(key, _known_keys(model))}"
    if error["type"] == "missing":
        return "is missing; add it"
    message = error["msg"]
    return f"{message[:1].lower()}{message[1:]}, got {error['input']!r}"


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every key of a model with its sections, as ``section.key``."""
    keys = []
    for name, field in model.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        sections = [t for t in kinds if isinstance(t, type) and issubclass(t, BaseModel)]
        keys += _known_keys(sections[0], f"{prefix}{name}.") if sections else [prefix + name]
    return keys


# How other programs, and people in a hurry, call our keys.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    "training.learning_rate": ("lr", "lr0", "rate", "max_lr", "base_lr"),
    "training.batch_size": ("bs", "batch", "batchsize", "train_batch_size", "images_per_batch"),
    "training.epochs": ("epoch", "n_epochs", "num_epochs", "max_epochs", "ep"),
    "training.weight_decay": ("wd", "decay", "l2"),
    "training.optimiser": ("optimizer", "optim", "opt"),
    "training.schedule": ("scheduler", "lr_schedule", "lr_scheduler", "sched"),
    "training.warmup_epochs": ("warmup",),
    "training.workers": ("num_workers", "n_workers", "threads"),
    "training.precision": ("amp", "dtype", "half", "fp16", "bf16"),
    "training.patience": ("early_stopping", "early_stop"),
    "training.clip": ("clip_grad", "grad_clip", "gradient_clip_val", "max_norm"),
    "training.accumulate": ("grad_accum", "accumulate_grad_batches"),
    "training.ema_decay": ("ema",),
    "training.monitor": ("metric", "best_by", "save_best"),
    "training.loggers": ("logger", "log", "tensorboard", "wandb", "mlflow"),
    "training.positive_weight": ("pos_weight", "class_weight"),
    "data.image_size": ("size", "imgsz", "img_size", "resolution", "px", "input_size"),
    "data.target": ("label", "class", "finding"),
    "data.split": ("fold",),
    "model.backbone": ("network", "arch", "architecture", "encoder"),
    "model.trainable": ("trainable_layers", "trainable_backbone_layers", "freeze", "unfreeze"),
    "model.weights": ("pretrained", "checkpoint", "ckpt", "init"),
    "augmentation.rotate_degrees": ("rotate", "rotation", "degrees"),
    "augmentation.horizontal_flip": ("flip", "hflip", "fliplr", "mirror"),
}


def _suggestion(key: str, known: list[str]) -> str:
    """The key that is meant: by another name of it, else the nearest, its own section first."""
    section, _, leaf = key.rpartition(".")
    if meant := [k for k in known if leaf.lower() in _SYNONYMS.get(k, ())]:
        return f"; did you mean '{meant[0]}'?"
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    elsewhere = {k.rpartition(".")[2]: k for k in known}
    if found := difflib.get_close_matches(key, siblings, n=1, cutoff=0.7):
        return f"; did you mean '{found[0]}'?"
    if found := difflib.get_close_matches(leaf, elsewhere, n=1, cutoff=0.7):
        return f"; did you mean '{elsewhere[found[0]]}'?"
    return f"; known here: {', '.join(siblings or known)}"


Name = Annotated[str, Field(min_length=1)]
# One name stands for a list of one.
_Names = Annotated[list[Name], BeforeValidator(lambda x: [x] if isinstance(x, str) else x)]


class _GoalFile(Section):
    """The keys of a goal."""

    metric: Literal["sensitivity", "specificity"] = Field(description="What must reach it.")
    at_least: float = Field(gt=0, lt=1, description="What its exact interval must lie above.")


class _ProtocolFile(Section):
    """The keys of a protocol."""

    target: Name = Field(description="What is evaluated.")
    metric: _Names = Field(
        default=["auroc"],
        min_length=1,
        max_length=2,
        description="The primary figure, by its short name, or both halves of an operating point.",
    )
    policy: str = Field(default="", description="Threshold policy of that figure; empty: none.")
    margin: float | None = Field(
        default=None, gt=0, lt=1, description="Of non-inferiority and equivalence."
    )
    subgroups: list[Name] = Field(default=[], description="Columns whose groups are reported.")
    reference: Name | None = Field(default=None, description="Reference system; None: the first.")
    unit: Literal["image", "study", "patient"] | None = Field(
        default=None, description="What the answer is for; None: images, --unit shows others too."
    )
    goal: list[_GoalFile] = Field(
        default=[], max_length=2, description="What each system must reach, all of them together."
    )


def read_protocol(path: Path) -> tuple[_ProtocolFile, str]:
    """Read and check a protocol; with it, the SHA-256 of its file.

    Raises:
        InputError: The file cannot be read, a key is unknown (names the nearest) or missing, or
            a value has the wrong type or lies outside its range.
    """
    keys = read_toml_file(path)
    try:
        return _ProtocolFile(**keys), hashlib.sha256(path.read_bytes()).hexdigest()
    except ValidationError as error:
        key, first = _first(error)
    raise InputError(f"{path}: {key}: {_problem(first, key, _ProtocolFile)}")


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
    found = [_summary(find_config(name)) for name in _shipped_configs()]
    return sorted(found, key=lambda summary: summary.kind, reverse=True)


def _summary(path: Path) -> _ConfigSummary:
    config = read_config(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    return _ConfigSummary(
        path.stem,
        config.kind,
        config.model.backbone,
        config.data.image_size,
        config.training.epochs,
        config.model.weights,
        next(line.removeprefix(_FOR) for line in lines if line.startswith(_FOR)),
    )


class _Key(NamedTuple):
    """A key of a configuration."""

    section: str  # its table
    name: str  # within the table
    values: str  # which it may have, in words
    default: str | None  # as TOML writes it; None where it has to be given
    description: str  # what it does


def _keys(settings: type[BaseModel]) -> Iterator[_Key]:
    """Every key of a configuration, in the order of its sections."""
    schema = settings.model_json_schema()
    for section in _SECTIONS:
        table = schema["$defs"][schema["properties"][section]["$ref"].rpartition("/")[2]]
        for name, key in table["properties"].items():
            required = name in table.get("required", ())
            default = None if required else json.dumps(key.get("default")).strip('"')
            yield _Key(section, name, _values(key), default, key.get("description", ""))


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


_KIND = {"detector": "learns from boxes", "classifier": "learns from image labels"}


def annotated(config: Config) -> str:
    """A configuration as TOML with every key, defaults included, and a comment on each.

    `read_config` reads it back as the same configuration; a key without a value, for which TOML
    has no word, is commented out.

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
    for key in _keys(type(config)):
        if f"[{key.section}]" not in lines:
            lines += ["", f"[{key.section}]"]
        limits = "" if key.values in ("", "text", "true, false") else f" ({key.values})"
        value = content[key.section][key.name]
        lines.append(_line(key.name, value, key.description + limits))
    return "\n".join(lines) + "\n"


def _line(name: str, value: Any, comment: str) -> str:
    """A key as a line of TOML."""
    if value is None:
        return f"# {name} =  # {comment}"
    return f"{name} = {_toml_value(value)}" + (f"  # {comment}" if comment else "")


def _toml_value(value: Any) -> str:
    """A value on one line, also a list, which tomli_w spreads."""
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()
