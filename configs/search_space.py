"""The search space of a sweep: the keys that vary, each with its Optuna distribution."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any

import tomli_w
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from cxr_compare.configs.load import parse_config, replace_keys
from cxr_compare.configs.settings import Config
from cxr_compare.data_prep.contracts.errors import InputError

Space = Mapping[str, BaseDistribution]
"""Distributions by key, in the order of the options; listed values are kept as TOML texts."""

_LOG_FROM = 10.0  # ratio of the ends from which each power of ten is equally likely
_MOST_COMBINATIONS = 500  # of ends and listed values that are checked against rules
_PREFIX = re.compile(r"(?:(log|linear):)?(.*)", re.DOTALL)
_FORM = "write it as section.key=LOW..HIGH or section.key=VALUE,VALUE"
_NOT_COMPARABLE = {
    "kind": "makes trials of another kind of model",
    "name": "changes nothing that is learned",
    "data.target": "changes what is learned, so figures of trials could not be compared",
    "data.split": "changes the validation images, so figures of trials could not be compared",
    "training.monitor": "is the figure that trials are compared by",
}
_LOSS_KEYS = ("model.architecture", "model.box_loss", "model.head", "training.positive_weight")


def read_space(config: Config, over: Sequence[str]) -> dict[str, BaseDistribution]:
    """Read which keys a sweep (a series of trainings) varies, and check them.

    Every value must have the type of its key in the configuration and lie within the key's limits.

    Args:
        config: Configuration of the first training of the sweep.
        over: One text for each key. ``section.key=LOW..HIGH`` is a range; it is searched on a log
            scale if its ends differ tenfold or more, and ``log:`` or ``linear:`` before the ends
            chooses the scale. ``section.key=VALUE,VALUE`` lists the values. Values are written as
            in TOML, but plain words need no quotes.

    Returns:
        Optuna's distribution of each key, by ``section.key``.

    Raises:
        InputError: A key is unknown, cannot be varied or is given twice, a value is outside its
            limits, or no combination satisfies a rule over several keys.

    Example:
        >>> from cxr_compare.configs.load import find_config, read_config
        >>> config = read_config(find_config("chexnet"))
        >>> read_space(config, ["training.learning_rate=1e-4..1e-3"])
        {'training.learning_rate': FloatDistribution(high=0.001, log=True, low=0.0001, step=None)}
    """
    if not over:
        raise InputError(f"--over: a sweep needs a key to vary; {_FORM}")
    space: dict[str, BaseDistribution] = {}
    for text in over:
        key, distribution = _read_one(config, text)
        if key in space:
            raise InputError(f"--over {text}: {key} is given twice")
        space[key] = distribution
    _require_possible(config, space, over)
    return space


def describe_distribution(distribution: BaseDistribution) -> str:
    """Return a short phrase on the values that a configuration key takes in a sweep of trainings.

    Args:
        distribution: The distribution of one key.

    Returns:
        A phrase without a full stop, for the HTML page of a sweep.

    Example:
        >>> describe_distribution(IntDistribution(32, 256, step=32))
        '32 to 256 in steps of 32'
    """
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(scale_of(distribution))
    ends = f"{distribution.low:g} to {distribution.high:g}"
    if distribution.log:
        return f"{ends} on a log scale"
    if (distribution.step or 1) > 1:
        return f"{ends} in steps of {distribution.step}"
    return ends


def scale_of(distribution: BaseDistribution) -> str | list[str]:
    """Return the scale of the plot axis for the values that a sweep of trainings tries for one key.

    Args:
        distribution: Optuna's distribution of the key, from `read_space`.

    Returns:
        ``log`` or ``linear`` for a range of numbers, else the list of all values as texts.

    Example:
        >>> scale_of(FloatDistribution(0.1, 1.0))
        'linear'
    """
    if isinstance(distribution, CategoricalDistribution):
        return [format_value(tomllib.loads(choice)["x"]) for choice in distribution.choices]
    return "log" if distribution.log else "linear"


def values_of(proposed: Mapping[str, Any]) -> dict[str, Any]:
    """Convert values that Optuna proposes for a training into values of the configuration.

    Optuna proposes a listed value as a TOML line ``x = ...``, and a number as it is.

    Args:
        proposed: Proposed values by ``section.key``.

    Returns:
        Values by ``section.key``, with the types of the configuration.

    Example:
        >>> values_of({"model.dropout": 0.1, "training.optimiser": 'x = "sgd"'})
        {'model.dropout': 0.1, 'training.optimiser': 'sgd'}
    """
    values = {}
    for key, value in proposed.items():
        values[key] = tomllib.loads(value)["x"] if isinstance(value, str) else value
    return values


def proposal_of(config: Config, space: Space) -> dict[str, Any] | None:
    """Return the values that a configuration has for the keys of a sweep, in Optuna's form.

    A number stays as it is. A listed value becomes a TOML line such as ``x = "sgd"``.

    Args:
        config: Configuration of one training.
        space: Optuna's distribution of each varied key, by ``section.key``.

    Returns:
        Values by ``section.key``, or None if the search space does not contain one of them.
    """
    proposed = {}
    for key, distribution in space.items():
        value = attrgetter(key)(config)
        if isinstance(distribution, CategoricalDistribution):
            if value is None:
                return None
            value = _toml(value)
            if value not in distribution.choices:
                return None
        elif isinstance(value, str) or value is None or not distribution._contains(value):
            return None
        proposed[key] = value
    return proposed


def format_value(value: Any) -> str:
    """Return a value as a user writes it after ``--set KEY=``: in TOML, but a text without quotes.

    Args:
        value: Value of one key of a configuration: a number, a text, True or False, or a list.

    Example:
        >>> format_value(True), format_value("adamw"), format_value(0.001)
        ('true', 'adamw', '0.001')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(format_value, value))}]"
    return _toml(value).removeprefix("x = ")


