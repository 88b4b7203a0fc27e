"""The trials of `cxr sweep`: Optuna proposes settings, and `cxr train` trains each as a run."""

from __future__ import annotations

import csv
import itertools
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from configs.load import dump_config
from configs.search_space import (
    Choice,
    Config,
    Dimension,
    as_text,
    combinations,
    value_at,
    with_values,
)
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import atomic_path, make_folder
from data_prep.contracts.json_files import read_json
from scripts.machines.child_processes import Command, Machines, Running, run_commands

JOURNAL = "study.journal"
TRIALS = "trials"
_STUDY = "sweep"
_FIRST_PRUNED = 5  # trials are trained whole before others are held against them
_FIRST_EPOCH = 2  # the first after which a trial may be stopped

State = Literal["complete", "failed", "pruned", "repeated", "unfinished"]


@dataclass(frozen=True)
class Plan:
    """What a sweep does, but for how many trials and how many at a time.

    Attributes:
        folder: The sweep's.
        config: What trials have in common; the first trial is as it stands.
        space: What they vary.
        data: Their data set.
        objective: The figure on validation that trials are compared by.
        direction: Whether a large or a small one is good.
        seed: Of the proposals.
        pruning: Whether a trial that falls behind is stopped.
        device: As of `cxr train`.
        devices: Of one trial.
        despite_audit: As of `cxr train`.
    """

    folder: Path
    config: Config
    space: Sequence[Dimension]
    data: Path
    objective: str
    direction: Literal["maximize", "minimize"]
    seed: int = 0
    pruning: bool = False
    device: str = "auto"
    devices: int = 1
    despite_audit: bool = False

    def run_folder(self, number: int) -> Path:
        """Where a trial's run lies."""
        return self.folder / TRIALS / f"{number:03d}"

    def log(self, number: int) -> Path:
        """What a trial's process wrote to its terminal."""
        return self.folder / TRIALS / f"{number:03d}.log"

    @property
    def most(self) -> int | None:
        """How many different trials there are; None where they are countless."""
        return combinations(self.space)


class TrialRecord(NamedTuple):
    """What became of a trial.

    Attributes:
        number: From 0.
        state: Complete, failed, pruned, repeated (it has the settings of another), or unfinished.
        value: The objective on validation; None where there is none.
        best_epoch: The epoch that was kept.
        epochs: How many were trained.
        settings: What was varied, as TOML writes it, by key.
        seconds: Of all epochs.
        reason: Why it failed, was pruned or not trained; empty of a complete one.
        run: Its folder, within the sweep's.
    """

    number: int
    state: State
    value: float | None
    best_epoch: int | None
    epochs: int | None
    settings: dict[str, str]
    seconds: float | None
    reason: str
    run: str


def open_study(plan: Plan) -> optuna.Study:
    """Open the sweep's study, or begin it; the caller holds the folder's lock."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    journal = plan.folder / JOURNAL
    _mend(journal)
    backend = JournalFileBackend(str(journal), lock_obj=_lock_of(journal))
    return optuna.create_study(
        storage=JournalStorage(backend),
        study_name=_STUDY,
        direction=plan.direction,
        pruner=optuna.pruners.MedianPruner(_FIRST_PRUNED, n_warmup_steps=_FIRST_EPOCH),
        load_if_exists=True,
    )


def _lock_of(journal: Path) -> JournalFileOpenLock:
    # Not the symbolic link that Optuna would take: some file systems have none.
    return JournalFileOpenLock(str(journal))


def _mend(journal: Path) -> None:
    """Take away what a kill at the wrong moment leaves: Optuna's lock, and half of a last line."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if not journal.is_file():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        with atomic_path(journal) as temporary:
            temporary.write_bytes(content[: content.rfind(b"\n") + 1])


def records(plan: Plan, study: optuna.Study) -> list[TrialRecord]:
    """Every trial that was begun, in order."""
    return [
        _record(plan, trial)
        for trial in study.get_trials(deepcopy=False)
        if trial.state != TrialState.WAITING
    ]


_STATES: dict[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "unfinished",
}


def _record(plan: Plan, trial: FrozenTrial) -> TrialRecord:
    noted = trial.user_attrs
    settings = {key: as_text(value) for key, value in _values(plan, trial.params).items()}
    run = plan.run_folder(noted.get("same_as", trial.number))
    return TrialRecord(
        number=trial.number,
        state="repeated" if "same_as" in noted else _STATES[trial.state],
        value=trial.value if trial.state == TrialState.COMPLETE else None,
        best_epoch=noted.get("best_epoch"),
        epochs=noted.get("epochs"),
        settings=settings,
        seconds=noted.get("seconds"),
        reason=noted.get("reason", ""),
        run=run.relative_to(plan.folder).as_posix(),
    )


