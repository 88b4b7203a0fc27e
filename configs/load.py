"""Reading and checking of configurations in TOML. Each error message is one line."""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

import tomli_w
from pydantic import BaseModel, ValidationError

from cxr_compare.configs.settings import KINDS, Config, ProbeConfig, config_class
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.own_parts import is_own_part
from cxr_compare.data_prep.contracts.text_files import parse_toml, read_toml_file
from cxr_compare.networks.registry import NETWORKS, TIMM, network_names

_FOLDER = Path(__file__).parent
_OF_BACKBONES = "chexnet"  # configuration of a network that is named alone


def packaged_configs() -> list[str]:
    """Return the sorted names of the training configurations that come with the program.

    Each is the name of a TOML file without its ending, such as ``chexnet``, as `find_config` takes
    it.
    """
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def find_config(name: str, more_names: Sequence[str] = ()) -> Path:
    """Return the file of a configuration, given its path or its name.

    `more_names` are further names that the user may have meant, for the error message. Raises
    InputError if there is no such file and no such name.
    """
    if Path(name).is_file():
        return Path(name)
    names = packaged_configs()
    if name in names:
        return _FOLDER / f"{name}.toml"
    near = difflib.get_close_matches(name, [*names, *more_names], n=1)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise InputError(
        f"{name}: no such file, and no configuration of that name; there are "
        f"{', '.join(names)} ('cxr configs' describes them){hint}"
    )


def is_backbone(name: str) -> bool:
    """Return True for a network of a classifier that is neither a file nor a configuration.

    Example:
        >>> is_backbone("resnet50"), is_backbone("chexnet")
        (True, False)
    """
    if Path(name).is_file() or name in packaged_configs():
        return False
    own = name.startswith(TIMM) or is_own_part(name)
    return own or _network_of(name) in network_names("classifier")


def _network_of(name: str) -> str:
    """Return the network that a name of the literature without a size means."""
    return {"mobilenet_v3": "mobilenet_v3_large"}.get(name, name)


def keys_of_backbone(
    backbone: str, overrides: Sequence[str] | Mapping[str, Any] = ()
) -> dict[str, Any]:
    """Return the keys that the configuration ``chexnet`` gets for another network.

    `overrides` (as in `read_config`) decide where they name a key, but images are never smaller
    than the network reads. The keys ``section.key`` are name and network, and what the network
    needs beside: the learning rate of VGG, images that are large enough for InceptionV3.

    Example:
        >>> keys_of_backbone("vgg16")["training.learning_rate"]
        3e-05
        >>> keys_of_backbone("inception_v3", ["data.image_size=64"])["data.image_size"]
        96
    """
    values = dict(_values_of(overrides))
    backbone = _network_of(backbone)
    title = backbone if backbone.startswith(TIMM) else backbone.rpartition(":")[2]
    keys: dict[str, Any] = {"name": title, "model.backbone": backbone}
    network = NETWORKS.get(backbone)
    if network is not None:
        keys["name"] = network.title.partition(",")[0]
        if network.learning_rate is not None:
            keys["training.learning_rate"] = network.learning_rate
        usual = read_toml_file(find_config(_OF_BACKBONES))["data"]["image_size"]
        size = values.get("data.image_size", usual)
        smallest = 32 * math.ceil(network.min_size / 32)  # sizes are multiples of 32
        if isinstance(size, int) and size < smallest:
            values["data.image_size"] = smallest
    return keys | values


