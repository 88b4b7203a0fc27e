"""`cxr curve`: what boxes and labels buy, by how many images are annotated."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from data_prep.store.folder_kinds import require_kind
from scripts import console
from scripts.configs import config_names
from scripts.options import AddressOption, DespiteAuditOption, DeviceOption, EngineOption

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from configs.settings import ClassifierConfig, DetectorConfig
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.predictions import Predictions
    from evaluation.studies.curve_judged import CurveDesign
    from evaluation.studies.curve_results import Times
    from scripts.machines.child_processes import Machines
    from training.curve import CurvePlan, CurveRun

_STARTED, _RUNS = "curve.started.json", "runs"
_STATED = {
    "detector": "--detector or its settings",
    "classifier": "--classifier or its settings",
    "sizes": "--sizes",
    "splits": "--split",
    "target": "--target",
    "equal": "--equal",
    "data_set": "data set",
}  # fmt: skip
"""What a curve was started with, in messages."""


def curve(
    detector: Annotated[
        str,
        typer.Option(help="Configuration of the detector.", autocompletion=config_names),
    ],
    classifier: Annotated[
        str,
        typer.Option(help="Configuration of the classifier.", autocompletion=config_names),
    ],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    out: Annotated[Path, typer.Option(help="Folder of the runs, the page and the figure.")],
    sizes: Annotated[
        str,
        typer.Option(
            help="Shares of the patients who train and validate; each lies within the next."
        ),
    ] = "0.125,0.25,0.5,1",
    seeds: Annotated[
        int, typer.Option(min=1, help="Trainings of each, of other patients and other weights.")
    ] = 3,
    split: Annotated[
        list[str] | None,
        typer.Option(help="The split; given several times, folds that test different patients."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="What is learned; left out where there is one target.")
    ] = None,
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed",
            help="A third arm: labels for all images, boxes for a share of them. The detector "
            "starts from the classifier of all labels, and so has its network as backbone.",
        ),
    ] = False,
    equal: Annotated[
        Literal["steps", "epochs"],
        typer.Option(
            help="Whether a small share learns for as many steps as the whole, or epochs; "
            "the configuration's epochs are those of the whole."
        ),
    ] = "steps",
    label_seconds: Annotated[
        float | None, typer.Option(min=0, help="Time to label an image; edited on the page, too.")
    ] = None,
    box_seconds: Annotated[
        float | None, typer.Option(min=0, help="Time to draw a box; edited on the page, too.")
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, help="Trainings at a time, each a process with its own devices.")
    ] = 1,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Replace a key of both configurations."),
    ] = None,
    detector_set: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Replace a key of the detector's.")
    ] = None,
    classifier_set: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="Replace a key of the classifier's."),
    ] = None,
    despite_audit: DespiteAuditOption = False,
    device: DeviceOption = "auto",
    engine: EngineOption = "local",
    address: AddressOption = None,
    replicates: Annotated[int, typer.Option(min=200, help="Bootstrap resamples.")] = 1000,
    as_json: Annotated[bool, typer.Option("--json", help="Print curve.json at the end.")] = False,
) -> None:
    """Train both on growing shares of the patients: which is better, from how many images on?

    Every share and seed is an ordinary run on an ordinary split, judged on the same test patients.
    The page shows figures by annotated images and by annotation time. May be interrupted: the same
    command goes on.

    Example: cxr curve --detector retinanet_lite --classifier chexnet_small --data out/data
    --out out/curve --sizes 0.25,0.5,1 --seeds 3
    """
    shares, times = _shares(sizes), _times(label_seconds, box_seconds)
    require_kind(data, "data set")
    from data_prep.contracts.folders import folder_lock, make_folder, provenance
    from data_prep.contracts.json_files import write_json
    from data_prep.store.dataset import DataSet
    from scripts.machines.child_processes import follow_parent
    from scripts.machines.cluster import open_machines
    from training.curve import CurvePlan, add_parts, require_different_tests

    follow_parent()
    dataset = DataSet.open(data)
    settings = _settings(detector, [*(set_ or []), *(detector_set or [])], "detector")
    other = _settings(classifier, [*(set_ or []), *(classifier_set or [])], "classifier")
    judged = dataset.target(target or settings.data.target or other.data.target)
    splits = split or ["default"]
    require_different_tests(dataset, splits)
    configs = _configs(settings, other, judged, mixed)
    if equal == "steps":
        _require_countable(*configs)
    started = _started(configs, shares, splits, equal, dataset, judged)
    before = _require_same(out, started)
    parts = add_parts(dataset, judged, splits, shares, range(seeds))
    plan = CurvePlan(
        folder=out, data=data, detector=configs[0], classifier=configs[1], shares=shares,
        seeds=range(seeds), parts=parts, mixed=mixed, equal=equal,
    )  # fmt: skip
    make_folder(out)
    with (
        open_machines(
            engine, address, device=device, devices=1, jobs=jobs, reads=(data, out / _STARTED)
        ) as machines,
        folder_lock(out),
    ):
        if not before:
            write_json(out / _STARTED, "curve_started", {**started, **provenance()})
        runs = _train(plan, machines, ["--device", device, *["--despite-audit"] * despite_audit])
        dataset = DataSet.open(data)  # with its new parts
        predictions = {}
        with console.progress("Predicting runs", len(runs)) as advance:
            for run in runs:
                predictions[run.arm, run.split, run.share, run.seed] = _predict(
                    run, dataset, device
                )
                advance()
        from evaluation.studies.curve_judged import build_study
        from evaluation.studies.curve_page import STORED, write_curve
        from evaluation.studies.curve_results import statements

        with console.progress("Judging", len(predictions)) as advance:
            study = build_study(
                _design(plan), dataset, judged, predictions, times, replicates=replicates,
                advance=advance,
            )  # fmt: skip
        page = write_curve(study, out)
    for statement in statements(study, study.metrics[0]):
        console.say(statement.text)
    console.next_step(f"open {shlex.quote(str(page))} in a browser")
    if as_json:
        from data_prep.contracts.json_files import read_json

        console.emit_json(read_json(out / STORED, "curve"))


def _train(plan: CurvePlan, machines: Machines, options: Sequence[str]) -> list[CurveRun]:
    """Train what has not ended; all runs of the plan."""
    from training.curve import ARMS

    runs = [run for arm in ARMS for run in plan.runs(arm)]
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
            more = f"; {_left(seconds * (len(runs) - done))}"
        console.say(f"{done} of {len(runs)}: {run.words}{more}")

    if failed := _train_all(plan, machines, options, show):
        run, problem = failed[-1]
        raise InputError(
            f"{plan.folder}: {counted(len(failed), 'training')} failed; {run.words}: {problem} "
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
    from scripts.machines.child_processes import Command, Running, run_commands

    failed: list[tuple[CurveRun, str]] = []
    for arms in (("classifier", "detector"), ("mixed",)):
        runs = [run for arm in arms for run in plan.runs(arm)]
        missing = {str(run.folder): run for run in runs if not run.has_ended}

        def ended(running: Running, of: Mapping[str, CurveRun] = missing) -> bool:
            run, problem = of[running.command.name], running.problem()
            if problem is not None:
                failed.append((run, problem))
            show(run, problem)
            return problem is not None

        def command(run: CurveRun) -> Command:
            words = ["train", plan.write_config(run), "--data", plan.data, "--out", run.folder]
            log = run.folder.with_name(f"{run.folder.name}.log")
            return Command(str(run.folder), [*map(str, words), *options], log)

        run_commands(map(command, missing.values()), machines, ended=ended)
        if failed:
            break
    return failed


def _design(plan: CurvePlan) -> CurveDesign:
    """What was trained, in words."""
    from evaluation.studies.curve_judged import CurveDesign
    from evaluation.studies.curve_results import Arm
    from training.curve import ARMS

    arms = {}
    for kind in (arm for arm in ARMS if plan.runs(arm)):
        config = plan.classifier if kind == "classifier" else plan.detector
        settings = (
            f"{config.model.network}, {config.data.image_size} px, weights {config.model.weights}, "
            f"{counted(config.training.epochs, 'epoch')} of the whole, batches of "
            f"{config.training.batch_size}, learning rate {config.training.learning_rate:g}"
        )
        name, note = config.name, ""
        if kind == "mixed":
            name = f"{name} from {plan.classifier.name}"
            note = "Starts from the classifier of all labels; boxes on a share of the images."
        arms[kind] = Arm(kind, name, settings, note)
    stops = plan.detector.training.patience or plan.classifier.training.patience
    length = "Every share learned for " + ("at most " if stops else "") + f"as many {plan.equal}"
    length += ": a small one for fewer steps." if plan.equal == "epochs" else "."
    length += " Trainings may stop early." if stops else ""
    return CurveDesign(arms, plan.shares, plan.seeds, plan.parts, length)


def _left(seconds: float) -> str:
    """How long the rest takes, if it takes as long as what has been.

    Example:
        >>> _left(20), _left(340), _left(12_000)
        ('about a minute left', 'about 6 minutes left', 'about 3.3 hours left')
    """
    minutes = max(round(seconds / 60), 1)
    if minutes > 90:
        return f"about {seconds / 3600:.1f} hours left"
    return f"about {'a minute' if minutes == 1 else f'{minutes} minutes'} left"


def _shares(sizes: str) -> list[float]:
    """Read the shares, ascending.

    Example:
        >>> _shares("1,0.5")
        [0.5, 1.0]
    """
    try:
        # Splits and runs are named by the share: as it is named, so it is.
        shares = sorted({float(f"{float(each):g}") for each in sizes.split(",") if each.strip()})
    except ValueError:
        raise InputError(f"curve --sizes {sizes}: are not numbers, as 0.125,0.25,0.5,1") from None
    if len(shares) < 2 or not shares[0] > 0 or shares[-1] > 1:
        raise InputError(f"curve --sizes {sizes}: give two shares or more, above 0 and up to 1")
    return shares


def _settings(config: str, overrides: list[str], kind: str) -> DetectorConfig | ClassifierConfig:
    """A configuration of the kind that an option asks for."""
    from configs.load import find_config, read_config

    settings = read_config(find_config(config), overrides)
    if settings.kind != kind:
        raise InputError(f"curve --{kind} {config}: is the configuration of a {settings.kind}")
    return settings


def _configs(
    detector: DetectorConfig | ClassifierConfig,
    classifier: DetectorConfig | ClassifierConfig,
    target: Target,
    mixed: bool,
) -> tuple[DetectorConfig, ClassifierConfig]:
    """Both configurations with what is judged as their target."""
    from training.curve import require_mixable

    own, other = (
        each.model_copy(update={"data": each.data.model_copy(update={"target": target.name})})
        for each in (detector, classifier)
    )
    both = cast("DetectorConfig", own), cast("ClassifierConfig", other)
    if mixed:
        require_mixable(*both)
    return both


def _require_countable(*configs: DetectorConfig | ClassifierConfig) -> None:
    """Refuse a schedule that waits for epochs where shares learn for as many steps."""
    for config in configs:
        if config.training.schedule == "plateau":
            raise InputError(
                f"curve: {config.name} has training.schedule = 'plateau', which waits for epochs, "
                "and a small share has more of them; give --equal epochs, or another schedule"
            )


def _started(
    configs: tuple[DetectorConfig, ClassifierConfig],
    shares: Sequence[float],
    splits: Sequence[str],
    equal: str,
    dataset: DataSet,
    target: Target,
) -> dict[str, Any]:
    """What another call must find unchanged to go on."""
    from configs.load import dump_config

    split_ids = dataset.ids["split_ids"]
    return {
        "detector": dump_config(configs[0]),
        "classifier": dump_config(configs[1]),
        "sizes": list(shares),
        "splits": {split: split_ids[split] for split in splits},
        "target": target.name,
        "equal": equal,
        "data_set": {key: dataset.ids[key] for key in ("content_id", "labels_id")},
    }


def _require_same(out: Path, started: Mapping[str, Any]) -> bool:
    """Whether a curve was started here; refuses another. Seeds and the third arm may be added."""
    from data_prep.contracts.json_files import read_json
    from evaluation.report.files import require_only
    from evaluation.studies.curve_page import FILES

    if not (out / _STARTED).is_file():
        require_only(out, {_STARTED, _RUNS, *FILES}, "curve")
        return False
    before = read_json(out / _STARTED, "curve_started")
    for key, now in started.items():
        if before[key] != now:
            raise InputError(
                f"{out}: holds a curve of another {_STATED[key]}; give the old one, or choose "
                "another --out"
            )
    return True


def _predict(run: CurveRun, dataset: DataSet, device: str) -> Predictions:
    """The run's answers for its validation and test images."""
    from data_prep.store.predictions import Predictions

    if not (run.predictions / "predictions.json").is_file():
        from scripts.machines.runtime import choose_device, tune_cpu

        tune_cpu()
        from serving.predict_folder import predict_data_set
        from serving.trained_model import TrainedModel

        model = TrainedModel.open(run.folder, device=choose_device(device))
        known = Predictions.open(model.run.validation)
        # Named one by one, so that no cost is measured: nobody asks here what an image takes.
        ids = [*dataset.image_ids("val", run.part), *dataset.image_ids("test", run.part)]
        predict_data_set(
            model, dataset, run.predictions, run.part, console, image_ids=ids, made_before=known
        )
    return Predictions.open(run.predictions)


def _times(label_seconds: float | None, box_seconds: float | None) -> Times:
    """Annotation times as given; else the sourced ones that the page begins with."""
    from evaluation.studies.curve_results import Times

    if label_seconds == 0:
        raise InputError("curve --label-seconds 0: a label takes time; give seconds above 0")
    return Times.given(label_seconds, box_seconds)
