"""`cxr compare`: judge several systems on the same test images and write the report."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import LOCK, folder_lock
from evaluation.report.files import (
    CASES_PAGES,
    METRICS,
    MOST_THUMBNAILS,
    OF_ALL_TARGETS,
    OF_ONE_TARGET,
    PAGE,
    require_only,
)
from scripts import console
from scripts.asked_before import asked_before, question_of
from scripts.next_steps import show_next
from scripts.options import own_split
from scripts.systems import open_seeds, split_seeds

if TYPE_CHECKING:
    from data_prep.store.dataset import DataSet, Target
    from data_prep.store.predictions import Predictions
    from evaluation.compare.comparison import Comparison
    from evaluation.compare.protocol import Protocol
    from evaluation.decisions.test_set import TestSet
    from evaluation.report.tables import TableRow


def compare(
    systems: Annotated[
        list[str],
        typer.Argument(
            help="Predictions folders or runs, each as PATH, NAME=PATH or, several training seeds "
            "of one system, NAME=PATH,PATH,...; a run is predicted and tuned first. The first is "
            "the reference."
        ),
    ],
    data: Annotated[Path, typer.Option(help="Data set that cxr prepare made.")],
    out: Annotated[Path, typer.Option(help="Report folder to make.")],
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="What is judged; may be left out where there is one. Given several times, or as "
            "'all', each gets a report in a folder of its own, and one page joins them."
        ),
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Judge on this split's test images; by default the systems'.")
    ] = None,
    images: Annotated[
        Literal["all", "common"],
        typer.Option(help="all: refuse systems whose images differ; common: judge the rest."),
    ] = "all",
    replicates: Annotated[int, typer.Option(min=100, help="Bootstrap replicates.")] = 2000,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap and of random picks.")] = 0,
    protocol: Annotated[
        Path | None,
        typer.Option(
            help="TOML file that fixed the question beforehand (target, metric, policy, margin, "
            "subgroups, reference): makes the report confirmatory."
        ),
    ] = None,
    margin: Annotated[
        float | None, typer.Option(help="Margin of non-inferiority and equivalence.")
    ] = None,
    prevalence: Annotated[
        float | None,
        typer.Option(help="Share of positives where it will be used: PPV and NPV there."),
    ] = None,
    unit: Annotated[
        Literal["image", "study", "patient"],
        typer.Option(
            help="study or patient: the image-level figures by these, too; their score is the "
            "highest of their images."
        ),
    ] = "image",
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A policy as in cxr tune, beside those that systems are tuned for; may be given "
            "several times. threshold=T declares a threshold, also without validation images."
        ),
    ] = None,
    cases: Annotated[
        int,
        typer.Option(min=1, help="Draw so many of each kind; four in the report, others on pages."),
    ] = 8,
    metrics: Annotated[
        str | None,
        typer.Option(
            help="Rows of the report's table and of table.tex, in order: precision,recall,f1 or "
            "recall@specificity>=0.90 for another threshold; docs/metrics.md names all."
        ),
    ] = None,
    thumbnails: Annotated[
        int,
        typer.Option(
            min=0,
            help="Thumbnails on images.html at most, wrongly judged images first; 0 for none.",
        ),
    ] = MOST_THUMBNAILS,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write a finished report of this folder anew.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json at the end.")] = False,
) -> None:
    """Judge systems on the same test images; thresholds come from validation only.

    A finished report is not made again: the same question is answered by it, another is refused.

    Example: cxr compare RetinaNet=out/retinanet-predictions CheXNet=out/chexnet-predictions
    --data out/data --out out/report
    """
    named = [split_seeds(system) for system in systems]
    only = target[0] if target and not target[1:] else None
    asked = read_question(protocol, margin, only)
    from data_prep.store.folder_kinds import require_kind

    require_kind(data, "data set")  # before what is heavy: a wrong folder is said at once
    from data_prep.store.dataset import DataSet
    from evaluation.decisions.test_set import TestSet
    from evaluation.report.tables import table_rows

    rows = table_rows((metrics or "").split(","))
    further = further_policies(policy or (), rows)
    dataset = DataSet.open(data)
    split = own_split(split, [path for _, paths in named for path in paths], dataset)
    wanted = chosen_targets(dataset, [asked.target] if asked.target else target)
    options: dict[str, Any] = {
        "images": images, "replicates": replicates, "seed": seed, "prevalence": prevalence,
        "unit": unit, "cases": cases, "thumbnails": thumbnails, "metrics": metrics,
    }  # fmt: skip
    question = {**options, "margin": margin, "policies": further, "protocol": asked.file_sha256}
    if wanted[1:]:
        own: dict[str, Any] = {"split": split, "margin": margin, "policy": policy}

        def judge(name: str, members: list[str], folder: Path) -> None:
            of_one = {**options, **own, "target": [name], "overwrite": overwrite}
            compare(members, data=data, out=folder, **of_one)

        def check(target: Target, members: list[str]) -> None:
            if not overwrite:
                each, folder = [split_seeds(member) for member in members], out / target.name
                of_one = TestSet(dataset, target, split)
                asked_before(folder, question_of(each, of_one, folder, **question))

        page = compare_each(judge, check, systems, dataset, wanted, out, split)
        console.say(f"All targets: {page}")
        if as_json:
            console.emit_json({"targets": {t.name: str(out / t.name) for t in wanted}})
        return
    test_set = TestSet(dataset, wanted[0], split)
    if not overwrite and asked_before(out, question_of(named, test_set, out, **question)):
        console.say(f"{out}: this report exists already; --overwrite makes it anew")
        _show_report(out, as_json)
        return
    with report_folder(out):
        comparison = judge_systems(
            named,
            test_set,
            out,
            protocol=asked,
            images=images,
            replicates=replicates,
            seed=seed,
            prevalence=prevalence,
            unit=unit,
            extra_policies=further,
        )
        write_comparison(
            comparison,
            dataset,
            out,
            question=question_of(named, test_set, out, **question),
            seed=seed,
            cases=cases,
            rows=rows,
            thumbnails=thumbnails,
        )
    console.say(comparison.answer.headline)
    for caution in comparison.answer.cautions:
        console.say(f"Caution: {caution}")
    _show_report(out, as_json)


def _show_report(out: Path, as_json: bool) -> None:
    import json

    console.say(f"Report: {out / PAGE}")
    show_next(out)
    if as_json:
        console.emit_json(json.loads((out / METRICS).read_text()))


@contextmanager
def report_folder(out: Path) -> Iterator[None]:
    """Hold a report folder for writing; it is incomplete until its last file."""
    require_only(out, OF_ONE_TARGET, "report", CASES_PAGES)
    with folder_lock(out):
        (out / METRICS).unlink(missing_ok=True)
        yield


def further_policies(policies: Sequence[str], rows: Sequence[TableRow]) -> list[str]:
    """The policies asked for, and those of the table's rows."""
    from evaluation.decisions.thresholds import check_policy

    for each in policies:
        check_policy(each)
    return list(dict.fromkeys([*policies, *(row.policy for row in rows if row.policy)]))


