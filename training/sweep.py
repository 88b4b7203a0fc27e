"""The trials of `cxr sweep`: Optuna proposes settings, and is told what their runs reached."""

from __future__ import annotations

import csv
import itertools
import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from cxr_compare.configs.load import dump_config, first_difference, parse_config
from cxr_compare.configs.search_space import (
    Config,
    Space,
    combinations,
    in_words,
    proposal_of,
    read_space,
    scale_of,
    shown,
    values_of,
    with_values,
)
from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.locks import LOCK_NAME
from cxr_compare.data_prep.contracts.output_folders import atomic_folder, read_matching_record
from cxr_compare.data_prep.contracts.provenance import provenance

_JOURNAL = "study.journal"
_BEST = "best"  # the folder of the best run
_FIRST_PRUNED = 5  # trials are trained whole before others are compared with them
_FIRST_EPOCH = 2  # the first after which a trial may be stopped
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "unfinished",
}


@dataclass(frozen=True)
class SweepPlan:
    """What a sweep does, but for how many trials and how many at a time."""

    folder: Path  # the sweep's
    config: Config  # what trials have in common; the first trial is as it stands
    space: Space  # what they vary
    objective: str  # the figure on validation that trials are compared by
    direction: Literal["maximize", "minimize"]  # whether a large or a small one is good
    seed: int  # of the proposals
    pruning: bool  # whether a trial that falls behind is stopped

    @classmethod
    def of(
        cls, config: Config, over: Sequence[str], folder: Path, *, seed: int, pruning: bool
    ) -> SweepPlan:
        """What a configuration is varied over; the objective is what picks a run's best epoch.

        Where that is the last one whatever its figures, it is what would by default.
        """
        objective = config.training.monitor
        if objective == "epoch":
            objective = type(config.training).model_fields["monitor"].default
        direction: Literal["maximize", "minimize"] = (
            "minimize" if objective == "val_loss" else "maximize"
        )
        return cls(folder, config, read_space(config, over), objective, direction, seed, pruning)

    def started(self) -> dict[str, Any]:
        """What another call must find unchanged to go on."""
        return {
            "config": dump_config(self.config),
            "space": {key: in_words(distribution) for key, distribution in self.space.items()},
            "objective": self.objective,
            "direction": self.direction,
            "sweep_seed": self.seed,
            "pruning": self.pruning,
        }

    def record(self, started: Mapping[str, Any], file: str) -> dict[str, Any] | None:
        """What this sweep was started with before; refuses a folder of another one."""

        def question(facts: Mapping[str, Any]) -> dict[str, Any]:
            return {
                "config": parse_config(
                    facts["config"], f"{self.folder}: the sweep's configuration"
                ),
                **facts["space"],
                **facts["data_set"],
                "--seed": facts["sweep_seed"],
                "--pruning": facts["pruning"],
            }

        def refusal(key: str, was: Any, now: Any) -> str:
            if key == "config":
                difference = first_difference(was, now)
            else:
                was, now = ("not there" if value is None else value for value in (was, now))
                difference = f"{key} was {was}, is now {now}"
            return (
                f"this sweep cannot go on with other settings or data: {difference}; give the old "
                "ones, or choose another --out"
            )

        files = {file: "sweep_started"}
        return read_matching_record(
            self.folder, files, question(started), stored_settings=question, refusal=refusal
        )

    @property
    def most(self) -> int | None:
        """How many different trials there are; None where they are countless."""
        return combinations(self.space)


