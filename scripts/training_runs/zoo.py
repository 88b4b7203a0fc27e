"""`cxr train` with a list of models: one after another, each in a process of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.machines.child_processes import problem_of
from scripts.machines.devices import child_environment, interrupt, require_shares
from scripts.machines.runtime import own_command
from scripts.next_steps import comparison

if TYPE_CHECKING:
    from configs.settings import ClassifierConfig
    from data_prep.store.dataset import DataSet

_GRACE = 60.0  # s, to end after Ctrl-C
_HEADINGS = ("model", "parameters", "that learn", "best epoch", "figure", "minutes", "")


class Outcome(NamedTuple):
    """What became of one model.

    Attributes:
        name: The model's.
        run: Its folder.
        problem: Why it has no run; None where it has.
    """

    name: str
    run: Path
    problem: str | None


def read_models(config: str, overrides: Sequence[str]) -> list[ClassifierConfig] | None:
    """The models of a zoo's configuration; None where it is one of a single model."""
    from configs.load import find_config, is_zoo, read_zoo

    path = find_config(config)
    return read_zoo(path, overrides) if is_zoo(path) else None


def train_models(
    models: Sequence[ClassifierConfig],
    data: Path,
    out: Path,
    *,
    resume: bool = True,
    despite_audit: bool = False,
    device: str = "auto",
    devices: int = 1,
    as_json: bool = False,
) -> None:
    """Train models one after another, and show them in one table.

    Each has its own process: memory is free again after each, and what kills one leaves the
    others. One that has ended before is not trained again; an interrupted one goes on.
    """
    from configs.load import dump_config, folder_name
    from data_prep.contracts.folders import atomic_path
    from data_prep.store.dataset import DataSet
    from scripts.machines.runtime import choose_device
    from training.run_folder import RunFolder

    dataset = DataSet.open(data)
    if RunFolder.started_in(out) is not None:
        raise InputError(f"{out}: is a run; choose a folder for all the runs as --out")
    if device not in ("auto", "cpu") or devices > 1:
        choose_device(device, devices)
    _require_one_that_can_learn(dataset, models, devices)
    out.mkdir(parents=True, exist_ok=True)
    outcomes = []
    for number, model in enumerate(models, 1):
        run, file = out / folder_name(model.name), out / f"{folder_name(model.name)}.toml"
        console.say(f"\n{model.name} ({number} of {len(models)}): {run}")
        problem = None
        if resume and _has_ended(run, model):
            console.say("this training has ended before")
        else:
            with atomic_path(file) as temporary:
                temporary.write_text(dump_config(model), encoding="utf-8")
            words = ["train", file, "--data", data, "--out", run, "--device", device]
            words += ["--devices", devices, "--resume" if resume else "--no-resume"]
            words += ["--despite-audit"] * despite_audit
            problem = problem_of(_run([str(word) for word in words]))
        outcomes.append(Outcome(model.name, run, problem))
    for line in _table(outcomes):
        console.say(line)
    if failed := [outcome.name for outcome in outcomes if outcome.problem]:
        console.say(
            f"\n{len(failed)} of {len(models)} models failed: {', '.join(failed)}; what went wrong "
            "is said above, and the same command tries them again"
        )
        raise SystemExit(1)
    console.next_step(comparison([outcome.run for outcome in outcomes], out, data))
    if as_json:
        console.emit_json([RunFolder.open(outcome.run).info for outcome in outcomes])


def _require_one_that_can_learn(
    dataset: DataSet, models: Sequence[ClassifierConfig], devices: int
) -> None:
    """Refuse at once what would fail model by model.

    An error of one model leaves the others, so all are tried; most have the same settings.
    """
    from scripts.training_runs.images import labelled_images

    if not dataset.has_pixels:
        raise InputError(
            f"{dataset.folder}: has no pixels to learn from; prepare it with its images"
        )
    first: InputError | None = None
    settings = [(m.data.target, m.data.split, m.training.batch_size) for m in models]
    for target, split, batch_size in dict.fromkeys(settings):
        try:
            require_shares(batch_size, devices)
            labelled_images(dataset, dataset.target(target), split)
        except InputError as error:
            first = first or error
        else:
            return
    if first is not None:
        raise first


def _has_ended(run: Path, model: ClassifierConfig) -> bool:
    """Whether this very training is complete, with the decision that ends it."""
    from configs.load import first_difference, parse_config
    from training.run_folder import RunFolder

    before = RunFolder.started_in(run)
    if before is None or not before.is_complete:
        return False
    if not before.decision_file(before.started["target"]).is_file():
        return False  # cxr train adds it
    try:
        return first_difference(parse_config(before.config, str(run)), model) is None
    except InputError:
        return False  # cxr train reports why


def _run(arguments: list[str]) -> int:
    """The exit status of a `cxr` command, which gets Ctrl-C once and does not outlive this."""
    command = own_command("scripts.cli", *arguments)
    child = subprocess.Popen(  # noqa: S603  our own command
        command, env=child_environment(), stdin=subprocess.DEVNULL, process_group=0
    )
    try:
        return child.wait()
    except KeyboardInterrupt:
        interrupt(child)
        with suppress(subprocess.TimeoutExpired):
            child.wait(_GRACE)
        raise
    finally:
        child.kill()
        child.wait()


def _table(outcomes: Sequence[Outcome]) -> list[str]:
    """The models' cost and best figure on validation, as lines of text.

    Example:
        >>> _table([Outcome("VGG16", Path("runs/vgg16"), "ended by SIGKILL")])[-1].split()
        ['VGG16', '-', '-', '-', '-', '-', 'ended', 'by', 'SIGKILL']
    """
    rows = [_HEADINGS, *(_row(outcome) for outcome in outcomes)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    return ["", *(_line(row, widths) for row in rows)]


def _row(outcome: Outcome) -> tuple[str, ...]:
    from training.run_folder import RunFolder

    if outcome.problem:
        return (outcome.name, *"-----", outcome.problem)
    info = RunFolder.open(outcome.run).info
    return (
        outcome.name,
        f"{info['parameters']:,}" if "parameters" in info else "-",
        f"{info['trainable_parameters']:,}" if "trainable_parameters" in info else "-",
        f"{info['best_epoch']} of {info['epochs']}",
        f"{info['monitor']} {info['best_value']:.4f}",
        f"{info['seconds'] / 60:.1f}",
        str(outcome.run),
    )


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [row[0].ljust(widths[0])]
    cells += [cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True)]
    return "  ".join([*cells, row[-1]]).rstrip()
