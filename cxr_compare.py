"""Lesion detector or image classifier: which finds the disease better, and how sure are we?

Every verb of the command line as a function, what they return, and `metrics`: functions of arrays.
Each is loaded when it is first used: importing this module takes no time and needs no torch.

Example:
    >>> import cxr_compare
    >>> cxr_compare.metrics.auroc([0, 1, 1], [0.2, 0.3, 0.9])
    1.0
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for editors and type checkers, which do not look into the table below
    from data_prep.audit.audit import Audit as Audit
    from data_prep.contracts.errors import InputError as InputError
    from data_prep.store.dataset import DataSet as DataSet
    from data_prep.store.predictions import Predictions as Predictions
    from evaluation.decisions.decision import Decision as Decision
    from evaluation.metrics import functions as metrics
    from evaluation.report.result_tables import Report as Report
    from scripts.check import check as check
    from scripts.compare import compare as compare
    from scripts.configs import configs as configs
    from scripts.curve import curve as curve
    from scripts.ensemble import ensemble as ensemble
    from scripts.export import export as export
    from scripts.folds import folds as folds
    from scripts.import_predictions import import_predictions as import_predictions
    from scripts.monitor import monitor as monitor
    from scripts.overlay import overlay as overlay
    from scripts.pacs import pacs as pacs
    from scripts.plan import plan as plan
    from scripts.predict import predict as predict
    from scripts.prepare import prepare as prepare
    from scripts.readers import readers as readers
    from scripts.runs import load as load
    from scripts.serve import serve as serve
    from scripts.show import show as show
    from scripts.split import split as split
    from scripts.sweep import sweep as sweep
    from scripts.synth import synth as synth
    from scripts.train import train as train
    from scripts.transfer import transfer as transfer
    from scripts.tune import tune as tune
    from serving.answer import Answer as Answer
    from serving.answer import draw_answers as draw_answers
    from serving.answer_files import Answers as Answers
    from serving.run import Run as Run

from cxr_start import require_own_rooms

__version__ = "0.1.0"

# timm's download library asks notebooks for widgets of its own, which nothing here needs.
warnings.filterwarnings("ignore", "IProgress not found")

_VERBS = (
    "synth", "prepare", "check", "split", "configs", "train", "sweep", "curve",
    "import_predictions", "ensemble", "tune", "compare", "folds", "readers", "transfer", "plan",
    "export", "show", "predict", "overlay", "pacs", "serve",
    "monitor",
)  # fmt: skip
_HOMES = {
    **{verb: f"scripts.{verb}" for verb in _VERBS},
    "load": "scripts.runs",
    "draw_answers": "serving.answer",
    "Answer": "serving.answer",
    "Answers": "serving.answer_files",
    "InputError": "data_prep.contracts.errors",
    "Audit": "data_prep.audit.audit",
    "DataSet": "data_prep.store.dataset",
    "Decision": "evaluation.decisions.decision",
    "Predictions": "data_prep.store.predictions",
    "Report": "evaluation.report.result_tables",
    "Run": "serving.run",
}

__all__ = ["__version__", "metrics", *_HOMES]


def __getattr__(name: str) -> Any:
    if name != "metrics" and name not in _HOMES:
        raise AttributeError(f"module 'cxr_compare' has no attribute '{name}'")
    require_own_rooms()
    if name == "metrics":
        return import_module("evaluation.metrics.functions")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
