"""`cxr plan`: how many test patients show a difference, or measure an AUROC closely enough."""

from __future__ import annotations

from math import isclose
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.systems import split_seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.studies.study_plan import Basis

_READERS = "readers.json"
_CORRELATION, _WITHIN, _POWER = 0.5, 0.5, 0.8
_MOST_PLANS = 9

_KINDS = {
    "assumed": "a study without a pilot",
    "predictions": "a pilot of predictions",
    "readers": "a pilot of cxr readers",
}
_OPTIONS = {  # what each kind of plan reads, besides what all of them do
    "assumed": (
        "auroc", "prevalence", "correlation", "images", "within", "seeds", "seed_deviation"
    ),
    "predictions": ("data", "target", "split", "seeds"),
    "readers": ("readers",),
}  # fmt: skip


def plan(
    pilot: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PILOT ...]",
            help="With --data: one or two predictions folders, as PATH, NAME=PATH or, for several "
            "training seeds, NAME=PATH,PATH. Or the folder of one cxr readers analysis. Left out: "
            "the study follows from --auroc and --prevalence.",
        ),
    ] = None,
    *,
    difference: Annotated[
        float | None,
        typer.Option(
            help="The smallest difference that would matter; with --auroc A,B theirs if left out."
        ),
    ] = None,
    half_width: Annotated[
        float | None,
        typer.Option(help="Plan for an interval that has this half-width on the mean, too."),
    ] = None,
    power: Annotated[
        float | None,
        typer.Option(
            min=0.05,
            max=0.999,
            help=f"How often the difference is to be shown; {_POWER:g} if left out.",
        ),
    ] = None,
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Coverage of the interval: 1 - alpha.")
    ] = 0.95,
    auroc: Annotated[
        str | None, typer.Option(metavar="A[,B]", help="Assumed AUROC of one system, or of two.")
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Assumed share of test patients who have the disease, as 0.3."),
    ] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            help="Assumed correlation of the two systems' scores in a class; "
            f"{_CORRELATION:g} if left out."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]", help="Assumed images of a patient, as 1,2,4; 1 if left out."
        ),
    ] = None,
    within: Annotated[
        float | None,
        typer.Option(
            help="Assumed correlation of one system's scores of a patient's images; "
            f"{_WITHIN:g} if left out."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="Seeds with which each system is trained, as 1,3,5; the pilot's number, or 1, if "
            "left out.",
        ),
    ] = None,
    seed_deviation: Annotated[
        float | None,
        typer.Option(help="Assumed standard deviation of the AUROC between trainings."),
    ] = None,
    readers: Annotated[
        str | None,
        typer.Option(
            metavar="N[,N...]",
            help="With a pilot of readers: numbers of readers to plan for, as 4,6,10.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Data set of the pilot's predictions: its test patients.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="What is judged, where the data set has several targets.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="The split of the pilot; by default its own.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the figures and plan.json; new or a plan's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """How many test patients show a difference of two AUROCs, or measure one closely enough.

    Say the difference that would matter, not the one that a pilot happened to find: planning for
    that one misses smaller differences and finds them too large.

    Example: cxr plan --auroc 0.85,0.80 --correlation 0.5 --prevalence 0.3

    Example: cxr plan --auroc 0.85,0.80 --prevalence 0.3 --images 1,2,4

    Example: cxr plan out/retinanet-predictions out/chexnet-predictions --data out/data
    --difference 0.03

    Example: cxr plan out/readers --difference 0.05 --readers 4,6,10
    """
    for name, value in (("--difference", difference), ("--half-width", half_width)):
        if value is not None and not 0 < value < 0.5:
            raise InputError(f"plan {name}: {value} is not between 0 and 0.5")
    kind = _kind(pilot)
    given = {
        "auroc": auroc, "prevalence": prevalence, "correlation": correlation, "images": images,
        "within": within, "seeds": seeds, "seed_deviation": seed_deviation, "readers": readers,
        "data": data, "target": target, "split": split,
    }  # fmt: skip
    _refuse_unread([name for name, value in given.items() if value is not None], kind, pilot)
    from evaluation.statistics.sample_size import AssumedPlan
    from evaluation.studies.study_plan import (
        StudyPlan,
        plans_of_readers,
        published_tables,
        write_plan,
    )

    if not pilot:
        basis = _assumed(auroc, prevalence, correlation, images, within, seeds, seed_deviation)
    elif kind == "readers":
        if pilot[1:]:
            raise InputError("plan: a pilot of readers is one folder")
        basis = plans_of_readers(Path(pilot[0]), _numbers("--readers", readers or "3,5,10", 2))
    elif data is None:
        raise InputError("plan: a pilot of predictions needs --data, its data set")
    else:
        basis = _of_predictions(pilot, data, target, split, seeds)
    if len(basis.plans) > _MOST_PLANS:
        words = f"plan: {len(basis.plans)} studies are asked for; give at most {_MOST_PLANS}"
        raise InputError(words)
    first = next(iter(basis.plans.values()))
    own = abs(first.aurocs[0] - first.aurocs[-1]) if isinstance(first, AssumedPlan) else 0.0
    difference = difference or own or None
    if not basis.compares and difference is not None:
        raise InputError("plan: one system has no difference; give two, or --half-width alone")
    if difference is None and half_width is None:
        wanted = (
            "--difference, the smallest that would matter" if basis.compares else "--half-width"
        )
        raise InputError(f"plan: give {wanted}")
    if difference is None and power is not None:
        raise InputError("plan --power: is for a difference; give --difference, or leave it out")
    planned = StudyPlan(difference, half_width, power or _POWER, level, basis)
    for sentence in planned.sentences():
        console.say(sentence)
    if isinstance(first, AssumedPlan) and own and isclose(difference or own, own):
        console.say(published_tables(first, power or _POWER, level))
    if out is not None:
        for path in write_plan(planned, out):
            console.say(f"Figure: {path}")
    if as_json:
        console.emit_json(planned.to_dict())


def _kind(pilot: Sequence[str] | None) -> str:
    if not pilot:
        return "assumed"
    return "readers" if (Path(pilot[0]) / _READERS).is_file() else "predictions"


def _refuse_unread(given: Sequence[str], kind: str, pilot: Sequence[str] | None) -> None:
    """Refuse the first option that this kind of plan would not read."""
    for name in given:
        if name not in _OPTIONS[kind]:
            option = f"--{name.replace('_', '-')}"
            reads = " and ".join(_KINDS[each] for each in _KINDS if name in _OPTIONS[each])
            this = _KINDS[kind] + (f" ({pilot[0]})" if pilot else "")
            raise InputError(f"plan {option}: is for {reads}, not for {this}; leave it out")


def _numbers(option: str, text: str, least: int) -> list[int]:
    """Numbers with commas, each once."""
    try:
        numbers = [int(each) for each in text.split(",")]
    except ValueError:
        raise InputError(f"plan {option} {text}: are not numbers with commas") from None
    if min(numbers) < least:
        raise InputError(f"plan {option} {text}: give {least} or more")
    return list(dict.fromkeys(numbers))


def _assumed(
    auroc: str | None,
    prevalence: float | None,
    correlation: float | None,
    images: str | None,
    within: float | None,
    seeds: str | None,
    seed_deviation: float | None,
) -> Basis:
    from evaluation.studies.study_plan import plans_assumed

    if auroc is None or prevalence is None:
        raise InputError("plan: without a pilot give --auroc A,B and --prevalence")
    try:
        aurocs = tuple(float(each) for each in auroc.split(","))
    except ValueError:
        raise InputError(f"plan --auroc {auroc}: is not a number, or two with a comma") from None
    if len(aurocs) > 2 or not all(0 < each < 1 for each in aurocs):
        raise InputError(f"plan --auroc {auroc}: give one or two, between 0 and 1")
    if not 0 < prevalence < 1:
        raise InputError(f"plan --prevalence {prevalence}: is not between 0 and 1")
    for name, value in (("--correlation", correlation), ("--within", within)):
        if value is not None and not 0 <= value < 1:
            raise InputError(f"plan {name} {value}: is not from 0 to below 1")
    n_images = _numbers("--images", images or "1", 1)
    n_seeds = _numbers("--seeds", seeds or "1", 1)
    if correlation is not None and len(aurocs) == 1:
        raise InputError("plan --correlation: is of two systems; leave it out, or give --auroc A,B")
    if within is not None and max(n_images) == 1:
        raise InputError(
            "plan --within: is for several images of a patient; give --images, 2 or more"
        )
    if seed_deviation is None and max(n_seeds) > 1:
        raise InputError(
            "plan --seeds: how far trainings differ is not known; give --seed-deviation, as 0.01"
        )
    if seed_deviation is not None and max(n_seeds) == 1:
        raise InputError("plan --seed-deviation: is for several trainings; give --seeds, 2 or more")
    return plans_assumed(
        aurocs,
        prevalence,
        correlation=_CORRELATION if correlation is None else correlation,
        images=n_images,
        within=_WITHIN if within is None else within,
        seeds=n_seeds,
        seed_deviation=seed_deviation or 0.0,
    )


def _of_predictions(
    pilot: Sequence[str], data: Path, target: str | None, split: str | None, seeds: str | None
) -> Basis:
    from data_prep.store.dataset import DataSet
    from data_prep.store.predictions import Predictions
    from evaluation.compare.compare import pilot_parts
    from evaluation.decisions.test_set import TestSet
    from evaluation.studies.study_plan import plans_of_predictions
    from scripts.options import own_split

    if len(pilot) > 2:
        raise InputError("plan: compares two systems; give two folders, or one for --half-width")
    named = [split_seeds(each) for each in pilot]
    dataset = DataSet.open(data)
    own = own_split(split, [path for _, paths in named for path in paths], dataset)
    opened = {}
    for name, paths in named:
        members = [Predictions.open(path) for path in paths]
        opened[name or members[0].name] = members
    if len(opened) < len(named):
        raise InputError("plan: two systems have one name; give each its own: NAME=PATH")
    parts = pilot_parts(opened, TestSet(dataset, dataset.target(target), own))
    return plans_of_predictions(parts, [] if seeds is None else _numbers("--seeds", seeds, 1))