class Sweep:
    """A sweep's study in its folder; the caller holds the folder's lock."""

    def __init__(self, plan: SweepPlan) -> None:
        self.plan = plan
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = plan.folder / _JOURNAL
        _repair(journal)
        # Not the symbolic link that Optuna would lock with: some file systems have none.
        backend = JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
        self._study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name="sweep",
            direction=plan.direction,
            pruner=optuna.pruners.MedianPruner(_FIRST_PRUNED, n_warmup_steps=_FIRST_EPOCH),
            load_if_exists=True,
        )
        self._running: dict[int, Trial] = {}
        self._behind: dict[int, str] = {}  # why it was pruned
        self._reported: set[tuple[int, int]] = set()  # trial, epoch

    def run_folder(self, number: int) -> Path:
        """Where a trial's run lies; its configuration and its log lie beside it."""
        return self.plan.folder / "trials" / f"{number:03d}"

    def payload(self, started: Mapping[str, Any]) -> dict[str, Any]:
        """What ``sweep.json`` and the page hold; `started` as `SweepPlan.started`, and more."""
        plan, records = self.plan, self.records()
        complete = [record for record in records if record["state"] == "complete"]
        pick = max if plan.direction == "maximize" else min
        best = pick(complete, key=lambda record: record["value"], default=None)
        values = [record["value"] for record in complete]
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

    def keep_best(self, run: str) -> None:
        """Copy the best run to where it is found by name, without what only resumes a training."""
        folder = self.plan.folder
        best, record = folder / _BEST, folder / "sweep.json"
        if record.is_file() and best.is_dir():
            if read_json(record, "sweep")["best"]["run"] == run:
                return
            shutil.rmtree(best)
        with atomic_folder(best) as copy:
            without = shutil.ignore_patterns("checkpoints", LOCK_NAME)
            shutil.copytree(folder / run, copy, ignore=without, dirs_exist_ok=True)

    def records(self) -> list[dict[str, Any]]:
        """Every trial that was started, in order, as ``sweep.json`` holds them."""
        return [self._record(trial) for trial in self._started()]

    def _started(self, *states: TrialState) -> list[FrozenTrial]:
        return self._study.get_trials(deepcopy=False, states=states or tuple(_STATES))

    def _record(self, trial: FrozenTrial) -> dict[str, Any]:
        notes = trial.user_attrs
        proposed = {k: trial.params[k] for k in self.plan.space if k in trial.params}
        run = self.run_folder(notes.get("same_as", trial.number))
        return {
            "number": trial.number,
            "state": "repeated" if "same_as" in notes else _STATES[trial.state],
            "value": trial.value if trial.state == TrialState.COMPLETE else None,
            "best_epoch": notes.get("best_epoch"),
            "epochs": notes.get("epochs"),
            "settings": {key: shown(value) for key, value in values_of(proposed).items()},
            "seconds": notes.get("seconds"),
            "reason": notes.get("reason", ""),
            "run": run.relative_to(self.plan.folder).as_posix(),
        }

    def propose(self, trials: int, *, several: bool) -> Iterator[tuple[int, Path | None]]:
        """Trials until there are enough, `several` at a time: another call's unfinished ones first.

        Gives a trial's number, and the configuration to train it with; None where it has ended: its
        settings are those of another trial, or no configuration.
        """
        for unfinished in self._started(TrialState.RUNNING):
            trial = Trial(self._study, unfinished._trial_id)  # as Optuna makes them
            yield trial.number, self._configured(trial, several)
        while (number := len(self._started())) < trials:
            if self.plan.most is not None and len(self._proposed()) >= self.plan.most:
                return
            self._enqueue(number, trials)
            trial = self._study.ask()
            yield trial.number, self._configured(trial, several)

    def _configured(self, trial: Trial, several: bool) -> Path | None:
        """Propose a trial's settings and write its configuration; None where it is not trained.

        Random numbers follow from the seed and the trial's own number alone: a sweep that was
        interrupted proposes what one that was not would have.
        """
        plan = self.plan
        seed = int(np.random.SeedSequence([plan.seed, trial.number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=several)
        for key, distribution in plan.space.items():
            trial._suggest(key, distribution)  # what an interrupted call had proposed stays
        for other in self._started(TrialState.COMPLETE):
            if other.params == trial.params:
                trial.set_user_attr("same_as", other.number)
                reason = f"as trial {other.number}, not trained again"
                self._end(trial, value=other.value, reason=reason)
                return None
        name = f"{plan.config.name[:45]}, trial {trial.number}"
        values = {"name": name, **values_of(trial.params)}
        try:
            config = with_values(plan.config, values, f"trial {trial.number}")
        except InputError as error:
            self._end(trial, reason=str(error))
            return None
        run = self.run_folder(trial.number)
        file = make_folder(run.parent) / f"{run.name}.toml"
        write_text(file, dump_config(config))
        self._running[trial.number] = trial
        return file

    def _end(self, trial: Trial, *, value: float | None = None, **notes: Any) -> None:
        """Tell Optuna what a trial reached; without a value it has failed."""
        for name, note in notes.items():
            trial.set_user_attr(name, note)
        if value is None:
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, value)

    def _enqueue(self, number: int, trials: int) -> None:
        """Set the next trial's settings where they are not for Optuna to propose.

        The first has the configuration's own; where there are no more combinations than trials,
        each is tried once.
        """
        if self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return  # an interrupted call had come so far
        plan = self.plan
        if number == 0 and (own := proposal_of(plan.config, plan.space)):
            self._study.enqueue_trial(own)
        elif plan.most is not None and plan.most <= trials:
            taken = self._proposed()
            listed = [
                d.choices for d in plan.space.values() if isinstance(d, CategoricalDistribution)
            ]
            untried = next(values for values in itertools.product(*listed) if values not in taken)
            self._study.enqueue_trial(dict(zip(plan.space, untried, strict=True)))

    def _proposed(self) -> set[tuple[Any, ...]]:
        """Settings that trials have."""
        return {tuple(map(trial.params.get, self.plan.space)) for trial in self._started()}

    def falls_behind(self, number: int) -> bool:
        """Whether a trial is to be stopped: an epoch of it is behind the median of the others'."""
        trial = self._running[number]
        for epoch, figure in self._report(trial):
            if trial.should_prune():
                reason = f"{self.plan.objective} {figure:.3f} is behind the median of the others"
                self._behind[number] = f"epoch {epoch}: {reason}"
                return True
        return False

    def _report(self, trial: Trial) -> Iterator[tuple[int, float]]:
        """Tell Optuna the figures of epochs that it does not know yet; each as it is told."""
        path = self.run_folder(trial.number) / "metrics.csv"
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            epoch, figure = int(row["epoch"]), row[self.plan.objective]
            if (trial.number, epoch) not in self._reported and figure:
                self._reported.add((trial.number, epoch))
                trial.report(float(figure), step=epoch)
                yield epoch, float(figure)

    def prune(self, number: int) -> None:
        """Record that a trial was stopped, as `falls_behind` said."""
        trial = self._running.pop(number)
        trial.set_user_attr("reason", self._behind[number])
        trial.set_user_attr("epochs", sum(of == number for of, _ in self._reported))
        self._study.tell(number, state=TrialState.PRUNED)

    def conclude(self, number: int, problem: str | None) -> bool:
        """Record what a trial reached, or why its training failed; whether it has no figure."""
        trial = self._running.pop(number)
        if self.plan.pruning:
            for _ in self._report(trial):  # the last epochs, for trials to come
                pass
        if problem is not None:
            self._end(trial, reason=problem)
            return True
        info = read_json(self.run_folder(number) / "run.json", "run")
        value = info["best_value"]
        if info["monitor"] == "epoch":  # the last epoch is kept, whatever its figures
            value = info["best_figures"][self.plan.objective]
        notes = {key: info[key] for key in ("best_epoch", "epochs", "seconds")}
        if value is None:
            notes["reason"] = f"{self.plan.objective} is undefined on the validation images"
        self._end(trial, value=value, **notes)
        return value is None


def _repair(journal: Path) -> None:
    """Take away what a kill at the wrong moment leaves: Optuna's lock, and half of a last line."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if not journal.is_file():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        with atomic_path(journal) as temporary:
            temporary.write_bytes(content[: content.rfind(b"\n") + 1])