def _values(plan: Plan, parameters: dict[str, Any]) -> dict[str, Any]:
    """What Optuna proposed, as values of the configuration."""
    return {
        each.key: each.values[each.texts.index(parameters[each.key])]
        if isinstance(each, Choice)
        else parameters[each.key]
        for each in plan.space
    }


def run_trials(
    plan: Plan,
    study: optuna.Study,
    trials: int,
    machines: Machines,
    on_trial: Callable[[int], None],
) -> None:
    """Train until a number of trials has ended; those that were interrupted first.

    Args:
        plan: What is varied.
        study: Of `open_study`.
        trials: How many there are in the end, with those of earlier calls.
        machines: Where they are trained.
        on_trial: Called with the number of each trial that has ended.

    Raises:
        KeyboardInterrupt: The user interrupted; unfinished trials go on in another call.
    """
    under_way = _UnderWay(plan, study, on_trial)

    def commands() -> Iterator[Command]:
        for trial in _coming(plan, study, trials, on_trial, several=machines.jobs > 1):
            under_way.trials[trial.number] = trial
            yield _command(plan, trial.number)

    run_commands(
        commands(),
        machines,
        ended=under_way.conclude,
        watch=under_way.prune_if_behind if plan.pruning else None,
    )


def _command(plan: Plan, number: int) -> Command:
    words = ["train", _config_file(plan, number), "--data", plan.data]
    words += ["--out", plan.run_folder(number), "--device", plan.device]
    words += ["--devices", plan.devices, *["--despite-audit"] * plan.despite_audit]
    return Command(
        str(number), [str(word) for word in words], plan.log(number), plan.run_folder(number)
    )


def _coming(
    plan: Plan, study: optuna.Study, trials: int, on_trial: Callable[[int], None], *, several: bool
) -> Iterator[Trial]:
    """Trials to train: unfinished ones, then new ones until there are enough."""
    unfinished = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
    for trial in (Trial(study, each._trial_id) for each in unfinished):  # as Optuna makes them
        if _has_settings(plan, study, trial, several):
            yield trial
        else:
            on_trial(trial.number)
    while (number := len(records(plan, study))) < trials:
        if plan.most is not None and len(_taken(plan, study)) >= plan.most:
            return
        _enqueue(plan, study, number, trials)
        trial = study.ask()
        if _has_settings(plan, study, trial, several):
            yield trial
        else:
            on_trial(trial.number)


def _has_settings(plan: Plan, study: optuna.Study, trial: Trial, several: bool) -> bool:
    """Propose a trial's settings and write them; False where there is nothing to train.

    Random numbers follow from the seed and the trial's own number alone: a sweep that was
    interrupted proposes what one that was not would have.
    """
    seed = int(np.random.SeedSequence([plan.seed, trial.number]).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=several)
    for each in plan.space:
        _suggest(trial, each)  # what an interrupted call had proposed stays
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    alike = next((t for t in complete if t.params == trial.params), None)
    if alike is not None:
        _note(trial, same_as=alike.number, reason=f"as trial {alike.number}, not trained again")
        study.tell(trial.number, alike.value)
        return False
    try:
        _write_config(plan, trial)
    except InputError as error:
        _note(trial, reason=str(error))
        study.tell(trial.number, state=TrialState.FAIL)
        return False
    return True


def _suggest(trial: Trial, each: Dimension) -> None:
    if isinstance(each, Choice):
        trial.suggest_categorical(each.key, each.texts)
    elif each.whole:
        trial.suggest_int(each.key, int(each.low), int(each.high), log=each.log, step=each.step)
    else:
        trial.suggest_float(each.key, each.low, each.high, log=each.log)


def _enqueue(plan: Plan, study: optuna.Study, number: int, trials: int) -> None:
    """Settle the next trial's settings where they are not for Optuna to propose.

    The first has the configuration's own; where there are no more combinations than trials, each
    is tried once.
    """
    if study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
        return  # an interrupted call had come so far
    if number == 0 and (base := as_it_stands(plan)):
        study.enqueue_trial(base)
    elif plan.most is not None and plan.most <= trials:
        study.enqueue_trial(_untried(plan, study))


def as_it_stands(plan: Plan) -> dict[str, Any] | None:
    """The configuration's own settings; None where one lies outside of what is varied."""
    own = {each.key: value_at(plan.config, each.key) for each in plan.space}
    if not all(each.holds(own[each.key]) for each in plan.space):
        return None
    return {e.key: as_text(own[e.key]) if isinstance(e, Choice) else own[e.key] for e in plan.space}


