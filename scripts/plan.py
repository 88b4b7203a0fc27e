"""`cxr plan`: how many test patients show a difference, or measure an AUROC closely enough."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.words import counted
from scripts import console
from scripts.systems import split_seeds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluation.statistics.sample_size import AssumedPlan, CrossedPlan, PilotPlan, Plan

_READERS = "readers.json"


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
        typer.Option(help="Plan for an interval that reaches so far to either side, too."),
    ] = None,
    power: Annotated[
        float, typer.Option(min=0.05, max=0.999, help="How often the difference is to be shown.")
    ] = 0.8,
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
        float, typer.Option(help="Assumed correlation of the two systems' scores in a class.")
    ] = 0.5,
    images: Annotated[int, typer.Option(min=1, help="Assumed images of a patient.")] = 1,
    within: Annotated[
        float,
        typer.Option(help="Assumed correlation of one system's scores of a patient's images."),
    ] = 0.5,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1, help="Trainings of each system; the pilot's number, or 1, if left out."
        ),
    ] = None,
    seed_deviation: Annotated[
        float | None,
        typer.Option(help="Assumed standard deviation of the AUROC between trainings."),
    ] = None,
    readers: Annotated[
        str | None,
        typer.Option(help="With a pilot of readers: numbers of readers to plan for, as 4,6,10."),
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
        Path | None, typer.Option(help="Folder for the pictures and plan.json; new or a plan's.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """How many test patients show a difference of two AUROCs, or measure one closely enough.

    Say the difference that would matter, not the one that a pilot happened to find: planning for
    that one misses smaller differences and finds them too large.

    Example: cxr plan --auroc 0.85,0.80 --correlation 0.5 --prevalence 0.3

    Example: cxr plan out/retinanet-predictions out/chexnet-predictions --data out/data
    --difference 0.03

    Example: cxr plan out/readers --difference 0.05 --readers 4,6,10
    """
    for name, value in (("--difference", difference), ("--half-width", half_width)):
        if value is not None and not 0 < value < 0.5:
            raise InputError(f"plan {name}: {value} is not between 0 and 0.5")
    assumed = {"--auroc": auroc, "--prevalence": prevalence, "--seed-deviation": seed_deviation}
    given = [name for name, value in assumed.items() if value is not None]
    plans: dict[str, Plan]
    if not pilot:
        one = _assumed(auroc, prevalence, correlation, images, within, seeds, seed_deviation)
        if readers is not None or data is not None:
            raise InputError("plan: --readers and --data need a pilot; give its folder")
        if difference is None and len(one.aurocs) == 2:
            difference = abs(one.aurocs[0] - one.aurocs[1]) or None
        plans, basis = {"": one}, _basis_assumed(one)
        compares = len(one.aurocs) == 2
    elif given:
        raise InputError(f"plan: {given[0]} is assumed where there is no pilot; leave one out")
    elif (Path(pilot[0]) / _READERS).is_file():
        if pilot[1:] or data is not None or seeds is not None:
            raise InputError("plan: a pilot of readers is one folder, without --data and --seeds")
        crossed = _crossed(Path(pilot[0]), readers)
        plans = {f"{counted(each.readers, 'reader')}": each for each in crossed}
        basis, compares = _basis_crossed(Path(pilot[0]), crossed[0]), True
    else:
        if data is None:
            raise InputError("plan: a pilot of predictions needs --data, its data set")
        if readers is not None:
            raise InputError(f"{pilot[0]}: no folder of cxr readers; --readers needs one")
        from_pilot, names = _of_predictions(pilot, data, target, split, seeds)
        plans, basis, compares = {"": from_pilot}, _basis_pilot(from_pilot, names), len(names) == 2
    if not compares and difference is not None:
        raise InputError("plan: one system has no difference; give two, or --half-width alone")
    if difference is None and half_width is None:
        wanted = "--difference, the smallest that would matter" if compares else "--half-width"
        raise InputError(f"plan: give {wanted}")
    from evaluation.report.study_plan import Question

    question = Question(difference, half_width, power, level, plans)
    for sentence in question.sentences():
        console.say(sentence)
    if not pilot and len(one.aurocs) == 2 and one.aurocs[0] != one.aurocs[1]:
        console.say(_by_tables(one, power, level))
    found = {"basis": basis, **question.to_json()}
    if out is not None:
        from evaluation.report.plan_charts import write_plan  # and matplotlib with it

        for path in write_plan(question, found, out):
            console.say(f"Picture: {path}")
    if as_json:
        console.emit_json(found)


def _assumed(
    auroc: str | None,
    prevalence: float | None,
    correlation: float,
    images: int,
    within: float,
    seeds: int | None,
    seed_deviation: float | None,
) -> AssumedPlan:
    from evaluation.statistics.sample_size import AssumedPlan

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
        if not 0 <= value < 1:
            raise InputError(f"plan {name} {value}: is not from 0 to below 1")
    if seeds is not None and seeds > 1 and seed_deviation is None:
        raise InputError(
            "plan --seeds: how far trainings differ is not known; give --seed-deviation, as 0.01"
        )
    if seed_deviation is not None and (seeds is None or seeds < 2):
        raise InputError("plan --seed-deviation: is for several trainings; give --seeds, 2 or more")
    return AssumedPlan(
        aurocs, prevalence, correlation, images, within, seeds or 1, seed_deviation or 0.0
    )


def _crossed(folder: Path, readers: str | None) -> list[CrossedPlan]:
    from data_prep.contracts.json_files import read_json
    from evaluation.statistics.obuchowski_rockette import Components
    from evaluation.statistics.sample_size import CrossedPlan

    pilot = read_json(folder / _READERS, "readers")
    parts = (pilot["crossed"].get(pilot["primary"]) or {}).get("components")
    if parts is None:
        raise InputError(
            f"{folder}: has no variance components; a pilot needs two modalities, each read by "
            "every reader"
        )
    try:
        numbers = [int(each) for each in readers.split(",")] if readers else [3, 5, 10]
    except ValueError:
        raise InputError(f"plan --readers {readers}: are not numbers with commas") from None
    if min(numbers) < 2:
        raise InputError(f"plan --readers {readers}: readers who stand for others are 2 or more")
    share = pilot["n_positive"] / pilot["n_cases"]
    return [CrossedPlan(Components(**parts), pilot["n_cases"], share, number) for number in numbers]


def _of_predictions(
    pilot: Sequence[str], data: Path, target: str | None, split: str | None, seeds: int | None
) -> tuple[PilotPlan, list[str]]:
    from data_prep.store.dataset import DataSet
    from data_prep.store.predictions import Predictions
    from evaluation.compare.compare import pilot_parts
    from evaluation.statistics.sample_size import PilotPlan
    from scripts.options import own_split

    if len(pilot) > 2:
        raise InputError("plan: compares two systems; give two folders, or one for --half-width")
    named = [split_seeds(each) for each in pilot]
    dataset = DataSet.open(data)
    judged = dataset.target(target)
    own = own_split(split, [path for _, paths in named for path in paths], dataset)
    opened = {}
    for name, paths in named:
        members = [Predictions.open(path) for path in paths]
        opened[name or members[0].name] = members
    if len(opened) < len(named):
        raise InputError("plan: two systems have one name; give each its own: NAME=PATH")
    parts = pilot_parts(opened, dataset, judged, split=own)
    planned = None if seeds is None else [seeds] * len(parts)
    return PilotPlan(list(parts.values()), planned), list(parts)


def _basis_assumed(plan: AssumedPlan) -> dict[str, Any]:
    from dataclasses import asdict

    return {"kind": "assumed", **asdict(plan)}


def _basis_crossed(folder: Path, plan: CrossedPlan) -> dict[str, Any]:
    from dataclasses import asdict

    return {
        "kind": "readers",
        "pilot": str(folder),
        "pilot_cases": plan.pilot_cases,
        "share_positive": plan.positives,
        "components": asdict(plan.components),
    }


def _basis_pilot(plan: PilotPlan, names: list[str]) -> dict[str, Any]:
    return {
        "kind": "pilot",
        "systems": names,
        "pilot_patients": plan.patients,
        "pilot_positives": plan.positives,
        "images_of_a_patient": plan.images,
        "variance_factors": list(plan.variance_range()),
    }


def _by_tables(plan: AssumedPlan, power: float, level: float) -> str:
    """What the published tables would ask for, in words: a reviewer may expect their number."""
    from evaluation.statistics.sample_size import obuchowski_positives

    positives = obuchowski_positives(
        plan.aurocs,
        correlation=plan.correlation,
        negatives_per_positive=(1 - plan.prevalence) / plan.prevalence,
        power=power,
        level=level,
    )
    return (
        f"The published tables (Obuchowski and McClish 1997; one image a patient, one training) "
        f"ask for {round(positives / plan.prevalence):,} patients, {round(positives):,} of them "
        "positive, for the difference of these two AUROCs: they leave out a covariance, see "
        "docs/plan.md"
    )