def judge_systems(
    named: Sequence[tuple[str | None, list[Path]]],
    test_set: TestSet,
    out: Path,
    *,
    protocol: Protocol,
    replicates: int,
    **options: Any,
) -> Comparison:
    """Compare systems on one target, and log that its test images were used.

    Args:
        named: Name and folders of each system; runs are predicted and tuned first.
        test_set: What is judged.
        out: Where the predictions of runs go.
        protocol: The question.
        replicates: Bootstrap resamples.
        **options: Further ones of `compare_systems`.
    """
    from evaluation.compare.compare import compare_systems
    from evaluation.compare.test_set_log import log_use

    opened: dict[str, list[Predictions]] = {}
    for name, paths in named:
        members = open_seeds(name, paths, test_set, out)
        opened[name or members[0].name] = members
    if len(opened) < len(named):
        raise InputError("compare: two systems have one name; give each its own: NAME=PATH")
    with console.progress("Resampling patients", replicates) as advance:
        comparison = compare_systems(
            opened,
            test_set,
            protocol=protocol,
            replicates=replicates,
            advance=advance,
            **options,
        )
    # Once the figures exist they count as seen, whatever becomes of the report.
    uses = log_use(test_set, opened, protocol.file_sha256)
    return comparison.with_uses(uses)


def write_comparison(
    comparison: Comparison,
    dataset: DataSet,
    out: Path,
    question: dict[str, Any] | None = None,
    **options: Any,
) -> Path:
    """Write the report and its tables.

    Args:
        comparison: What was found.
        dataset: Its images are drawn.
        out: Report folder.
        question: From `question_of`; kept, so that the same is not answered twice.
        **options: Of `write_report`.

    Returns:
        The page.
    """
    from evaluation.report.report import write_report
    from evaluation.report.result_tables import write_tables

    with console.progress("Drawing cases", None) as advance:
        page = write_report(comparison, dataset, out, progress=advance, **options)
    write_tables(comparison, out, question)
    return page


