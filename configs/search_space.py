"""What a sweep varies: keys of a configuration, each with the values that trials may take."""

from __future__ import annotations

import itertools
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tomli_w

from configs.load import parse_config
from configs.settings import ClassifierConfig, DetectorConfig
from data_prep.contracts.errors import InputError

Config = DetectorConfig | ClassifierConfig

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
_IN_THE_LOSS = ("model.box_loss", "model.head", "training.positive_weight")


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which are among them.

    Attributes:
        key: Of the configuration.
        low: The low end.
        high: The high end.
        log: Whether logarithms are drawn evenly, not the numbers themselves.
        whole: Whether numbers are whole.
        step: Between whole numbers.
    """

    key: str
    low: float
    high: float
    log: bool
    whole: bool
    step: int = 1

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values that stand for all when they are checked."""
        return self.low, self.high

    @property
    def scale(self) -> str:
        """Which numbers are drawn evenly."""
        return "log" if self.log else "linear"

    def words(self) -> str:
        """The range as a person would say it."""
        scale = " on a log scale" if self.log else f" in steps of {self.step}" * (self.step > 1)
        return f"{self.low:g} to {self.high:g}{scale}"

    def holds(self, value: Any) -> bool:
        """Whether a value lies in the range."""
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and self.low <= value <= self.high):
            return False
        return not self.whole or (value - self.low) % self.step == 0


@dataclass(frozen=True)
class Choice:
    """Listed values.

    Attributes:
        key: Of the configuration.
        values: At least two, all different.
    """

    key: str
    values: tuple[Any, ...]

    @property
    def ends(self) -> tuple[Any, ...]:
        """Values to check: all."""
        return self.values

    @property
    def texts(self) -> tuple[str, ...]:
        """Each value as TOML writes it, texts without quotes."""
        return tuple(map(as_text, self.values))

    @property
    def scale(self) -> tuple[str, ...]:
        """The values, in words and in their order."""
        return self.texts

    def words(self) -> str:
        """The values as a person would say them."""
        return ", ".join(self.texts)

    def holds(self, value: Any) -> bool:
        """Whether a value is listed."""
        return value is not None and as_text(value) in self.texts


Dimension = Range | Choice


