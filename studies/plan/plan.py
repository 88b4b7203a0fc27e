"""`cxr plan`: compute how many patients a study needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cxr_compare import DataSet, InputError, Predictions
from cxr_compare.evaluation.sources.labelled_split import LabelledSplit
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    Counts,
    DataFolder,
    Images,
    SystemPaths,
    Systems,
    as_path,
    command,
    own_split,
    read_numbers,
    read_systems,
)

if TYPE_CHECKING:
    from pathlib import Path

    from cxr_compare.evaluation.statistics.clustered_auroc import AurocParts
    from cxr_compare.studies.plan.study_plan import StudyPlan

_MOST_PLANS = 9
_LEVEL = 0.95  # coverage of the intervals
_KINDS = {
    "assumed": "systems without a pilot",
    "assumed readers": "readers without a pilot",
    "predictions": "a pilot of predictions",
    "readers": "a pilot of cxr readers",
}
_OPTIONS = {  # what each kind of plan reads, besides what all of them do
    "assumed": (
        "auroc",
        "prevalence",
        "correlation",
        "images",
        "within",
        "seeds",
        "seed_deviation",
        "seed_correlation",
    ),
    "assumed readers": ("auroc", "prevalence", "readers", "reader_deviation"),
    "predictions": ("data", "target", "seeds"),
    "readers": ("readers",),
}


@command
def plan(
    pilot: Systems = (),
    *,
    difference: float | None = None,
    half_width: float | None = None,
    power: Annotated[float | None, Argument(minimum=0.05, maximum=0.999)] = None,
    auroc: Annotated[tuple[float, ...], Argument(read=read_numbers, metavar="A[,B]")] = (),
    prevalence: float | None = None,
    correlation: float | None = None,
    images: Images = (),
    within: float | None = None,
    seeds: Counts = (),
    seed_deviation: float | None = None,
    seed_correlation: float | None = None,
    readers: Counts = (),
    reader_deviation: float | None = None,
    data: DataFolder | None = None,
    target: str | None = None,
    out: AnyPath | None = None,
) -> StudyPlan:
    """Compute how many patients a study needs.

    Give the difference that would matter in practice, not the one that a pilot study happened to
    find.

    Args:
        pilot: One or two predictions folders of a pilot study, as PATH or NAME=PATH, with --data;
            several training seeds are written NAME=PATH,PATH. It may also be the folder of one cxr
            readers analysis. Without a pilot the plan follows from --auroc and --prevalence.
        difference: Smallest difference of AUROC that would matter. By default it is the difference
            of --auroc A,B.
        half_width: Half-width of a 95 % interval, such as 0.03. The plan then also says how many
            patients give such an interval on average.
        power: Probability that the difference is shown. By default it is 0.8.
        auroc: Assumed AUROC of one system, or of two.
        prevalence: Assumed share of test patients with the disease, such as 0.3.
        correlation: Assumed correlation of the scores of the two systems within a class, by default
            0.5.
        images: Assumed number of images of a patient. 1,2,4 makes one plan for each number; rsna or
            nih takes the unequal numbers of that data set. By default it is 1.
        within: Assumed correlation of one system's scores of two images of a patient, by default
            0.5.
        seeds: Numbers of training seeds of each system to plan for, such as 1,3,5. By default it is
            the number of the pilot, or 1.
        seed_deviation: Assumed standard deviation of the AUROC between trainings, such as 0.01.
            Needed with --seeds above 1 without a pilot.
        seed_correlation: Assumed correlation of two trainings' scores within a class, such as 0.8.
            Needed with --seeds above 1 without a pilot.
        readers: Numbers of readers to plan for, such as 4,6,10. Needs a pilot of readers or
            --reader-deviation.
        reader_deviation: Assumed standard deviation of the readers' AUROCs, such as 0.03, if there
            is no pilot.
        data: Data set of the pilot's predictions.
        target: Target (a finding, or a group of findings) of the pilot. Needed only if its data set
            has several targets.
        out: Folder for the figures and plan.json. It must be new or hold a plan.

    Returns:
        The answers as sentences, and the figures of each planned study.

    Raises:
        InputError: The options do not fit each other or the pilot.

    Example:
        cxr plan --auroc 0.85,0.80 --correlation 0.5 --prevalence 0.3

        cxr plan --auroc 0.85,0.80 --prevalence 0.3 --images 1,2,rsna

        cxr plan --auroc 0.85,0.80 --prevalence 0.5 --readers 4,6,10 --reader-deviation 0.03

        cxr plan out/retinanet-predictions out/chexnet-predictions --data out/data
        --difference 0.03

        cxr plan out/readers --difference 0.05 --readers 4,6,10
    """
    pilot = read_systems(pilot)
    data = as_path(data)
    out = as_path(out)
    for name, value in (("--difference", difference), ("--half-width", half_width)):
        if value is not None and not 0 < value < 0.5:
            raise InputError(f"plan {name}: {value} is not between 0 and 0.5")
    kind = _kind(pilot, bool(readers) or reader_deviation is not None)
    options: dict[str, object] = {
        "auroc": auroc,
        "prevalence": prevalence,
        "correlation": correlation,
        "images": images,
        "within": within,
        "seeds": seeds,
        "seed_deviation": seed_deviation,
        "seed_correlation": seed_correlation,
        "readers": readers,
        "reader_deviation": reader_deviation,
        "data": data,
        "target": target,
    }
    asked = [name for name, value in options.items() if value not in (None, ())]
    _refuse_unread(asked, kind, pilot)
    from cxr_compare.studies.plan.plan_basis import (
        plans_assumed,
        plans_of_predictions,
        plans_of_readers,
    )
    from cxr_compare.studies.plan.plan_figures import write_plan
    from cxr_compare.studies.plan.study_plan import plan_study

    if not pilot:
        basis = plans_assumed(
            auroc,
            prevalence,
            correlation=correlation,
            images=images,
            within=within,
            seeds=seeds,
            seed_deviation=seed_deviation,
            seed_correlation=seed_correlation,
            readers=readers,
            reader_deviation=reader_deviation,
        )
    elif kind == "readers":
        if pilot[1:]:
            raise InputError("plan: a pilot of readers is one folder")
        basis = plans_of_readers(pilot[0].paths[0], readers)
    elif data is None:
        raise InputError("plan: a pilot of predictions needs --data, its data set")
    elif pilot[2:]:
        raise InputError("plan: compares two systems; give two folders, or one for --half-width")
    else:
        basis = plans_of_predictions(_pilot_parts(pilot, data, target), seeds)
    if len(basis.plans) > _MOST_PLANS:
        words = f"plan: {len(basis.plans)} studies are asked for; give at most {_MOST_PLANS}"
        raise InputError(words)
    planned = plan_study(basis, difference, half_width, power, _LEVEL)
    return planned if out is None else replace(planned, figures=write_plan(planned, out))


def _pilot_parts(
    pilot: list[SystemPaths], data: Path, target: str | None
) -> dict[str, list[AurocParts]]:
    """Return the parts that each test patient of a pilot adds to the AUROCs, by system."""
    from cxr_compare.evaluation.sources.stored_predictions import pilot_of_predictions

    dataset = DataSet.open(data)
    split = own_split(None, [path for system in pilot for path in system.paths], dataset)
    systems = {}
    for name, paths in pilot:
        members = [Predictions.open(path) for path in paths]
        systems[name or members[0].name] = members
    if len(systems) < len(pilot):
        raise InputError("plan: two systems have one name; give each its own: NAME=PATH")
    return pilot_of_predictions(systems, LabelledSplit(dataset, dataset.target(target), split))


def _kind(pilot: list[SystemPaths], of_readers: bool) -> str:
    if not pilot:
        return "assumed readers" if of_readers else "assumed"
    return "readers" if (pilot[0].paths[0] / "readers.json").is_file() else "predictions"


def _refuse_unread(options: Collection[str], kind: str, pilot: list[SystemPaths]) -> None:
    """Refuse the first option that this kind of plan would not read."""
    for name in options:
        if name not in _OPTIONS[kind]:
            option = f"--{name.replace('_', '-')}"
            reads = " and ".join(_KINDS[other] for other in _KINDS if name in _OPTIONS[other])
            reads = reads or "a comparison"
            this = _KINDS[kind] + (f" ({pilot[0].paths[0]})" if pilot else "")
            raise InputError(f"plan {option}: is for {reads}, not for {this}; leave it out")