def _taken(plan: Plan, study: optuna.Study) -> set[tuple[Any, ...]]:
    """Settings that trials have."""
    keys = [each.key for each in plan.space]
    begun = (t for t in study.get_trials(deepcopy=False) if t.state != TrialState.WAITING)
    return {tuple(trial.params.get(key) for key in keys) for trial in begun}


def _untried(plan: Plan, study: optuna.Study) -> dict[str, Any]:
    """The first combination of listed values that no trial has."""
    taken = _taken(plan, study)
    grid = itertools.product(*(each.texts for each in plan.space if isinstance(each, Choice)))
    return dict(
        zip(
            (each.key for each in plan.space),
            next(each for each in grid if each not in taken),
            strict=True,
        )
    )


def _write_config(plan: Plan, trial: Trial) -> None:
    """Write what `cxr train` is given for a trial."""
    name = f"{plan.config.name[:45]}, trial {trial.number}"
    values = {"name": name, **_values(plan, trial.params)}
    config = with_values(plan.config, values, f"trial {trial.number}")
    with atomic_path(_config_file(plan, trial.number)) as temporary:
        temporary.write_text(dump_config(config), encoding="utf-8")


def _config_file(plan: Plan, number: int) -> Path:
    return make_folder(plan.folder / TRIALS) / f"{number:03d}.toml"


def _note(trial: Trial, **facts: Any) -> None:
    for name, value in facts.items():
        trial.set_user_attr(name, value)


class _UnderWay:
    """What is known of the trials under way."""

    def __init__(self, plan: Plan, study: optuna.Study, on_trial: Callable[[int], None]) -> None:
        self.trials: dict[int, Trial] = {}
        self._plan, self._study, self._on_trial = plan, study, on_trial
        self._behind: dict[int, str] = {}  # why it was pruned
        self._reported: set[tuple[int, int]] = set()  # trial, epoch

    def prune_if_behind(self, running: Running) -> None:
        """Stop a trial with an epoch that is behind the others'."""
        trial = self.trials[int(running.command.name)]
        for epoch, figure in self._report(trial):
            if trial.should_prune():
                said = f"{self._plan.objective} {figure:.3f} is behind the median of the others"
                self._behind[trial.number] = f"epoch {epoch}: {said}"
                running.stop()
                return

    def _report(self, trial: Trial) -> Iterator[tuple[int, float]]:
        """Tell Optuna the figures of epochs that it does not know yet; each as it is told."""
        path = self._plan.run_folder(trial.number) / "metrics.csv"
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            epoch, figure = int(row["epoch"]), row[self._plan.objective]
            if (trial.number, epoch) not in self._reported and figure:
                self._reported.add((trial.number, epoch))
                trial.report(float(figure), step=epoch)
                yield epoch, float(figure)

    def conclude(self, running: Running) -> bool:
        """Record what became of a trial; whether it failed."""
        trial = self.trials.pop(int(running.command.name))
        if self._plan.pruning and not running.stopped:
            for _ in self._report(trial):  # the last epochs, for trials to come
                pass
        failed = self._conclude(trial, running)
        self._on_trial(trial.number)
        return failed

    def _conclude(self, trial: Trial, running: Running) -> bool:
        plan, study = self._plan, self._study
        ended = plan.run_folder(trial.number) / "run.json"
        if running.stopped and (running.status or not ended.is_file()):
            epochs = sum(number == trial.number for number, _ in self._reported)
            _note(trial, reason=self._behind[trial.number], epochs=epochs)
            study.tell(trial.number, state=TrialState.PRUNED)
            return False
        reason = running.problem()
        if reason is None:
            info = read_json(ended, "run")
            value = info["best_value"]
            if info["monitor"] == "epoch":  # the last epoch is kept, whatever its figures
                value = info["best_figures"][plan.objective]
            _note(trial, **{key: info[key] for key in ("best_epoch", "epochs", "seconds")})
            if value is not None:
                study.tell(trial.number, value)
                return False
            reason = f"{plan.objective} is undefined on the validation images"
        _note(trial, reason=reason)
        study.tell(trial.number, state=TrialState.FAIL)
        return True


def best_of(made: Sequence[TrialRecord], direction: str) -> TrialRecord | None:
    """The trial with the best value, the first of equals; None where none is complete."""
    complete = [each for each in made if each.state == "complete" and each.value is not None]
    sign = -1 if direction == "maximize" else 1
    return min(complete, key=lambda each: sign * (each.value or 0.0), default=None)