def as_text(value: Any) -> str:
    """A value as TOML writes it, a text without quotes.

    Example:
        >>> as_text(True), as_text("adamw"), as_text(0.001)
        ('true', 'adamw', '0.001')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return f"[{', '.join(map(as_text, value))}]"
    return tomli_w.dumps({"x": value}).removeprefix("x = ").strip()


def read_space(config: Config, over: Sequence[str]) -> list[Dimension]:
    """Read what a sweep varies and check it against the keys of a configuration.

    Args:
        config: What stays as it is.
        over: ``section.key=LOW..HIGH``, with ``log:`` or ``linear:`` before the ends where the
            usual is not meant (log from a tenfold range on), or ``section.key=VALUE,VALUE``; values
            as in TOML, plain words without quotes.

    Returns:
        A dimension a key, in the order given.

    Raises:
        InputError: A key is unknown, not to be varied or given twice, a value is outside its
            limits, or no combination satisfies a rule over several keys. One line.

    Example:
        >>> from configs.load import find_config, read_config
        >>> config = read_config(find_config("chexnet"))
        >>> [d.words() for d in read_space(config, ["training.learning_rate=1e-4..1e-3"])]
        ['0.0001 to 0.001 on a log scale']
    """
    if not over:
        raise InputError(f"--over: a sweep needs a key to vary; {_FORM}")
    space: list[Dimension] = []
    for text in over:
        dimension = _read_dimension(config, text)
        if dimension.key in (each.key for each in space):
            raise InputError(f"--over {text}: {dimension.key} is given twice")
        space.append(dimension)
    _require_possible(config, space, over)
    return space


def with_values(config: Config, values: Mapping[str, Any], place: str) -> Config:
    """A configuration with some keys replaced, checked as if it had been written so.

    Args:
        config: What the other keys are taken from.
        values: By ``section.key``.
        place: For errors.

    Raises:
        InputError: As `configs.load.read_config`.
    """
    content = config.model_dump(exclude_none=True)
    for key, value in values.items():
        *sections, leaf = key.split(".")
        table = content
        for section in sections:
            table = table.setdefault(section, {})
            if not isinstance(table, dict):
                raise InputError(f"{place}: '{section}' is a value, not a section")
        table[leaf] = value
    return parse_config(tomli_w.dumps(content), place)


def value_at(config: Config, key: str) -> Any:
    """The value of a key.

    Example:
        >>> from configs.load import find_config, read_config
        >>> value_at(read_config(find_config("chexnet")), "data.image_size")
        224
    """
    value: Any = config
    for part in key.split("."):
        value = getattr(value, part)
    return value


def combinations(space: Sequence[Dimension]) -> int | None:
    """How many different trials there are; None where a range makes them countless.

    Example:
        >>> combinations([Choice("a", (1, 2)), Choice("b", (True, False))])
        4
    """
    if any(isinstance(each, Range) for each in space):
        return None
    return math.prod(len(each.ends) for each in space)


def _read_dimension(config: Config, text: str) -> Dimension:
    key, equals, given = (part.strip() for part in text.partition("="))
    if not equals or not given or not re.fullmatch(r"[\w.]+", key):
        raise InputError(f"--over {text}: {_FORM}")
    if why := _NOT_COMPARABLE.get(key):
        raise InputError(f"--over {text}: {key} {why}; choose another key")
    if key in _IN_THE_LOSS and config.training.monitor == "val_loss":
        raise InputError(
            f"--over {text}: {key} changes the loss itself, and training.monitor = 'val_loss' "
            "compares by it; choose a figure with --set training.monitor="
        )
    matched = _PREFIX.fullmatch(given)
    scale, ends = (matched[1], matched[2]) if matched else (None, given)
    low, dots, high = (part.strip() for part in ends.partition(".."))
    numbers = [_parse(low), _parse(high)] if dots else []
    if numbers and all(_is_number(each) for each in numbers):
        return _read_range(config, text, key, numbers, scale)
    if scale or (dots and any(_is_number(each) for each in numbers)):
        raise InputError(f"--over {text}: a range has two numbers as its ends, as in 1e-4..1e-3")
    return _read_choice(text, key, given)


def _read_range(
    config: Config, text: str, key: str, numbers: Sequence[Any], scale: str | None
) -> Range:
    whole, step = _whole_numbers(config, text, key, numbers[0])
    low, high = numbers
    if not low < high:
        raise InputError(f"--over {text}: the low end must be below the high end")
    log = scale == "log" or (scale is None and low > 0 and high / low >= _LOG_FROM)
    if scale == "log" and low <= 0:
        raise InputError(f"--over {text}: a log scale starts above 0; write linear: or raise it")
    if step > 1:
        if scale == "log":
            raise InputError(
                f"--over {text}: {key} goes in steps of {step}, which a log scale does not; leave "
                "log: out, or list values"
            )
        log = False
    return Range(key, low, high, log, whole, step)


def _whole_numbers(config: Config, text: str, key: str, value: Any) -> tuple[bool, int]:
    """Whether a key takes whole numbers only, and their step; refuses one that takes none."""
    schema: dict[str, Any] = type(config).model_json_schema()
    table = schema
    for part in key.split("."):
        if (field := table.get("properties", {}).get(part)) is None:
            raise _problem(config, {key: value}, text) or InputError(f"--over {text}: {_FORM}")
        table = schema["$defs"][field["$ref"].rpartition("/")[2]] if "$ref" in field else field
    kinds = [each for each in (table, *table.get("anyOf", ())) if "type" in each]
    numeric = [each for each in kinds if each["type"] in ("number", "integer")]
    if not numeric:
        raise InputError(f"--over {text}: {key} is no number; list its values, as in a,b")
    whole = numeric[0]["type"] == "integer"
    return whole, int(numeric[0].get("multipleOf", 1)) if whole else 1


def _read_choice(text: str, key: str, given: str) -> Choice:
    try:
        values = tomllib.loads(f"values = [{given}]")["values"]
    except tomllib.TOMLDecodeError:  # plain words
        values = [_parse(word.strip()) for word in given.split(",")]
    if any(value == "" for value in values):
        raise InputError(f"--over {text}: a value is empty; {_FORM}")
    choice = Choice(key, tuple(values))
    if len(values) < 2:
        raise InputError(f"--over {text}: one value is no choice; use --set {text}, or list more")
    if len(set(choice.texts)) < len(values):
        raise InputError(f"--over {text}: a value is listed twice")
    return choice


def _parse(text: str) -> Any:
    """A value as TOML reads it; a text where it is none."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _is_number(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and math.isfinite(value)


def _require_possible(config: Config, space: Sequence[Dimension], over: Sequence[str]) -> None:
    """Refuse a value that breaks a rule with whatever the other keys may be."""
    for dimension, text in zip(space, over, strict=True):
        others = [each for each in space if each is not dimension]
        for value in dimension.ends:
            if (problem := _problem(config, {dimension.key: value}, text)) is None:
                continue
            grid = itertools.product(*(each.ends for each in others))
            for rest in itertools.islice(grid, _MOST_COMBINATIONS):
                values = {each.key: one for each, one in zip(others, rest, strict=True)}
                if _problem(config, {**values, dimension.key: value}, text) is None:
                    break
            else:
                raise problem


def _problem(config: Config, values: Mapping[str, Any], text: str) -> InputError | None:
    try:
        with_values(config, values, f"--over {text}")
    except InputError as error:
        return error
    return None
