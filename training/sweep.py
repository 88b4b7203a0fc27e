"""The trials of `cxr sweep`. Optuna proposes their settings, and receives their figures."""

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
    describe_distribution,
    format_value,
    proposal_of,
    read_space,
    scale_of,
    values_of,
    with_values,
)
from cxr_compare.configs.settings import ProbeConfig
from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json
from cxr_compare.data_prep.contracts.locks import LOCK_NAME
from cxr_compare.data_prep.contracts.output_folders import atomic_folder, read_matching_record
from cxr_compare.data_prep.contracts.provenance import provenance

_JOURNAL = "study.journal"
_BEST = "best"  # folder of the best run
_FIRST_PRUNED = 5  # trials that are trained whole before others are compared with them
_FIRST_EPOCH = 2  # first epoch after which a trial may be stopped
_STATES = {
    TrialState.COMPLETE: "complete",
    TrialState.FAIL: "failed",
    TrialState.PRUNED: "pruned",
    TrialState.RUNNING: "unfinished",
}


@dataclass(frozen=True)
class SweepPlan:
    """Settings of a sweep: trainings (trials) that vary some keys of one configuration.

    The plan does not include the number of trials, so that a later call may ask for more.

    Attributes:
        folder: Folder of the sweep.
        config: Configuration that the trials share. The first trial uses it unchanged.
        space: Distribution of the values of each varied key of the configuration, by
            ``section.key``.
        objective: Name of the metric on validation images by which trials are compared, such as
            ``auroc``.
        direction: ``maximize`` if a larger value of `objective` is better, else ``minimize``.
        seed: Random seed of the proposed values.
        pruning: True stops a trial early if its metric is behind the median of the others.
    """

    folder: Path
    config: Config
    space: Space
    objective: str
    direction: Literal["maximize", "minimize"]
    seed: int
    pruning: bool

    @classmethod
    def from_config(
        cls, config: Config, over: Sequence[str], folder: Path, *, seed: int, pruning: bool
    ) -> SweepPlan:
        """Plan a sweep that compares trials by the metric that selects a training's best epoch.

        If the configuration keeps the last epoch whatever its metrics are, the default metric is
        taken.

        Args:
            config: Configuration that all trials share.
            over: Keys to vary with their values, as ``section.key=LOW..HIGH`` or
                ``section.key=A,B``.
            folder: Folder of the sweep.
            seed: Random seed of the proposals.
            pruning: True stops a trial early if its metric is behind the median of the others.

        Returns:
            The plan; no file is written.

        Raises:
            InputError: A key cannot be varied, or a value is not allowed for it.
        """
        if isinstance(config, ProbeConfig):
            raise InputError(
                "sweep: a probe chooses its penalty itself, on validation; fit it with cxr train"
            )
        objective = config.training.monitor
        if objective == "epoch":
            objective = type(config.training).model_fields["monitor"].default
        direction: Literal["maximize", "minimize"] = (
            "minimize" if objective == "val_loss" else "maximize"
        )
        return cls(folder, config, read_space(config, over), objective, direction, seed, pruning)

    def started(self) -> dict[str, Any]:
        """Return the settings that a later call must not change when it continues the sweep.

        Returns:
            Settings by name, ready for JSON.
        """
        return {
            "config": dump_config(self.config),
            "space": {
                key: describe_distribution(distribution) for key, distribution in self.space.items()
            },
            "objective": self.objective,
            "direction": self.direction,
            "sweep_seed": self.seed,
            "pruning": self.pruning,
        }

    def record(self, started: Mapping[str, Any], file: str) -> dict[str, Any] | None:
        """Return the settings of an earlier call if this call may continue its sweep.

        Args:
            started: Settings of the present call, from the method `started`, and ``data_set``: the
                ids of the data set.
            file: Name of the JSON file in the sweep's folder that stores the settings.

        Returns:
            Content of that file; None if the folder has no such file.

        Raises:
            InputError: The folder holds a sweep with other settings or data.
        """

        def settings_of(facts: Mapping[str, Any]) -> dict[str, Any]:
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
                was = "not there" if was is None else was
                now = "not there" if now is None else now
                difference = f"{key} was {was}, is now {now}"
            return (
                f"this sweep cannot go on with other settings or data: {difference}; give the old "
                "ones, or choose another --out"
            )

        files = {file: "sweep_started"}
        return read_matching_record(
            self.folder, files, settings_of(started), stored_settings=settings_of, refusal=refusal
        )

    @property
    def most(self) -> int | None:
        """Number of different trainings that the varied keys allow; None if it is infinite."""
        return combinations(self.space)


