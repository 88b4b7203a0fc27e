"""Lesion detector or image classifier: which finds the disease better, and how sure are we?

Every command of the command line as a function, what they return, and `metrics`: functions of
arrays. Each is loaded when it is first used: importing this module takes no time and needs no
torch. Editors and type checkers read `__init__.pyi`, which tools/documents.py writes.

Example:
    >>> import cxr_compare
    >>> cxr_compare.metrics.auroc([0, 1, 1], [0.2, 0.3, 0.9])
    1.0
"""

# Names that begin with an underscore are not offered when an editor completes `cxr_compare.`
import warnings as _warnings
from importlib import import_module as _import_module
from typing import Any as _Any

from cxr_compare.scripts.command_list import COMMANDS as _COMMANDS

__version__ = "0.1.0"

# pandas 2 says so for each empty table that is joined; the dtypes of our tables are set afterwards.
_warnings.filterwarnings(
    "ignore", "The behavior of DataFrame concatenation", FutureWarning, r"cxr_compare\."
)
# timm's download library asks notebooks for widgets of its own, which nothing here needs.
_warnings.filterwarnings("ignore", "IProgress not found")

_HOMES = {
    **{command: f"cxr_compare.scripts.commands.{command}" for command in _COMMANDS},
    "load": "cxr_compare.scripts.runs",
    "boxes_table": "cxr_compare.evaluation.boxes.boxes_table",
    "draw_answers": "cxr_compare.serving.answer",
    "Answer": "cxr_compare.serving.answer",
    "Answers": "cxr_compare.serving.answers",
    "InputError": "cxr_compare.data_prep.contracts.errors",
    "Audit": "cxr_compare.data_prep.audit.audit",
    "check_table": "cxr_compare.data_prep.audit.check_table",
    "DataSet": "cxr_compare.data_prep.dataset",
    "Choices": "cxr_compare.evaluation.choices",
    "Predictions": "cxr_compare.data_prep.store.predictions",
    "Result": "cxr_compare.evaluation.report.result",
    "Run": "cxr_compare.serving.run",
}

__all__ = ["__version__", "metrics", *_HOMES]


def __getattr__(name: str) -> _Any:
    if name == "metrics":
        return _import_module("cxr_compare.metrics")
    if name in _HOMES:
        return getattr(_import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'cxr_compare' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
