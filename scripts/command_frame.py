"""The frame of a command: the one module of the command line that annexes import, with `console`.

A command of an annex, or of somebody else's package, is a typed function with the decorator
`command` and an entry point of the group ``cxr_compare.commands``. This module offers what such a
function needs: the types of its parameters, the options that several commands share, how runs,
predictions and systems are opened, and the class of its result.
"""

from __future__ import annotations

from cxr_compare.scripts.given_systems import SystemPaths, Systems, read_systems
from cxr_compare.scripts.options import (
    Backend,
    Counts,
    DataFolder,
    Device,
    Images,
    Names,
    Policy,
    Precision,
    Settings,
    choose_images,
    config_names,
    open_workers,
    own_split,
    read_numbers,
    settings_words,
)
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.scripts.runs import (
    Runs,
    RunsAndImages,
    open_runs,
    parse_runs,
    read_paths,
    require_backends,
    say_cautions,
    sort_paths,
)
from cxr_compare.scripts.runtime import choose_device, load_model, runs_on_gpu
from cxr_compare.scripts.systems import open_predictions, predict_once

__all__ = [
    # a command, its parameters and its result
    "command",
    "AnyPath",
    "Argument",
    "as_path",
    "Outcome",
    # options that several commands share
    "Backend",
    "Counts",
    "DataFolder",
    "Device",
    "Images",
    "Names",
    "Policy",
    "Precision",
    "Settings",
    "choose_images",
    "config_names",
    "open_workers",
    "own_split",
    "read_numbers",
    "settings_words",
    # runs, and images to predict with them
    "Runs",
    "RunsAndImages",
    "choose_device",
    "load_model",
    "open_runs",
    "parse_runs",
    "predict_once",
    "read_paths",
    "require_backends",
    "runs_on_gpu",
    "say_cautions",
    "sort_paths",
    # predictions, and systems as NAME=PATH
    "SystemPaths",
    "Systems",
    "open_predictions",
    "read_systems",
]
