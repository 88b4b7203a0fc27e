"""What a sweep varies: keys of a configuration, each with Optuna's distribution of its values."""

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
"""By key, in the order given; listed values are TOML, which no distribution reads."""

_LOG_FROM = 10.0  # times the low end: from there on each power of ten is as likely as another
_MOST_COMBINATIONS = 500  # of ends and listed values that are tried on rules over several keys
_PREFIX = re.compile(r"(?:(log|linear):)?(.*)", re.DOTALL)
_FORM = "write it as section.key=LOW..HIGH or section.key=VALUE,VALUE"
_NOT_COMPARABLE = {
    "kind": "makes trials of another kind of model",
    "name": "changes nothing that is learned",
    "data.target": "changes what is learned, so figures of trials could not be compared",
    "data.split": "changes the validation images, so figures of trials could not be compared",
    "training.monitor": "is the figure that trials are compared by",
}
_IN_THE_LOSS = ("model.architecture", "model.box_loss", "model.head", "training.positive_weight")


def read_space(config: Config, over: Sequence[str]) -> dict[str, BaseDistribution]:
    """Read what a sweep varies, and check it against the keys of a configuration.

    ``section.key=LOW..HIGH``, with ``log:`` or ``linear:`` before the ends where the usual is not
    meant (log from a tenfold range on), or ``section.key=VALUE,VALUE``; values as in TOML, plain
    words without quotes.

    Raises:
        InputError: A key is unknown, not to be varied or given twice, a value is outside its
            limits, or no combination satisfies a rule over several keys. One line.

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


def in_words(distribution: BaseDistribution) -> str:
    """A distribution as a person would say it.

    Example:
        >>> in_words(IntDistribution(32, 256, step=32))
        '32 to 256 in steps of 32'
    """
    if isinstance(distribution, CategoricalDistribution):
        return ", ".join(scale_of(distribution))
    ends = f"{distribution.low:g} to {distribution.high:g}"
    if distribution.log:
        return f"{ends} on a log scale"
    return ends + f" in steps of {distribution.step}" * ((distribution.step or 1) > 1)


def scale_of(distribution: BaseDistribution) -> str | list[str]:
    """How values lie on an axis: ``log``, ``linear``, or those that are listed."""
    if isinstance(distribution, CategoricalDistribution):
        return [shown(tomllib.loads(choice)["x"]) for choice in distribution.choices]
    return "log" if distribution.log else "linear"


def values_of(proposed: Mapping[str, Any]) -> dict[str, Any]:
    """What Optuna proposed, as values of the configuration.

    Example:
        >>> values_of({"model.dropout": 0.1, "training.optimiser": 'x = "sgd"'})
        {'model.dropout': 0.1, 'training.optimiser': 'sgd'}
    """
    return {k: tomllib.loads(v)["x"] if isinstance(v, str) else v for k, v in proposed.items()}


def proposal_of(config: Config, space: Space) -> dict[str, Any] | None:
    """A configuration's own values as Optuna proposes them; None where one is not in the space."""
    proposed = {}
    for key, distribution in space.items():
        value = attrgetter(key)(config)
        if isinstance(distribution, CategoricalDistribution):
            if value is None or (value := _toml(value)) not in distribution.choices:
                return None
        elif isinstance(value, str) or value is None or not distribution._contains(value):
            return None
        proposed[key] = value
    return proposed


def shown(value: Any) -> str:
    """A value as TOML writes it, a text without quotes.

    Example:
        >>> shown(True), shown("adamw"), shown(0.001)
        ('true', 'adamw', '0.001')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(shown, value))}]"
    return _toml(value).removeprefix("x = ")


def _toml(value: Any) -> str:
    return tomli_w.dumps({"x": value}).strip()


def with_values(config: Config, values: Mapping[str, Any], place: str) -> Config:
    """A configuration with some keys replaced, checked as `read_config` checks what it reads."""
    content = config.model_dump(exclude_none=True)
    replace_keys(content, values, place)
    return parse_config(tomli_w.dumps(content), place)


def combinations(space: Space) -> int | None:
    """How many different trials there are; None where a range makes them countless.

    Example:
        >>> combinations({"a": CategoricalDistribution(("x = 1", "x = 2"))})
        2
    """
    listed = [d for d in space.values() if isinstance(d, CategoricalDistribution)]
    return math.prod(len(d.choices) for d in listed) if len(listed) == len(space) else None


def _read_one(config: Config, text: str) -> tuple[str, BaseDistribution]:
    key, equals, values = (part.strip() for part in text.partition("="))
    if not equals or not values or not re.fullmatch(r"[\w.]+", key):
        raise InputError(f"--over {text}: {_FORM}")
    if why := _NOT_COMPARABLE.get(key):
        raise InputError(f"--over {text}: {key} {why}; choose another key")
    if key in _IN_THE_LOSS and config.training.monitor == "val_loss":
        raise InputError(
            f"--over {text}: {key} changes the loss itself, and training.monitor = 'val_loss' "
            "compares by it; choose a figure with --set training.monitor="
        )
    matched = _PREFIX.fullmatch(values)
    scale, ends = (matched[1], matched[2]) if matched else (None, values)
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
    step = _step_of(config, text, key, numbers[0])
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
    for end in numbers:  # what Optuna would round
        whole = isinstance(end, int) and end % step == 0
        if not whole and (problem := _problem(config, {key: end}, text)):
            raise problem
    return IntDistribution(low, high, log=log and step == 1, step=step)


def _step_of(config: Config, text: str, key: str, value: Any) -> int | None:
    """Between the whole numbers that a key takes; None where it takes others, too."""
    schema: dict[str, Any] = type(config).model_json_schema()
    table = schema
    for part in key.split("."):
        if (field := table.get("properties", {}).get(part)) is None:
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
    if len(set(map(shown, values))) < len(values):
        raise InputError(f"--over {text}: a value is listed twice")
    return CategoricalDistribution([_toml(value) for value in values])


def _parse(text: str) -> Any:
    """A value as TOML reads it; a text where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _ends(distribution: BaseDistribution) -> Sequence[Any]:
    """Values that stand for all when they are checked."""
    if isinstance(distribution, CategoricalDistribution):
        return [tomllib.loads(choice)["x"] for choice in distribution.choices]
    return distribution.low, distribution.high


def _require_possible(config: Config, space: Space, over: Sequence[str]) -> None:
    """Refuse a value that breaks a rule with whatever the other keys may be."""
    for key, text in zip(space, over, strict=True):
        others = [other for other in space if other != key]
        for value in _ends(space[key]):
            if (problem := _problem(config, {key: value}, text)) is None:
                continue
            grid = itertools.product(*(_ends(space[other]) for other in others))
            for rest in itertools.islice(grid, _MOST_COMBINATIONS):
                values = dict(zip(others, rest, strict=True))
                if _problem(config, {**values, key: value}, text) is None:
                    break
            else:
                raise problem


def _problem(config: Config, values: Mapping[str, Any], text: str) -> InputError | None:
    try:
        with_values(config, values, f"--over {text}")
    except InputError as error:
        return error
    return None
