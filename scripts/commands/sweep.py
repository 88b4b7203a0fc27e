"""`cxr sweep`: train with many settings, and find the one that validates best."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, Any

from cxr_compare.data_prep.contracts.errors import (
    TRAIN_PACKAGES,
    InputError,
    counted,
    require_packages,
)
from cxr_compare.data_prep.contracts.json_files import write_json
from cxr_compare.data_prep.contracts.locks import folder_lock, remove_leftovers
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.scripts import console
from cxr_compare.scripts.child_processes import Command, Running, follow_parent, run_commands
from cxr_compare.scripts.cluster import open_machines
from cxr_compare.scripts.next_steps import next_steps
from cxr_compare.scripts.options import (
    DataFolder,
    Settings,
    chosen_device,
    chosen_engine,
    config_names,
    trains_despite_audit,
)
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.runner import command
from cxr_compare.training.rank import Rank

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from cxr_compare.scripts.child_processes import Machines
    from cxr_compare.training.sweep import Sweep

_STARTED = "sweep.started.json"
_SWEEP = "sweep.json"
_SEED = 0  # random seed of the settings that are tried
_OWN = {_STARTED, _SWEEP, "sweep.html", "best", "trials", "study.journal", "study.journal.lock"}


@command
def sweep(
    config: Annotated[str, Argument(completions=config_names)],
    *,
    data: DataFolder,
    out: AnyPath,
    over: Annotated[list[str], Argument(metavar="KEY=VALUES")],
    trials: Annotated[int, Argument(minimum=1)],
    jobs: Annotated[int, Argument(minimum=1)] = 1,
    pruning: bool = False,
    set_: Settings = None,
) -> Outcome:
    """Train with several settings; the best run on validation is kept.

    Each training is a trial. Trials are compared by the validation figure that also chooses the
    best epoch of a run. The first trial is the configuration without changes. If the command is
    interrupted, run it again: it continues.

    Args:
        config: Configuration to start from: a name that cxr configs lists, or a TOML file.
        data: Data set that cxr prepare made.
        out: Folder of the sweep, which holds the trials, the page and the best run.
        over: Key to vary, with its values: KEY=8,16,32, KEY=true,false or a range KEY=1e-4..1e-3. A
            range whose ends differ tenfold or more is searched on a log scale; linear:1..40 or
            log:1..4 chooses the scale.
        trials: Total number of trials. A larger number continues an earlier sweep.
        jobs: Number of trainings that run at the same time. Each is a process; with GPUs each takes
            one.
        pruning: Stop a trial that is worse than the median of the others. It saves time, but may
            stop a trial that would have improved later.
        set_: Replace a key in all trials, as in cxr train. A key of --over cannot be replaced.

    Returns:
        The best trial as a sentence. The JSON file of the folder holds all trials.

    Raises:
        InputError: The folder holds another sweep, a key is unknown, or no trial has a figure.

    Example:
        cxr sweep chexnet_small --data out/data --out out/sweep --trials 8
        --over training.learning_rate=1e-4..1e-3 --over training.batch_size=8,16
    """
    data = as_path(data)
    out = as_path(out)
    device = chosen_device()
    despite_audit = trains_despite_audit()
    follow_parent()
    require_packages("sweep", "sweep", ("optuna", *TRAIN_PACKAGES))
    _require_started_once()
    from cxr_compare.evaluation.studies.sweep_page import PAGE, sentences
    from cxr_compare.training.request import Request
    from cxr_compare.training.sweep import Sweep, SweepPlan

    request = Request.read(config, set_, data, out, devices=1, despite_audit=despite_audit)
    plan = SweepPlan.from_config(request.settings, over, out, seed=_SEED, pruning=pruning)
    started = {**plan.started(), **request.origin()}
    before = plan.record(started, _STARTED)
    if before is None:
        require_only_files(out, _OWN, "sweep")
    request.audit_errors(console)
    options = ["--device", device]
    if despite_audit:
        options.append("--despite-audit")
    reads = (data, out / _STARTED)
    engine = chosen_engine()
    with (
        open_machines(*engine, device=device, devices=1, jobs=jobs, reads=reads) as machines,
        folder_lock(out),
    ):
        if before is None:
            write_json(out / _STARTED, "sweep_started", {**started, **provenance()})
        result = _run(Sweep(plan), trials, machines, started, data, options)
    tried_all = plan.most is not None and len(result["trials"]) >= plan.most
    lines = ["Every combination has been tried"] if tried_all else []
    lines += [*sentences(result), f"Best run: {out / 'best'}", f"Page:     {out / PAGE}"]
    return Outcome(
        "\n".join(lines),
        file=out / _SWEEP,
        page=out / PAGE,
        next_steps=tuple(next_steps(out, data)),
    )


def _require_started_once() -> None:
    """Refuse several processes of a launcher, which would all sweep the same folder."""
    if rank := Rank.from_environment(os.environ):
        raise InputError(
            f"sweep: {rank.launcher} has started {rank.world_size} processes, and a sweep starts "
            "its trials itself; start it once, with --jobs"
        )


def _run(
    sweep: Sweep,
    trials: int,
    machines: Machines,
    started: dict[str, Any],
    data: Path,
    options: Sequence[str],
) -> dict[str, Any]:
    """Train what is missing; write the page after each trial, and the rest at the end."""
    from cxr_compare.evaluation.studies.sweep_page import trial_line, write_page

    plan = sweep.plan
    console.say(f"{plan.config.name}: {counted(trials, 'trial')}, {machines.jobs} at a time, over")
    for key, words in started["space"].items():
        console.say(f"  {key}: {words}")

    def show(number: int) -> None:
        payload = sweep.payload(started)
        console.say(trial_line(payload, number, trials))
        write_page(payload, plan.folder)

    def started_commands() -> Iterator[Command]:
        for number, config in sweep.propose(trials, several=machines.jobs > 1):
            if config is None:
                show(number)
                continue
            run = sweep.run_folder(number)
            words = ["train", str(config), "--data", str(data), "--out", str(run), *options]
            yield Command(str(number), words, run.with_suffix(".log"), run)

    def ended(running: Running) -> bool:
        number = int(running.command.name)
        has_ended = (sweep.run_folder(number) / "run.json").is_file()
        if running.stopped and (running.status or not has_ended):
            sweep.prune(number)
            failed = False
        else:
            failed = sweep.conclude(number, running.problem())
        remove_leftovers(sweep.run_folder(number))  # of a trial that was killed; it has ended
        show(number)
        return failed

    def watch(running: Running) -> None:
        if sweep.falls_behind(int(running.command.name)):
            running.stop()

    run_commands(started_commands(), machines, ended=ended, watch=watch if plan.pruning else None)
    payload = sweep.payload(started)
    records = payload["trials"]
    write_page(payload, plan.folder)
    if payload["best"] is None:
        raise InputError(
            f"{plan.folder}: none of {counted(len(records), 'trial')} has a figure on validation; "
            f"the last: {records[-1]['reason']}"
        )
    sweep.keep_best(payload["best"]["run"])
    write_json(plan.folder / _SWEEP, "sweep", payload)
    n_ended = sum(record["state"] != "unfinished" for record in records)
    if n_ended < min(trials, plan.most or trials):
        last = records[-1]
        raise InputError(
            f"{plan.folder}: stopped, for the last trials all failed; trial {last['number']}: "
            f"{last['reason']}; the same command goes on"
        )
    return payload