def read_named_config(name: str, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read a configuration by its file, its name, or a network for the configuration ``chexnet``.

    Raises InputError if there is nothing of this name, or the configuration is not valid.
    """
    if is_backbone(name):
        return read_config(find_config(_OF_BACKBONES), keys_of_backbone(name, overrides))
    return read_config(find_config(name, network_names("classifier")), overrides)


def read_config(path: Path, overrides: Sequence[str] | Mapping[str, Any] = ()) -> Config:
    """Read a configuration in TOML, check it, and add the defaults of missing keys.

    `overrides` are new values by ``section.key``, or texts ``section.key=value``, in which a value
    is written as in TOML, but a plain word needs no quotes. Raises InputError if the file cannot be
    read, a key is missing or unknown (the message suggests the most similar key), or a value has
    the wrong type or lies outside its range.
    """
    content = read_toml_file(path)
    values = _values_of(overrides)
    replace_keys(content, values, "--set {}")
    return _check(content, str(path), set(values))


def parse_config(text: str, source: str) -> Config:
    """Check a configuration in TOML that a training has stored, and add defaults of missing keys.

    Messages begin with `source`, the name of the file that contains the text. Raises InputError if
    the text is not valid TOML, a key is missing or unknown, or a value is not allowed.
    """
    content = parse_toml(text, source)
    return _check(content, source, set())


def dump_config(config: BaseModel) -> str:
    """Return a configuration as TOML text with all values, including the defaults.

    It may be one of its sections, such as ``config.training``. A key without a value has no line.

    Example:
        >>> dump_config(read_config(find_config("chexnet"))).splitlines()[0]
        'kind = "classifier"'
    """
    content = config.model_dump(exclude_none=True)  # TOML has no such value
    return tomli_w.dumps({"kind": content.pop("kind"), **content})


def first_difference(old: BaseModel, new: BaseModel) -> str | None:
    """Return a phrase about the first key in which two configurations differ.

    Both are of the same class; a section will do. None if they are equal.

    Example:
        >>> old = read_config(find_config("chexnet"), ["training.seed=1"])
        >>> first_difference(old, read_config(find_config("chexnet"), ["training.seed=2"]))
        'training.seed was 1, is now 2'
    """
    before = _flatten(old.model_dump())
    after = _flatten(new.model_dump())
    for key in sorted(before.keys() | after.keys()):
        if before.get(key) != after.get(key):
            return f"{key} was {before.get(key)!r}, is now {after.get(key)!r}"
    return None


def _flatten(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def replace_keys(content: dict[str, Any], values: Mapping[str, Any], source: str) -> None:
    """Replace values in nested dictionaries that hold a configuration; change them in place.

    If the architecture of a detector is replaced, the configuration gets the architecture's name as
    its name, and keys that the new architecture does not have are removed first. If a classifier
    becomes a probe (a linear layer on frozen features: ``model.trainable=none``), the keys that a
    probe does not have are removed first.

    `values` are by ``section.key``, such as ``{"training.epochs": 3}``. `source` names the option
    or file that gave them, for messages; ``{}`` in it stands for the key, as in ``--set {}``.
    Raises InputError if there is no such architecture, or a name of a section is used as a key.
    """
    key = "model.architecture"
    model = content.get("model")
    if key in values and content.get("kind") == "detector" and isinstance(model, dict):
        architecture = str(values[key])
        old_architecture = model.get("architecture", "retinanet")
        config = _config_class("detector", architecture, source.replace("{}", key))
        settings: Any = config.model_fields["model"].annotation
        content["model"] = {k: v for k, v in model.items() if k in settings.model_fields}
        if architecture != old_architecture:
            # Else a report would show the old name.
            content["name"] = architecture.rpartition(":")[2]
    becomes_probe = values.get("model.trainable") == "none"
    if becomes_probe and content.get("kind") == "classifier" and isinstance(model, dict):
        _keep_keys_of_a_probe(content)
    for key, value in values.items():
        *sections, leaf = key.split(".")
        table = content
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                message = f"'{section}' is a value, not a section"
                raise InputError(f"{source.replace('{}', key)}: {message}")
        table[leaf] = value


def _keep_keys_of_a_probe(content: dict[str, Any]) -> None:
    """Remove the keys of a classifier's configuration that a probe does not have."""
    was_probe = content["model"].get("trainable") == "none"
    content["model"] = {**content["model"], "trainable": "none"}
    for key in [key for key in content if key not in ProbeConfig.model_fields]:
        del content[key]
    for section in ("model", "training"):
        settings: Any = ProbeConfig.model_fields[section].annotation
        keys = content.get(section)
        if isinstance(keys, dict):
            content[section] = {k: v for k, v in keys.items() if k in settings.model_fields}
    if not was_probe:
        content["name"] = "Probe"  # else a report would show the old name
        for key in ("batch_size", "precision"):  # chosen for a training
            content.get("training", {}).pop(key, None)


def _values_of(overrides: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(overrides, Mapping):
        return overrides
    return dict(map(_split_override, overrides))


def _split_override(override: str) -> tuple[str, Any]:
    """Return key and value of ``section.key=value``."""
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
    """Check a configuration's content; errors name the option or the file."""
    kind = content.get("kind")
    if kind not in KINDS:
        position = f"--set kind: on {path}" if "kind" in overridden else path
        kinds = ", ".join(f'"{name}"' for name in KINDS)
        raise InputError(f"{position}: kind must be one of {kinds}, got {kind!r}")
    model = content.get("model")
    model_keys = model if isinstance(model, dict) else {}
    architecture = str(model_keys.get("architecture", "retinanet"))
    trainable = str(model_keys.get("trainable"))
    settings = _config_class(kind, architecture, f"{path}: model.architecture", trainable)
    try:
        return settings.model_validate(content)
    except ValidationError as error:
        problem = first_problem(error, settings)
    whole = re.sub(r"\.\d+$", "", problem.key)  # the key of a list, for one of its items
    position = f"--set {problem.key}" if whole in overridden else f"{path}: {problem.key}"
    if problem.is_rule:  # maybe over several keys, which it names
        words = set(re.findall(r"\w+", problem.message))
        section = f"{problem.key}.".lstrip(".")
        named = [
            f"--set {key}"
            for key in sorted(overridden)
            if key.startswith(section) and key.rpartition(".")[2] in words
        ]
        if named:
            position = f"{' '.join(named)}: on {path}"
        position = position.removesuffix(": ")
    raise InputError(f"{position}: {problem.message}")


def _config_class(kind: str, architecture: str, position: str, trainable: str = "") -> Any:
    try:
        return config_class(kind, architecture, trainable)
    except ValueError as error:
        raise InputError(f"{position}: {error}") from None


class KeyProblem(NamedTuple):
    """Problem of one key of a settings file.

    `key` is ``section.key``; empty for a rule over the whole file. `is_rule` is True if a check of
    this program failed, such as one over several keys; False if a key is unknown or missing, or its
    value has a wrong type or is out of range.
    """

    key: str
    message: str
    is_rule: bool


def first_problem(error: ValidationError, settings: type[BaseModel]) -> KeyProblem:
    """Choose the one problem of a settings file that is reported to the user.

    pydantic may report several problems. An unknown key is chosen before all others, because it is
    often the misspelt form of a key that is also reported as missing. Else the first problem is
    chosen.

    `settings` has all keys of the file; the message suggests the most similar one for an unknown
    key.
    """
    errors = error.errors(include_url=False, include_context=False)
    first = min(errors, key=lambda e: e["type"] != "extra_forbidden")
    key = ".".join(map(str, first["loc"]))
    message = first["msg"]
    if first["type"] == "value_error":
        return KeyProblem(key, message.removeprefix("Value error, "), is_rule=True)
    if first["type"] == "extra_forbidden":
        message = f"unknown key{_suggestion(key, _known_keys(settings))}"
    elif first["type"] == "missing":
        message = "is missing; add it"
    else:
        message = f"{message[:1].lower()}{message[1:]}, got {first['input']!r}"
    return KeyProblem(key, message, is_rule=False)


def _known_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Return every key of a model with its sections, as ``section.key``."""
    keys = []
    for name, field in model.model_fields.items():
        annotations = (field.annotation, *get_args(field.annotation))
        sections = [
            annotation
            for annotation in annotations
            if isinstance(annotation, type) and issubclass(annotation, BaseModel)
        ]
        if sections:
            keys += _known_keys(sections[0], f"{prefix}{name}.")
        else:
            keys.append(prefix + name)
    return keys


# Names that other programs use for the same keys, and abbreviations of the keys.
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
    """Suggest the key that is meant: by a synonym, else the nearest, its own section first."""
    section, _, leaf = key.rpartition(".")
    section = re.sub(r"\.\d+", "", section)  # the number of one of several tables [[section]]
    for candidate in known:
        if leaf.lower() in _SYNONYMS.get(candidate, ()):
            return f"; did you mean '{candidate}'?"
    siblings = [candidate for candidate in known if candidate.rpartition(".")[0] == section]
    for candidates in (siblings, known):
        key_by_leaf = {candidate.rpartition(".")[2]: candidate for candidate in candidates}
        near = difflib.get_close_matches(leaf, key_by_leaf, n=1, cutoff=0.7)
        if near:
            return f"; did you mean '{key_by_leaf[near[0]]}'?"
    return f"; known here: {', '.join(siblings or known)}"
