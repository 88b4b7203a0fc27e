"""Lesion detector or image classifier: which finds the disease better, and how sure are we?

Every command of the command line as a function, what they return, and `metrics`: functions of
arrays. Each is loaded when it is first used.

Examples:
    >>> import cxr_compare
    >>> cxr_compare.metrics.auroc([0, 1, 1], [0.2, 0.3, 0.9])
    1.0
"""

import warnings as _warnings
from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING
from typing import Any as _Any

if _TYPE_CHECKING:
    from cxr_compare import metrics as metrics
    from cxr_compare.commands.check import check as check
    from cxr_compare.commands.compare import compare as compare
    from cxr_compare.commands.configs import configs as configurations  # noqa: F401
    from cxr_compare.commands.export import export as export
    from cxr_compare.commands.folds import folds as folds
    from cxr_compare.commands.overlay import overlay as overlay
    from cxr_compare.commands.predict import predict as predict
    from cxr_compare.commands.prepare import prepare as prepare
    from cxr_compare.commands.serve import serve as serve
    from cxr_compare.commands.show import show as show
    from cxr_compare.commands.split import split as split
    from cxr_compare.commands.synth import synth as synth
    from cxr_compare.commands.train import train as train
    from cxr_compare.data_prep.base.errors import InputError as InputError
    from cxr_compare.data_prep.dataset import DataSet as DataSet
    from cxr_compare.data_prep.predictions import Predictions as Predictions
    from cxr_compare.evaluation.inputs.boxes_table import boxes_table as boxes_table
    from cxr_compare.evaluation.report.result import Result as Result
    from cxr_compare.serving.answer import Answer as Answer
    from cxr_compare.serving.answer import Answers as Answers
    from cxr_compare.serving.run import Run as Run

__version__ = "0.1.0"

# pandas 2 says so for each empty table that is joined; the dtypes of our tables are set afterwards.
_warnings.filterwarnings(
    "ignore", "The behavior of DataFrame concatenation", FutureWarning, r"cxr_compare\."
)

_COMMANDS = (
    *("synth", "prepare", "check", "split", "train", "predict", "compare", "folds"),
    *("overlay", "show", "export", "serve"),
)
_HOMES = {
    **{command: f"cxr_compare.commands.{command}" for command in _COMMANDS},
    "configurations": "cxr_compare.commands.configs",
    "Answer": "cxr_compare.serving.answer",
    "Answers": "cxr_compare.serving.answer",
    "boxes_table": "cxr_compare.evaluation.inputs.boxes_table",
    "DataSet": "cxr_compare.data_prep.dataset",
    "InputError": "cxr_compare.data_prep.base.errors",
    "Predictions": "cxr_compare.data_prep.predictions",
    "Result": "cxr_compare.evaluation.report.result",
    "Run": "cxr_compare.serving.run",
}

__all__ = ["__version__", "metrics", *_HOMES]


def __getattr__(name: str) -> _Any:
    if name == "metrics":
        return _import_module("cxr_compare.metrics")
    if name in _HOMES:
        # `configs` is a package here, and the command's function has another name.
        attribute = "configs" if name == "configurations" else name
        return getattr(_import_module(_HOMES[name]), attribute)
    raise AttributeError(f"module 'cxr_compare' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
