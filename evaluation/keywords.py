"""Answers to calls with a keyword that a function does not have: the keyword that was meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from functools import wraps
from typing import ParamSpec, TypeVar

from cxr_compare.data_prep.base.errors import InputError, nearest_name

P = ParamSpec("P")
R = TypeVar("R")


def refuse_unknown_keywords(
    name: str, keywords: Iterable[str], parameters: Collection[str]
) -> None:
    """Refuse a call of a function with a keyword that it does not have.

    The message names the most similar keyword, or all known ones if none is similar.

    Examples:
        >>> refuse_unknown_keywords("compare", ["patient"], ["truth", "patients"])
        Traceback (most recent call last):
        ...
        cxr_compare.data_prep.base.errors.InputError: compare: has no argument 'patient'; did
        you mean 'patients'?
    """
    for keyword in keywords:
        if keyword not in parameters:
            advice = nearest_name(keyword, parameters, f"it has {', '.join(parameters)}")
            raise InputError(f"{name}: has no argument '{keyword}'; {advice}")


def with_known_keywords(function: Callable[P, R]) -> Callable[P, R]:
    """Make a public function suggest the right keyword when it is called with an unknown one.

    The function has no parameter ``**keywords``.
    """
    parameters = inspect.signature(function).parameters.values()
    names = [p.name for p in parameters if p.kind is not p.POSITIONAL_ONLY and p.name != "self"]

    @wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        refuse_unknown_keywords(function.__name__, kwargs, names)
        return function(*args, **kwargs)

    return checked
