"""Runs and exports that a command is given, and how they are loaded."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeAlias

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.keywords import with_known_keywords
from cxr_compare.data_prep.store.identify_folder import (
    find_folders,
    folder_kind,
    require_kind,
    unfinished_kind,
)
from cxr_compare.scripts import console
from cxr_compare.scripts.command_line import errors_in_python
from cxr_compare.scripts.options import split_name
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runtime import choose_device, runs_on_gpu, tune_cpu
from cxr_compare.serving.backends import choose_backend, require_torch
from cxr_compare.serving.export_spec import is_export, is_joint

if TYPE_CHECKING:
    from cxr_compare.serving.predictor import Predictor
    from cxr_compare.serving.run import Run


_MOST_RUNS = 4  # that a message suggests


class RunGiven(NamedTuple):
    """A training (run), or an export of its network, that the user named."""

    name: str | None
    path: Path


PathsGiven: TypeAlias = AnyPath | Sequence[AnyPath]
"""Runs and images as texts, paths or opened runs: one of them, or several."""


def read_paths(value: PathsGiven | Sequence[PathsGiven]) -> tuple[str, ...]:
    """Return trainings and images given from Python as words of the command line.

    A path may be an opened run or ``NAME=PATH``; lists may be nested.

    Example:
        >>> read_paths([Path("out/a"), ["b.png", "A=out/c"]])
        ('out/a', 'b.png', 'A=out/c')
    """
    if isinstance(value, Sequence) and not isinstance(value, str):
        return tuple(word for item in value for word in read_paths(item))
    return (str(as_path(value)),)


RunsAndImages = Annotated[
    PathsGiven, Argument(read=read_paths, metavar="RUN [RUN ...] IMAGE|FOLDER ...")
]
Runs = Annotated[PathsGiven, Argument(read=read_paths, metavar="RUN|EXPORT ...")]


def parse_runs(words: Sequence[str], command: str) -> list[RunGiven]:
    """Read the words of a command that takes only trainings (runs) and exports of their networks.

    `words` are ``PATH`` or ``NAME=PATH``. `command` is the beginning of the command line for
    messages, such as ``cxr serve``. Raises InputError if a path is neither a run nor an export.
    """
    runs = [_named_path(text) for text in words]
    for _, path in runs:
        kind = folder_kind(path) if path.is_dir() and not is_joint(path) else None
        if kind is not None and kind.name in ("data set", "predictions", "report"):
            what = "holds predictions" if kind.name == "predictions" else f"is {kind.with_article}"
            raise InputError(
                f"{path}: {what}, and {command} needs a run of cxr train or an "
                f"export of one; {_command_with_runs(path, command)}"
            )
        if not is_run_or_export(path):
            raise InputError(
                f"{path}: is neither a run of cxr train nor an export of one; give such a folder"
            )
    return runs


def _command_with_runs(folder: Path, command: str) -> str:
    """Return the command with the runs beside a folder, or the one that makes a run."""
    beside = find_folders(folder.parent).get("run", [])
    if beside:
        return f"run: {command} {shlex.join(map(str, beside[:_MOST_RUNS]))}"
    kind = folder_kind(folder)
    if kind is None or kind.name != "data set":
        return f"run: {command} RUN"
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.scripts.next_steps import trainings

    steps = trainings(DataSet.open(folder))
    if not steps or not steps[0].startswith("cxr train"):
        return f"run: {command} RUN"
    words = shlex.split(steps[0])
    run = shlex.quote(words[words.index("--out") + 1])
    return f"train one first: {steps[0]}; then run: {command} {run}"


def sort_paths(words: Sequence[str]) -> tuple[list[RunGiven], list[Path]]:
    """Separate the words of a command into trainings (runs) with their exports, and images.

    A training or an export is ``PATH`` or ``NAME=PATH``. Raises InputError if there is no training
    or no image, a path does not exist, or NAME=PATH names something else than a training.
    """
    runs: list[RunGiven] = []
    sources = []
    for text in words:
        name, path = given = _named_path(text)
        if path.is_dir() and (kind := folder_kind(path)) is not None and kind.name == "data set":
            others = [
                word for word in words if word != text and is_run_or_export(_named_path(word).path)
            ]
            command = shlex.join(["cxr", "predict", *(others or ["RUN"]), "--data", str(path)])
            raise InputError(
                f"{path}: is a data set; to predict its validation and test images, run: {command} "
                "--out OUT"
            )
        if is_run_or_export(path):
            runs.append(given)
        elif name is not None:
            raise InputError(f"{text}: {path} is not a run; NAME=PATH names a folder of cxr train")
        else:
            sources.append(path)
    if not runs:
        raise InputError(
            "predict: give at least one run, a folder that cxr train made, or an export of one"
        )
    if not sources:
        raise InputError("predict: give images or folders of images behind the run, or --data")
    return runs, sources


def _named_path(text: str) -> RunGiven:
    """Read ``PATH`` or ``NAME=PATH``; the path must exist."""
    name, path = split_name(text)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    return RunGiven(name, path)


def is_run_or_export(path: Path) -> bool:
    """Return True for the folder of an ended training (run) or of an export of its network.

    False for a path that `cxr` did not make, such as a folder of images. Raises InputError if the
    training has not ended, or the folder is another one that `cxr` made.
    """
    if not path.is_dir():
        return False
    if is_joint(path):
        return True
    kind = folder_kind(path)
    begun = unfinished_kind(path)
    if kind is not None and kind.name == "export":
        return True
    if "run" in (folder.name for folder in (kind, begun) if folder):
        require_kind(path, "run")
        return True
    if kind is not None and kind.name == "data set":
        raise InputError(f"{path}: is a data set; give a run of cxr train")
    if kind is not None and kind.name == "predictions":
        raise InputError(f"{path}: holds predictions; give the run that made them")
    if kind is None and "run" in find_folders(path):
        require_kind(path, "run")
    return False


def require_backends(runs: Sequence[RunGiven], options: dict[str, Any]) -> None:
    """Check that all trained networks can predict on this machine, before anything is written.

    This depends on the installed packages and on the options ``backend`` and ``precision``. Raises
    InputError if an export or a package is missing.
    """
    for _, path in runs:
        choose_backend(path, options["backend"], options["precision"])


def open_runs(runs: Sequence[RunGiven], options: dict[str, Any]) -> list[Run]:
    """Load trainings (runs) and exports of their networks for prediction.

    A run without a name that has the same name as another one gets the name of its folder. The user
    sees which runs have no threshold or no out-of-distribution check.

    The options are ``policy`` (name of the rule whose threshold decides), ``backend``,
    ``precision`` and ``device``. Raises InputError if a folder is damaged, two runs have the same
    name, there is no such threshold or device, or a package is missing.
    """
    backend, precision, device = (options[key] for key in ("backend", "precision", "device"))
    gpu = backend == "auto" and runs_on_gpu(device)
    engines = [choose_backend(path, backend, precision, gpu=gpu) for _, path in runs]
    if backend == "auto":
        for words in dict.fromkeys(engine.words for engine in engines):
            console.say(words)
    if any(engine.backend == "torch" for engine in engines):
        tune_cpu()
        device = choose_device(device)
    loaded = [
        _open(
            engine.folder,
            name=name,
            policy=options["policy"],
            device=device,
            precision="bf16" if engine.precision == "bf16" else "fp32",
        )
        for engine, (name, _) in zip(engines, runs, strict=True)
    ]
    names = [run.name for run in loaded]
    for run, (name, _) in zip(loaded, runs, strict=True):
        if names.count(run.name) > 1 and not name:
            run.name = run.folder.name
    names = [run.name for run in loaded]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise InputError(f"two runs are called '{repeated[0]}'; give each its own: NAME=RUN")
    for run in loaded:
        if run.undecided_because:
            console.say(f"{run.name}: undecided: {run.undecided_because}")
        if run.guard is None:
            from cxr_compare.serving.guard import how_to_add_guard

            console.say(
                f"{run.name}: has no guard, which tells what is no chest X-ray; "
                f"{how_to_add_guard(run.folder)}"
            )
    return loaded


def say_cautions(runs: Sequence[Run]) -> list[Run]:
    """Return runs after printing what limits all their predictions, such as that one guesses."""
    for run in runs:
        for caution in run.cautions:
            console.say(f"CAUTION: {caution}")
    return list(runs)


def _open(folder: str | Path, model: Predictor | None = None, **how: Any) -> Run:
    from cxr_compare.serving.run import Run

    run = Run.open(folder, **how)
    if model is not None:
        run.model = model
    return run.load()


@with_known_keywords
def load(
    run: str | Path, *, device: str = "auto", precision: Literal["fp32", "bf16"] = "fp32"
) -> Run:
    """Load a training of ``cxr train``, or an export of its network, to predict single images.

    Args:
        run: Folder of the run or the export.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        precision: Number format of the computation. Thresholds were chosen at ``fp32``; at another
            format images stay undecided. An export ignores it.

    Returns:
        The loaded run; its method `predict` predicts images.

    Raises:
        InputError: The folder holds no complete run or export, or there is no such device.
    """
    run = as_path(run)
    if not run.is_dir():  # before torch is imported, which takes seconds
        raise InputError(f"{run}: no such folder; give the folder of a run of cxr train")
    with errors_in_python(load):
        if is_export(run):
            return _open(run)
        if is_joint(run):
            choose_backend(run)
        else:
            require_torch(run)
        tune_cpu()
        return _open(run, device=choose_device(device), precision=precision)