def _toml(value: Any) -> str:
    return tomli_w.dumps({"x": value}).strip()


def with_values(config: Config, values: Mapping[str, Any], source: str) -> Config:
    """Return a copy of a configuration with some values replaced and checked.

    Args:
        config: The configuration, which stays unchanged.
        values: New values by ``section.key``, such as ``{"training.epochs": 3}``.
        source: Name of the option or file that gave the values, for messages.

    Returns:
        A new configuration, of another class if the architecture is replaced.

    Raises:
        InputError: A key is unknown, or a value has the wrong type or is out of range.
    """
    content = config.model_dump(exclude_none=True)
    replace_keys(content, values, source)
    return parse_config(tomli_w.dumps(content), source)


def combinations(space: Space) -> int | None:
    """Return the number of different combinations of values that a sweep of trainings can try.

    Args:
        space: Optuna's distribution of each varied key, by ``section.key``.

    Returns:
        The product of the numbers of listed values, or None if a range makes it infinite.

    Example:
        >>> combinations({"a": CategoricalDistribution(("x = 1", "x = 2"))})
        2
    """
    listed = [
        distribution
        for distribution in space.values()
        if isinstance(distribution, CategoricalDistribution)
    ]
    if len(listed) < len(space):
        return None
    return math.prod(len(distribution.choices) for distribution in listed)


def _read_one(config: Config, text: str) -> tuple[str, BaseDistribution]:
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not values or not re.fullmatch(r"[\w.]+", key):
        raise InputError(f"--over {text}: {_FORM}")
    if reason := _NOT_COMPARABLE.get(key):
        raise InputError(f"--over {text}: {key} {reason}; choose another key")
    if key in _LOSS_KEYS and config.training.monitor == "val_loss":
        raise InputError(
            f"--over {text}: {key} changes the loss itself, and training.monitor = 'val_loss' "
            "compares by it; choose a figure with --set training.monitor="
        )
    match = _PREFIX.fullmatch(values)
    scale = match[1] if match else None
    ends = match[2] if match else values
    low, dots, high = (part.strip() for part in ends.partition(".."))
    numbers = [_parse(low), _parse(high)] if dots else []
    if numbers and all(map(_is_number, numbers)):
        return key, _read_range(config, text, key, numbers, scale)
    if scale or any(map(_is_number, numbers)):
        raise InputError(f"--over {text}: a range has two numbers as its ends, as in 1e-4..1e-3")
    return key, _read_choices(text, values)


