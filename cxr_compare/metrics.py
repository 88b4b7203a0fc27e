"""Metrics as functions of arrays, and single figures with their intervals.

Example:
    >>> from cxr_compare import metrics
    >>> metrics.auroc([0, 0, 1, 1], [0.1, 0.4, 0.4, 0.8])
    0.875
    >>> metrics.estimate("auroc", [0, 0, 1, 1, 0, 1], [0.1, 0.4, 0.4, 0.8, 0.3, 0.2])
    auroc 0.722 (95 % CI 0.119 to 0.988), 6 images
"""

import functools as _functools
import inspect as _inspect
import warnings as _warnings
from collections.abc import Callable as _Callable
from typing import ParamSpec as _ParamSpec
from typing import TypeVar as _TypeVar

from cxr_compare.evaluation import single_figure as _single
from cxr_compare.evaluation.boxes import average_precision as _boxes
from cxr_compare.evaluation.boxes.froc import froc
from cxr_compare.evaluation.boxes.iobb import iobb
from cxr_compare.evaluation.boxes.matching import match_boxes
from cxr_compare.evaluation.metrics import image_metrics as _images
from cxr_compare.evaluation.metrics import net_benefit as _benefit
from cxr_compare.evaluation.metrics.registry import METRICS as _METRICS
from cxr_compare.evaluation.metrics.registry import why_undefined as _why_undefined
from cxr_compare.evaluation.single_figure import FigureEstimate
from cxr_compare.evaluation.statistics import clustered_auroc as _tests
from cxr_compare.evaluation.statistics.arrays import align_values as _align_values
from cxr_compare.evaluation.statistics.bootstrap import Resamples, cluster_bootstrap

_P = _ParamSpec("_P")
_T = _TypeVar("_T")


def _with_reason(metric: str) -> "_Callable[[_Callable[_P, _T]], _Callable[_P, _T]]":
    """Warn with the registry's reason where a function returns an undefined figure.

    Of a function that returns several figures by name, each that is undefined is named.
    """

    def decorate(function: "_Callable[_P, _T]") -> "_Callable[_P, _T]":
        @_functools.wraps(function)
        def warned(*args: "_P.args", **kwargs: "_P.kwargs") -> _T:
            figure = function(*args, **kwargs)
            figures = figure if isinstance(figure, dict) else {metric: figure}
            undefined = [name for name, value in figures.items() if value is None]
            if undefined:
                reasons = (f"{name} is undefined: {_why_undefined(name)}" for name in undefined)
                _warnings.warn("; ".join(reasons), UserWarning, stacklevel=2)
            return figure

        return warned

    return decorate


def _by_image(function: "_Callable[_P, _T]") -> "_Callable[_P, _T]":
    """Bring the Series among the arguments into one order before the function takes positions."""
    signature = _inspect.signature(function)

    @_functools.wraps(function)
    def aligned(*args: "_P.args", **kwargs: "_P.kwargs") -> _T:
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError:
            return function(*args, **kwargs)  # which says what is wrong with its arguments
        given = {name: bound.arguments[name] for name in _OF_IMAGES if name in bound.arguments}
        bound.arguments.update(_align_values(given))
        return function(*bound.args, **bound.kwargs)

    return aligned


_OF_IMAGES = ("y_true", "y_score", "first", "second", "patients")

auroc = _with_reason("auroc")(_by_image(_images.auroc))
auroc_difference = _with_reason("auroc")(_by_image(_tests.auroc_difference))
average_precision = _with_reason("average_precision")(_by_image(_images.image_average_precision))
classification_metrics = _with_reason("accuracy")(_by_image(_images.classification_metrics))
confusion_counts = _by_image(_images.confusion_counts)
estimate = _by_image(_single.estimate)
net_benefit = _by_image(_benefit.net_benefit)
box_average_precision = _with_reason("ap50")(_boxes.average_precision)

__all__ = [
    "FigureEstimate",
    "Resamples",
    "auroc",
    "auroc_difference",
    "average_precision",
    "box_average_precision",
    "classification_metrics",
    "cluster_bootstrap",
    "confusion_counts",
    "estimate",
    "froc",
    "iobb",
    "match_boxes",
    "net_benefit",
]


_OTHER_NAMES = {"f1_score": "f1", "precision_score": "precision", "recall_score": "recall"}


def __getattr__(name: str) -> None:
    problem = f"module 'cxr_compare.metrics' has no attribute '{name}'"
    own = _OTHER_NAMES.get(name, name)
    if own in _METRICS:
        problem += f"; metrics.estimate({own!r}, y_true, y_score, threshold=...) gives it"
    raise AttributeError(problem)


def __dir__() -> list[str]:
    return sorted(__all__)
