"""`cxr curve`: how much better both models get as more images are annotated."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cxr_compare import DataSet, Predictions
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import (
    TRAIN_PACKAGES,
    InputError,
    counted,
    require_packages,
)
from cxr_compare.data_prep.contracts.locks import folder_lock, remove_leftovers
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.store.prediction_writer import remove_prediction_leftovers
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts import console
from cxr_compare.scripts.child_processes import follow_parent
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    DataFolder,
    Outcome,
    Settings,
    as_path,
    command,
    config_names,
    load_model,
    open_workers,
    predict_once,
    settings_words,
)
from cxr_compare.studies.curve.child_commands import Command, Running, run_commands
from cxr_compare.studies.curve.cluster import choose_machines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from cxr_compare.studies.curve.child_commands import Machines
    from cxr_compare.studies.curve.curve_evaluation import CurveDesign
    from cxr_compare.studies.curve.curve_trainings import CurvePlan, CurveRun

_STARTED = "curve.started.json"
_RUNS = "runs"
_REPLICATES = 1000  # bootstrap replicates


def _read_shares(sizes: str | Iterable[float]) -> list[float]:
    """Read the shares, ascending.

    Example:
        >>> _read_shares("1,0.5"), _read_shares([1, 0.25])
        ([0.5, 1.0], [0.25, 1.0])
    """
    texts = sizes.split(",") if isinstance(sizes, str) else [str(size) for size in sizes]
    try:
        # Names of splits and runs contain the share, so it is rounded as in the name.
        shares = sorted({float(f"{float(text):g}") for text in texts if text.strip()})
    except ValueError:
        raise InputError(f"curve --sizes {sizes}: are not numbers, as 0.125,0.25,0.5,1") from None
    if len(shares) < 2 or not shares[0] > 0 or shares[-1] > 1:
        raise InputError(f"curve --sizes {sizes}: give two shares or more, above 0 and up to 1")
    return shares


@command
def curve(
    *,
    detector: Annotated[str, Argument(completions=config_names)],
    classifier: Annotated[str, Argument(completions=config_names)],
    data: DataFolder,
    out: AnyPath,
    sizes: Annotated[Any, Argument(read=_read_shares)] = "0.125,0.25,0.5,1",
    seeds: Annotated[int, Argument(minimum=1)] = 3,
    split: list[str] | None = None,
    mixed: bool = False,
    equal: Literal["steps", "epochs"] = "steps",
    jobs: Annotated[int, Argument(minimum=1)] = 1,
    set_: Settings = None,
    detector_set: Settings = None,
    classifier_set: Settings = None,
) -> Outcome:
    """Train detector and classifier on ever more patients.

    The command trains both models on each share with each seed, and evaluates all of these runs on
    the same test patients. The page shows which model is better, by the number of annotated
    images. If the command is interrupted, run it again: it continues.

    Args:
        detector: Configuration of the detector: a name that cxr configs lists, or a TOML file.
        classifier: Configuration of the classifier: a name that cxr configs lists, or a TOML file.
        data: Data set that cxr prepare made.
        out: Folder for the runs, the page and the figure.
        sizes: Shares of the training and validation patients, each above 0 and at most 1, with
            commas. The patients of a smaller share are all in the larger ones.
        seeds: Number of trainings of each model on each share. Each training draws other patients
            and other initial weights.
        split: Split (which images are for training, validation and test) to train and test on. Give
            it several times for the folds of a cross-validation, which test different patients.
        mixed: Also train a third model, a detector that has labels for all images and boxes for a
            share of them. It starts from the weights of the classifier that learned all labels, and
            has the backbone of that classifier.
        equal: steps (the default) trains on a small share for as many optimiser steps as on the
            whole set. epochs trains on it for as many epochs, and so for fewer steps.
        jobs: Number of trainings that run at the same time. Each is a process with its own devices.
        set_: Replace a key of both configurations, such as training.epochs=20. cxr configs NAME
            shows every key.
        detector_set: Replace a key of the detector's configuration. It takes precedence over --set.
        classifier_set: Replace a key of the classifier's configuration. It takes precedence over
            --set.

    Returns:
        What the curve shows, as sentences. The JSON file of the folder holds the figures of every
        share.

    Raises:
        InputError: The folder holds another curve, a share is too small to learn from, or a
            training failed.

    Example:
        cxr curve --detector retinanet_lite --classifier chexnet_small --data out/data
        --out out/curve --sizes 0.25,0.5,1 --seeds 3
    """
    data = as_path(data)
    out = as_path(out)
    device = _chosen_device()
    require_packages("curve", "train", TRAIN_PACKAGES)
    from cxr_compare.studies.curve.curve_evaluation import evaluate_curve
    from cxr_compare.studies.curve.curve_page import FILES, STORED, write_curve
    from cxr_compare.studies.curve.curve_statements import curve_statements
    from cxr_compare.studies.curve.curve_trainings import (
        CurvePlan,
        CurveStarted,
        add_parts,
        read_configs,
        require_different_tests,
    )

    follow_parent()
    dataset = DataSet.open(data)
    configs = read_configs(
        dataset,
        detector,
        _together(set_, detector_set),
        classifier,
        _together(set_, classifier_set),
        mixed=mixed,
        equal=equal,
    )
    evaluated = dataset.target(configs[0].data.target)
    splits = split or ["default"]
    require_different_tests(dataset, splits)
    plan = CurvePlan(
        folder=out,
        data=data,
        detector=configs[0],
        classifier=configs[1],
        shares=sizes,
        seeds=range(seeds),
        mixed=mixed,
        equal=equal,
        parts={},
    )
    started = plan.started(dataset, splits)
    before = plan.record(started, _STARTED)
    if before is None:
        require_only_files(out, {_STARTED, _RUNS, *FILES}, "curve")
    plan = replace(plan, parts=add_parts(dataset, evaluated.name, splits, sizes, range(seeds)))
    make_folder(out)
    with open_workers() as workers, folder_lock(out):
        machines = choose_machines(
            workers, device=device, devices=1, jobs=jobs, reads=(data, out / _STARTED)
        )
        if before is None:
            CurveStarted(**started, **provenance()).write(out / _STARTED)
        remove_leftovers(data)  # of a call that was killed when it had just added the parts
        options = ["--device", device]
        if _trains_despite_audit():
            options.append("--despite-audit")
        runs = _train(plan, machines, options)
        dataset = DataSet.open(data)  # with its new parts
        predictions = {}
        with console.track("Predicting runs", len(runs)) as advance:
            for run in runs:
                key = (run.model, run.split, run.share, run.seed)
                predictions[key] = _predict(run, dataset, device)
                advance()
        with console.track("Evaluating", len(predictions)) as advance:
            study = evaluate_curve(
                _design(plan),
                LabelledSplit(dataset, evaluated),
                predictions,
                made=provenance(),
                replicates=_REPLICATES,
                advance=advance,
            )
        page = write_curve(study, out)
    lines = [statement.text for statement in curve_statements(study, study.metrics[0])]
    return Outcome("\n".join(lines), file=out / STORED, page=page)


def _chosen_device() -> str:
    """Return the device from ``CXR_DEVICE``: ``auto`` (the default), ``cpu`` or ``cuda``."""
    return os.environ.get("CXR_DEVICE") or "auto"


def _trains_despite_audit() -> bool:
    """Return True if a learning curve may train on a data set with audit errors.

    The environment variable ``CXR_DESPITE_AUDIT=1`` allows it. The audit is the check of a data
    set.
    """
    value = os.environ.get("CXR_DESPITE_AUDIT") or "0"
    if value not in ("0", "1"):
        raise InputError(f"CXR_DESPITE_AUDIT={value}: is neither 0 nor 1")
    return value == "1"


def _together(first: Any, second: Any) -> Any:
    """Return settings of both models joined with those of one, which take precedence."""
    if all(isinstance(settings, Mapping | None) for settings in (first, second)):
        return {**(first or {}), **(second or {})}
    return [word for settings in (first, second) for word in settings_words(settings or [])]


def _train(plan: CurvePlan, machines: Machines, options: Sequence[str]) -> list[CurveRun]:
    """Train what has not ended; all runs of the plan."""
    runs = [run for arm in plan.models for run in plan.runs(arm)]
    for run in runs:
        if run.has_ended:  # it is not started again, which would remove the lock of a killed one
            remove_leftovers(run.folder)
    done = before = sum(run.has_ended for run in runs)
    shares = ", ".join(f"{share:g}" for share in plan.shares)
    console.say(
        f"{counted(len(runs), 'training')}, {machines.jobs} at a time: {plan.detector.name} and "
        f"{plan.classifier.name} on {shares} of the patients, {counted(len(plan.seeds), 'seed')}"
    )
    began = time.monotonic()

    def show(run: CurveRun, problem: str | None) -> None:
        nonlocal done
        done += problem is None
        more = "" if problem is None else f": {problem}"
        if problem is None and done - before >= machines.jobs and done < len(runs):
            seconds = (time.monotonic() - began) / (done - before)
            more = f"; {console.time_left(seconds * (len(runs) - done))}"
        console.say(f"{done} of {len(runs)}: {run.title}{more}")

    if failed := _train_all(plan, machines, options, show):
        run, problem = failed[-1]
        raise InputError(
            f"{plan.folder}: {counted(len(failed), 'training')} failed; {run.title}: {problem} "
            f"(see {run.folder}.log); the same command tries again"
        )
    return runs


def _train_all(
    plan: CurvePlan,
    machines: Machines,
    options: Sequence[str],
    show: Callable[[CurveRun, str | None], None],
) -> list[tuple[CurveRun, str]]:
    """Train what has not ended, the mixed arm last, since it starts from classifiers.

    Returns those that failed, with the reason.
    """
    failed: list[tuple[CurveRun, str]] = []
    for configs in (("classifier", "detector"), ("mixed",)):
        runs = [run for arm in configs for run in plan.runs(arm)]
        missing = {str(run.folder): run for run in runs if not run.has_ended}

        def ended(running: Running, of: Mapping[str, CurveRun] = missing) -> bool:
            run = of[running.command.name]
            problem = running.problem()
            if problem is not None:
                failed.append((run, problem))
            show(run, problem)
            return problem is not None

        def command_for(run: CurveRun) -> Command:
            words = ["train", plan.write_config(run), "--data", plan.data, "--out", run.folder]
            log = run.folder.with_name(f"{run.folder.name}.log")
            return Command(str(run.folder), [*map(str, words), *options], log)

        run_commands(map(command_for, missing.values()), machines, ended=ended)
        if failed:
            break
    return failed


def _design(plan: CurvePlan) -> CurveDesign:
    """Return the design of the curve: models, shares, seeds and the length of training."""
    from cxr_compare.studies.curve.curve_evaluation import CurveDesign
    from cxr_compare.studies.curve.curve_study import CurveModel

    configs = {}
    for kind in plan.models:
        config = plan.classifier if kind == "classifier" else plan.detector
        settings = (
            f"{config.model.backbone}, {config.data.image_size} px, "
            f"weights {config.model.weights}, "
            f"{counted(config.training.epochs, 'epoch')} of the whole, batches of "
            f"{config.training.batch_size}, learning rate {config.training.learning_rate:g}"
        )
        name = config.name
        note = ""
        if kind == "mixed":
            name = f"{name} from {plan.classifier.name}"
            note = "Starts from the classifier of all labels; boxes on a share of the images."
        configs[kind] = CurveModel(kind, name, settings, note)
    stops = plan.detector.training.patience or plan.classifier.training.patience
    length = "Every share learned for " + ("at most " if stops else "") + f"as many {plan.equal}"
    length += ": a small one for fewer steps." if plan.equal == "epochs" else "."
    length += " Trainings may stop early." if stops else ""
    return CurveDesign(configs, plan.shares, plan.seeds, plan.parts, length)


def _predict(run: CurveRun, dataset: DataSet, device: str) -> Predictions:
    """Return the predictions of a run for its validation and test images."""
    if (run.predictions / "predictions.json").is_file():
        remove_prediction_leftovers(run.predictions)
        return Predictions.open(run.predictions)
    # Named one by one, so that no cost is measured: nobody asks here what an image takes.
    ids = [*dataset.image_ids("val", run.part), *dataset.image_ids("test", run.part)]
    model = load_model(run.folder, device)
    return predict_once(
        model,
        run.folder,
        dataset,
        run.predictions,
        run.part,
        image_ids=ids,
        made_before=Predictions.open(run.folder / "validation"),
    )