def _read_range(
    config: Config, text: str, key: str, numbers: Sequence[Any], scale: str | None
) -> BaseDistribution:
    step = _whole_step(config, text, key, numbers[0])
    low, high = numbers
    if not low < high:
        raise InputError(f"--over {text}: the low end must be below the high end")
    log = scale == "log" or (scale is None and low > 0 and high / low >= _LOG_FROM)
    if scale == "log" and low <= 0:
        raise InputError(f"--over {text}: a log scale starts above 0; write linear: or raise it")
    if step is None:
        return FloatDistribution(low, high, log=log)
    if step > 1 and scale == "log":
        raise InputError(
            f"--over {text}: {key} goes in steps of {step}, which a log scale does not; leave "
            "log: out, or list values"
        )
    for end in numbers:  # Optuna would round these silently
        is_on_grid = isinstance(end, int) and end % step == 0
        problem = None if is_on_grid else _problem(config, {key: end}, text)
        if problem:
            raise problem
    return IntDistribution(low, high, log=log and step == 1, step=step)


def _whole_step(config: Config, text: str, key: str, value: Any) -> int | None:
    """Return the step between the whole numbers that a key takes; None if it takes fractions."""
    schema: dict[str, Any] = type(config).model_json_schema()
    table = schema
    for part in key.split("."):
        field = table.get("properties", {}).get(part)
        if field is None:
            raise _problem(config, {key: value}, text) or InputError(f"--over {text}: {_FORM}")
        table = schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    for kind in (table, *table.get("anyOf", ())):
        if kind.get("type") in ("number", "integer"):
            return int(kind.get("multipleOf", 1)) if kind["type"] == "integer" else None
    raise InputError(f"--over {text}: {key} is no number; list its values, as in a,b")


def _read_choices(text: str, listed: str) -> CategoricalDistribution:
    try:
        values = tomllib.loads(f"values = [{listed}]")["values"]
    except (ValueError, RecursionError):  # plain words
        values = [_parse(word.strip()) for word in listed.split(",")]
    if any(value == "" for value in values):
        raise InputError(f"--over {text}: a value is empty; {_FORM}")
    if len(values) < 2:
        raise InputError(f"--over {text}: one value is no choice; use --set {text}, or list more")
    if len(set(map(format_value, values))) < len(values):
        raise InputError(f"--over {text}: a value is listed twice")
    return CategoricalDistribution([_toml(value) for value in values])


def _parse(text: str) -> Any:
    """Read a value as TOML; a text that is no TOML stays a text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    """Return the values that are checked in place of all: the ends, or every listed value."""
    if isinstance(distribution, CategoricalDistribution):
        return [tomllib.loads(choice)["x"] for choice in distribution.choices]
    return distribution.low, distribution.high


def _require_possible(config: Config, space: Space, over: Sequence[str]) -> None:
    """Refuse a value that breaks a rule whatever the values of the other keys."""
    for key, text in zip(space, over, strict=True):
        others = [other for other in space if other != key]
        for value in _ends(space[key]):
            problem = _problem(config, {key: value}, text)
            if problem is None:
                continue
            grid = itertools.product(*(_ends(space[other]) for other in others))
            for rest in itertools.islice(grid, _MOST_COMBINATIONS):
                values = dict(zip(others, rest, strict=True))
                if _problem(config, {**values, key: value}, text) is None:
                    break
            else:
                raise problem


def _problem(config: Config, values: Mapping[str, Any], text: str) -> InputError | None:
    """Return the error of a configuration with these values; None if they are allowed."""
    try:
        with_values(config, values, f"--over {text}")
    except InputError as error:
        return error
    return None