def read_question(path: Path | None, margin: float | None, target: str | None) -> Protocol:
    """The question of a comparison: from a protocol, or an exploratory one with a margin."""
    from evaluation.compare.protocol import Protocol

    if path is None:
        return Protocol(margin=margin)
    from configs.load import read_protocol

    fixed, digest = read_protocol(path)
    for option, given, stands in (
        ("target", target, fixed.target),
        ("margin", margin, fixed.margin),
    ):
        if given is not None and given != stands:
            raise InputError(
                f"--{option} {given}: the protocol {path} fixed {stands}; leave the option out"
            )
    metric, partner = (*fixed.metric, "")[:2]
    keys = fixed.model_dump() | {"subgroups": tuple(fixed.subgroups)}
    keys |= {"metric": metric, "partner": partner}
    return Protocol(**keys, declared=True, file_sha256=digest)


ALL = "all"


def chosen_targets(dataset: DataSet, names: list[str] | None) -> list[Target]:
    """The targets that are asked for, each once; ``all`` means every one of the data set."""
    if names and ALL in names and ALL not in dataset.targets:
        return list(dataset.targets.values())
    if not names:
        return [dataset.target()]
    return [dataset.target(name) for name in dict.fromkeys(names)]


def compare_each(
    judge: Callable[[str, list[str], Path], Any],
    check: Callable[[Target, list[str]], Any],
    systems: list[str],
    dataset: DataSet,
    targets: list[Target],
    out: Path,
    split: str,
) -> Path:
    """Compare the same systems on every target, each into a folder of its own."""
    from evaluation.decisions.test_set import TestSet
    from evaluation.report.targets import write_targets_page

    _require_folder(out, [target.name for target in targets])
    with folder_lock(out):
        test_set = TestSet(dataset, targets[0], split)
        predicted = [_predicted(system, test_set, out) for system in systems]
        for target in targets:
            check(target, predicted)
        # Without its page the folder is incomplete, whatever an earlier run had left.
        (out / PAGE).unlink(missing_ok=True)
        for target in targets:
            console.say(f"{target.display_name}:")
            judge(target.name, predicted, out / target.name)
        return write_targets_page(out, targets, dataset.name)


def _require_folder(out: Path, targets: list[str]) -> None:
    require_only(out, OF_ALL_TARGETS.union(targets), "report on these targets")
    reserved = sorted({*OF_ALL_TARGETS, LOCK} & set(targets))
    if reserved:
        raise InputError(f"compare: a target cannot be called '{reserved[0]}'; compare it alone")


def _predicted(system: str, test_set: TestSet, out: Path) -> str:
    """The system as predictions folders, so that no run is predicted once per target."""
    from scripts.systems import open_seeds, split_seeds

    name, paths = split_seeds(system)
    opened = open_seeds(name, paths, test_set, out)
    folders = ",".join(str(each.folder) for each in opened)
    return f"{name or opened[0].name}={folders}"


_OURS = {"folds.csv", "folds.md", "folds.png", "folds.json"}


def folds(
    reports: Annotated[list[Path], typer.Argument(help="Report folders, one a fold.")],
    out: Annotated[Path, typer.Option(help="Folder for the table and the plot.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print folds.json at the end.")] = False,
) -> None:
    """Mean over the folds of a cross-validation, with intervals, of every figure and difference.

    Each report judges the same systems on another fold: cxr split --folds 5 --test-folds, then
    train, predict, tune and compare with --split NAME-0, NAME-1, ...

    Example: cxr folds out/report-0 out/report-1 out/report-2 --out out/folds
    """
    strangers = sorted(p.name for p in out.iterdir() if p.name not in _OURS) if out.is_dir() else []
    if strangers:
        raise InputError(
            f"{out}: holds '{strangers[0]}', which cxr folds does not write; choose another --out"
        )
    from data_prep.contracts.folders import make_folder
    from evaluation.report.folds import folds_markdown, read_folds, summarise_folds, write_folds

    read = read_folds(reports)
    table = summarise_folds(read.figures)
    make_folder(out)
    (out / "folds.json").unlink(missing_ok=True)
    write_folds(read, table, out)
    console.say(folds_markdown(read, table))
    console.say(f"Plot: {out / 'folds.png'}")
    console.next_step(f"open {shlex.quote(str(out / 'folds.png'))}")
    if as_json:
        import json

        console.emit_json(json.loads((out / "folds.json").read_text()))
