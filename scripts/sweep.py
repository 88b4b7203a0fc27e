"""`cxr sweep`: many trainings that differ in chosen keys, and which of them validates best."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from data_prep.store.folder_kinds import require_kind
from scripts import console
from scripts.configs import config_names
from scripts.next_steps import show_next
from scripts.options import (
    AddressOption,
    DespiteAuditOption,
    DeviceOption,
    DevicesOption,
    EngineOption,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from configs.search_space import Config
    from scripts.machines.child_processes import Machines
    from training.sweep import Sweep, SweepPlan

_STARTED, _SWEEP, _BEST = "sweep.started.json", "sweep.json", "best"
_OWN = {_STARTED, _SWEEP, "sweep.html", _BEST, "trials", "study.journal", "study.journal.lock"}


def sweep(
    config: Annotated[
        str,
        typer.Argument(
            help="A TOML file of a model, or the name of one that comes with the program.",
            autocompletion=config_names,
        ),
    ],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    out: Annotated[Path, typer.Option(help="Folder of the sweep: trials, page and best run.")],
    over: Annotated[
        list[str],
        typer.Option(
            metavar="KEY=VALUES",
            help="A key to vary: KEY=1e-4..1e-3 (from a tenfold range on a log scale, or as "
            "log:1..4 or linear:1..40 say), KEY=8,16,32 or KEY=true,false. May be repeated.",
        ),
    ],
    trials: Annotated[
        int, typer.Option(min=1, help="Trainings in all; a larger number goes on with a sweep.")
    ],
    jobs: Annotated[
        int, typer.Option(min=1, help="Trials at a time, each a process with its own devices.")
    ] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is tried.")] = 0,
    pruning: Annotated[
        bool,
        typer.Option("--pruning", help="Stop a trial that is behind the median of the others."),
    ] = False,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key in all trials."),
    ] = None,
    despite_audit: DespiteAuditOption = False,
    device: DeviceOption = "auto",
    devices: DevicesOption = 1,
    engine: EngineOption = "local",
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print sweep.json at the end.")] = False,
) -> None:
    """Train with several settings and keep the run with the best figure on validation.

    Trials are compared by the figure that picks a run's best epoch; test images are not read. The
    first trial is the configuration as it stands. May be interrupted: the same command goes on. One
    trial at a time, a sweep gives the same again; several at a time depend on which ends first.

    Example: cxr sweep chexnet_small --data out/data --out out/sweep --trials 8
    --over training.learning_rate=1e-4..1e-3 --over training.batch_size=8,16
    """
    from scripts.answers import require_packages
    from scripts.machines.child_processes import follow_parent
    from scripts.machines.devices import require_shares
    from scripts.train import audit_errors, origin, read_settings

    follow_parent()
    require_packages("sweep", ("optuna",))
    _require_started_once()
    settings = read_settings(config, set_ or [])
    from configs.load import dump_config
    from configs.search_space import in_words, read_space

    space = read_space(settings, over)
    if settings.training.batch_size != "auto":
        require_shares(settings.training.batch_size, devices)
    require_kind(data, "data set")
    from data_prep.store.dataset import DataSet

    dataset = DataSet.open(data)
    target = dataset.target(settings.data.target, option="--set data.target=NAME")
    objective, direction = _objective(settings)
    started = {
        "config": dump_config(settings),
        "space": {key: in_words(distribution) for key, distribution in space.items()},
        "objective": objective,
        "direction": direction,
        "sweep_seed": seed,
        "pruning": pruning,
        **origin(settings, dataset, target),
    }
    before = _require_same(out, settings, started)
    audit_errors(dataset, settings.data.split, despite_audit)
    from data_prep.contracts.folders import folder_lock, provenance
    from data_prep.contracts.json_files import write_json
    from scripts.machines.cluster import open_machines
    from training.sweep import Sweep, SweepPlan

    plan = SweepPlan(out, settings, space, objective, direction, seed, pruning)
    options = ["--device", device, "--devices", str(devices)]
    options += ["--despite-audit"] * despite_audit
    reads = (data, out / _STARTED)
    with (
        open_machines(
            engine, address, device=device, devices=devices, jobs=jobs, reads=reads
        ) as machines,
        folder_lock(out),
    ):
        if not before:
            write_json(out / _STARTED, "sweep_started", {**started, **provenance()})
        result = _run(Sweep(plan), trials, machines, started, data, options)
    _say_result(plan, result)
    show_next(out, data)
    if as_json:
        from data_prep.contracts.json_files import read_json

        console.emit_json(read_json(out / _SWEEP, "sweep"))


def _require_started_once() -> None:
    """Refuse several processes of a launcher, which would all sweep the same folder."""
    import os

    from training.processes import Rank

    if rank := Rank.of(os.environ):
        raise InputError(
            f"sweep: {rank.launcher} has started {rank.world_size} processes, and a sweep starts "
            "its trials itself; start it once, with --jobs"
        )


def _objective(settings: Config) -> tuple[str, Any]:
    """The figure on validation that trials are compared by, and whether a large one is good.

    It is what picks a run's best epoch; where that is the last one whatever its figures, it is
    what would by default.
    """
    monitor = settings.training.monitor
    if monitor == "epoch":
        monitor = type(settings.training).model_fields["monitor"].default
    return monitor, "minimize" if monitor == "val_loss" else "maximize"


def _require_same(out: Path, settings: Config, started: dict[str, Any]) -> bool:
    """Whether a sweep was started here; refuses another one, and a folder of something else."""
    from configs.load import first_difference, parse_config
    from data_prep.contracts.folders import LOCK
    from data_prep.contracts.json_files import read_json

    if not (out / _STARTED).is_file():
        held = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        if foreign := [name for name in held if name not in {*_OWN, LOCK}]:
            raise InputError(
                f"{out}: is not empty (it holds '{foreign[0]}') and is no sweep; choose another "
                "--out"
            )
        if out.exists() and not out.is_dir():
            raise InputError(f"{out}: a file stands where a folder is needed")
        return False
    before = read_json(out / _STARTED, "sweep_started")
    difference = first_difference(parse_config(before["config"], str(out / _STARTED)), settings)
    for part in ("space", "data_set"):
        for key in (*before[part], *started[part]):
            was, now = (each[part].get(key, "not there") for each in (before, started))
            if was != now:
                difference = difference or f"{key} was {was}, is now {now}"
    for key, option in (("sweep_seed", "--seed"), ("pruning", "--pruning")):
        if before[key] != started[key]:
            difference = difference or f"{option} was {before[key]}, is now {started[key]}"
    if difference:
        raise InputError(
            f"{out}: this sweep cannot go on with other settings or data: {difference}; give the "
            "old ones, or choose another --out"
        )
    return True


def _run(
    sweep: Sweep,
    trials: int,
    machines: Machines,
    started: dict[str, Any],
    data: Path,
    options: Sequence[str],
) -> dict[str, Any]:
    """Train what is missing; write the page after each trial, and the rest at the end."""
    from data_prep.contracts.json_files import write_json
    from evaluation.studies.sweep_page import write_page
    from scripts.machines.child_processes import Command, Running, run_commands

    plan = sweep.plan
    console.say(f"{plan.config.name}: {counted(trials, 'trial')}, {machines.jobs} at a time, over")
    for key, words in started["space"].items():
        console.say(f"  {key}: {words}")

    def show(number: int) -> None:
        records = sweep.records()
        console.say(_trial_line(plan, records, number, trials))
        write_page(_payload(plan, records, started), plan.folder)

    def commands() -> Iterator[Command]:
        for number, config in sweep.propose(trials, several=machines.jobs > 1):
            if config is None:
                show(number)
                continue
            run = sweep.run_folder(number)
            words = ["train", str(config), "--data", str(data), "--out", str(run), *options]
            yield Command(str(number), words, run.with_suffix(".log"), run)

    def ended(running: Running) -> bool:
        number = int(running.command.name)
        if running.stopped and (running.status or not _has_ended(sweep.run_folder(number))):
            sweep.prune(number)
            failed = False
        else:
            failed = sweep.conclude(number, running.problem())
        show(number)
        return failed

    def watch(running: Running) -> None:
        if sweep.falls_behind(int(running.command.name)):
            running.stop()

    run_commands(commands(), machines, ended=ended, watch=watch if plan.pruning else None)
    records = sweep.records()
    payload = _payload(plan, records, started)
    write_page(payload, plan.folder)
    if payload["best"] is None:
        raise InputError(
            f"{plan.folder}: none of {counted(len(records), 'trial')} has a figure on validation; "
            f"the last: {records[-1]['reason']}"
        )
    _keep_best(plan.folder, payload["best"]["run"])
    write_json(plan.folder / _SWEEP, "sweep", payload)
    n_ended = sum(record["state"] != "unfinished" for record in records)
    if n_ended < min(trials, plan.most or trials):
        last = records[-1]
        raise InputError(
            f"{plan.folder}: stopped, for the last trials all failed; trial {last['number']}: "
            f"{last['reason']}; the same command goes on"
        )
    return payload


def _has_ended(run: Path) -> bool:
    return (run / "run.json").is_file()


def _keep_best(folder: Path, run: str) -> None:
    """Copy the best run to where it is found by name, without what only resumes a training."""
    import shutil

    from data_prep.contracts.folders import LOCK, whole_folder
    from data_prep.contracts.json_files import read_json

    best, record = folder / _BEST, folder / _SWEEP
    if record.is_file() and best.is_dir():
        if read_json(record, "sweep")["best"]["run"] == run:
            return
        shutil.rmtree(best)
    with whole_folder(best) as copy:
        without = shutil.ignore_patterns("checkpoints", LOCK)
        shutil.copytree(folder / run, copy, ignore=without, dirs_exist_ok=True)


def _payload(
    plan: SweepPlan, records: Sequence[dict[str, Any]], started: dict[str, Any]
) -> dict[str, Any]:
    """What `sweep.json` and the page hold."""
    from configs.search_space import proposal_of, scale_of
    from data_prep.contracts.folders import provenance

    best = _best_of(records, plan.direction)
    values = [record["value"] for record in records if record["state"] == "complete"]
    spread = None
    if values:
        ends = {"low": min(values), "median": median(values), "high": max(values)}
        spread = {"n": len(values), **ends}
    return {
        **{key: value for key, value in started.items() if key != "config"},
        "scales": {key: scale_of(distribution) for key, distribution in plan.space.items()},
        "as_it_stands": None if proposal_of(plan.config, plan.space) is None else 0,
        "best": best and {**best, "folder": _BEST},
        "spread": spread,
        "trials": records,
        "provenance": provenance(),
    }


def _best_of(records: Sequence[dict[str, Any]], direction: str) -> dict[str, Any] | None:
    """The trial with the best value, the first of equals; None where none is complete."""
    complete = [record for record in records if record["state"] == "complete"]
    pick = max if direction == "maximize" else min
    return pick(complete, key=lambda record: record["value"], default=None)


def _trial_line(
    plan: SweepPlan, records: Sequence[dict[str, Any]], number: int, trials: int
) -> str:
    from evaluation.studies.sweep_page import short

    record = records[number]
    settings = ", ".join(
        f"{key.rpartition('.')[2]} {short(text)}" for key, text in record["settings"].items()
    )
    value = record["value"]
    figure = record["reason"] if value is None else f"{plan.objective} {value:.4f}"
    state = "" if record["state"] == "complete" else f"{record['state']}: "
    best = _best_of(records, plan.direction)
    so_far = "" if best is None else f"; best {best['value']:.4f} (trial {best['number']})"
    ended = sum(record["state"] != "unfinished" for record in records)
    return f"{ended} of {trials}: trial {number} ({settings}) {state}{figure}{so_far}"


def _say_result(plan: SweepPlan, result: dict[str, Any]) -> None:
    from evaluation.studies.sweep_page import PAGE, sentences

    if plan.most is not None and len(result["trials"]) >= plan.most:
        console.say("Every combination has been tried")
    for sentence in sentences(result):
        console.say(sentence)
    console.say(f"Best run: {plan.folder / _BEST}")
    console.say(f"Page:     {plan.folder / PAGE}")