class Sweep:
    """The trials (trainings) of a sweep, whose settings an Optuna study proposes.

    The caller has locked the folder.

    Args:
        plan: Settings of the sweep.
    """

    def __init__(self, plan: SweepPlan) -> None:
        self.plan = plan
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        journal = plan.folder / _JOURNAL
        _repair_journal(journal)
        # Optuna would lock with a symbolic link, which some file systems lack.
        backend = JournalFileBackend(str(journal), lock_obj=JournalFileOpenLock(str(journal)))
        self._study = optuna.create_study(
            storage=JournalStorage(backend),
            study_name="sweep",
            direction=plan.direction,
            pruner=optuna.pruners.MedianPruner(_FIRST_PRUNED, n_warmup_steps=_FIRST_EPOCH),
            load_if_exists=True,
        )
        self._running: dict[int, Trial] = {}
        self._pruning_reasons: dict[int, str] = {}  # reason by number of the trial
        self._reported: set[tuple[int, int]] = set()  # pairs of trial and epoch

    def run_folder(self, number: int) -> Path:
        """Return the folder of a trial's training; its configuration and its log lie beside it.

        Args:
            number: Number of the trial, from 0.
        """
        return self.plan.folder / "trials" / f"{number:03d}"

    def payload(self, started: Mapping[str, Any]) -> dict[str, Any]:
        """Return the content of ``sweep.json`` and of the HTML page about the sweep.

        Args:
            started: Settings from `SweepPlan.started`, and facts about the data set.

        Returns:
            Values for JSON by name: the settings, the best trial (None if none has ended), the
            range of the metric over the trials, and all trials.
        """
        plan = self.plan
        records = self.records()
        complete = [record for record in records if record["state"] == "complete"]
        pick = max if plan.direction == "maximize" else min
        best = pick(complete, key=lambda record: record["value"], default=None)
        values = [record["value"] for record in complete]
        spread = None
        if values:
            spread = {
                "n": len(values),
                "low": min(values),
                "median": median(values),
                "high": max(values),
            }
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
        """Copy the best training to the folder ``best``, without files that only serve to resume.

        Args:
            run: Folder of the best training, relative to the folder of the sweep.
        """
        folder = self.plan.folder
        best = folder / _BEST
        record = folder / "sweep.json"
        if best.is_dir():
            if record.is_file() and read_json(record, "sweep")["best"]["run"] == run:
                return
            # An earlier best run, or the copy of a call that was killed before it wrote the record.
            shutil.rmtree(best)
        with atomic_folder(best) as copy:
            without = shutil.ignore_patterns("checkpoints", LOCK_NAME)
            shutil.copytree(folder / run, copy, ignore=without, dirs_exist_ok=True)

    def records(self) -> list[dict[str, Any]]:
        """Return settings and outcome of each trial (training) that was started.

        Returns:
            One dictionary for each trial, as in ``sweep.json``: its number, state (such as
            ``complete`` or ``pruned``), metric, epochs, settings by ``section.key``, seconds, the
            reason if it did not end normally, and its folder.
        """
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
            "settings": {key: format_value(value) for key, value in values_of(proposed).items()},
            "seconds": notes.get("seconds"),
            "reason": notes.get("reason", ""),
            "run": run.relative_to(self.plan.folder).as_posix(),
        }

    def propose(self, trials: int, *, several: bool) -> Iterator[tuple[int, Path | None]]:
        """Yield trials (trainings) until there are enough.

        Trials that an earlier, interrupted call left unfinished come first.

        Args:
            trials: Number of trials of the whole sweep, including those of earlier calls.
            several: True if several trials run at the same time. The proposed settings then keep
                away from those of running trials.

        Yields:
            The number of a trial and its configuration file. The file is None if there is nothing
            to train, because another trial had the same settings or the settings are not valid.
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
        """Propose a trial's settings and write its configuration; None if it is not trained.

        Random numbers depend only on the seed and the trial's number: a sweep that was interrupted
        proposes what one that was not would have.
        """
        plan = self.plan
        seed = int(np.random.SeedSequence([plan.seed, trial.number]).generate_state(1)[0])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=several)
        for key, distribution in plan.space.items():
            trial._suggest(key, distribution)  # values that an interrupted call proposed stay
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
        """Tell Optuna the value that a trial reached; without a value it has failed."""
        for name, note in notes.items():
            trial.set_user_attr(name, note)
        if value is None:
            self._study.tell(trial.number, state=TrialState.FAIL)
        else:
            self._study.tell(trial.number, value)

    def _enqueue(self, number: int, trials: int) -> None:
        """Set the next trial's settings if Optuna does not propose them.

        The first trial has the configuration's own settings. If there are no more combinations than
        trials, each is tried once.
        """
        if self._study.get_trials(deepcopy=False, states=(TrialState.WAITING,)):
            return  # an interrupted call has enqueued them
        plan = self.plan
        if number == 0 and (proposal := proposal_of(plan.config, plan.space)):
            self._study.enqueue_trial(proposal)
        elif plan.most is not None and plan.most <= trials:
            proposed = self._proposed()
            choices = [
                distribution.choices
                for distribution in plan.space.values()
                if isinstance(distribution, CategoricalDistribution)
            ]
            untried = next(
                values for values in itertools.product(*choices) if values not in proposed
            )
            self._study.enqueue_trial(dict(zip(plan.space, untried, strict=True)))

    def _proposed(self) -> set[tuple[Any, ...]]:
        """Return the settings that trials have had."""
        return {tuple(map(trial.params.get, self.plan.space)) for trial in self._started()}

    def falls_behind(self, number: int) -> bool:
        """Return True if a trial is to be stopped, because its metric is behind the others' median.

        The comparison is that of Optuna's pruner, at each epoch that has ended since the last call.

        Args:
            number: Number of the trial, from 0.
        """
        trial = self._running[number]
        for epoch, figure in self._report(trial):
            if trial.should_prune():
                reason = f"{self.plan.objective} {figure:.3f} is behind the median of the others"
                self._pruning_reasons[number] = f"epoch {epoch}: {reason}"
                return True
        return False

    def _report(self, trial: Trial) -> Iterator[tuple[int, float]]:
        """Report new epochs to Optuna, and yield the figure of each."""
        path = self.run_folder(trial.number) / "metrics.csv"
        if not path.is_file():
            return
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            epoch = int(row["epoch"])
            figure = row[self.plan.objective]
            if (trial.number, epoch) not in self._reported and figure:
                self._reported.add((trial.number, epoch))
                trial.report(float(figure), step=epoch)
                yield epoch, float(figure)

    def prune(self, number: int) -> None:
        """Record that a trial was stopped, with the reason that `falls_behind` found.

        Args:
            number: Number of the trial, from 0.
        """
        trial = self._running.pop(number)
        trial.set_user_attr("reason", self._pruning_reasons[number])
        n_epochs = sum(reported == number for reported, _ in self._reported)
        trial.set_user_attr("epochs", n_epochs)
        self._study.tell(number, state=TrialState.PRUNED)

    def conclude(self, number: int, problem: str | None) -> bool:
        """Record the metric of a trial that has ended, or the reason why its training failed.

        Args:
            number: Number of the trial, from 0.
            problem: Reason of the failure; None if the training has ended normally.

        Returns:
            True if the trial has no metric, because its training failed or the metric is undefined
            on the validation images.
        """
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


def _repair_journal(journal: Path) -> None:
    """Remove what a killed process leaves: Optuna's lock, and half of a last line."""
    journal.with_name(f"{journal.name}.lock").unlink(missing_ok=True)
    if not journal.is_file():
        return
    content = journal.read_bytes()
    if content and not content.endswith(b"\n"):
        with atomic_path(journal) as temporary:
            temporary.write_bytes(content[: content.rfind(b"\n") + 1])
