"""`cxr compare`: judge several systems on the same test images and write the report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import folder_lock
from evaluation.report.files import CASES_PAGES, METRICS, OF_ONE_TARGET, require_only
from scripts import console
from scripts.own_split import own_split
from scripts.systems import open_seeds, split_seeds

if TYPE_CHECKING:
    from data_prep.store.predictions import Predictions
    from evaluation.compare.protocol import Protocol


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
    interval: Annotated[
        Literal["percentile", "bca"] | None,
        typer.Option(
            help="Of the bootstrap: percentile (default), or bca, corrected for bias and skew, "
            "which takes up to half as long again."
        ),
    ] = None,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print metrics.json at the end.")] = False,
) -> None:
    """Judge systems on the same test images; thresholds come from validation only.

    Example: cxr compare RetinaNet=out/retinanet-predictions CheXNet=out/chexnet-predictions
    --data out/data --out out/report
    """
    from scripts.compare_targets import chosen_targets, compare_each

    named = [split_seeds(system) for system in systems]
    only = target[0] if target and not target[1:] else None
    asked = read_question(protocol, margin, only, interval)
    from data_prep.store.dataset import DataSet
    from evaluation.compare.compare import compare_systems
    from evaluation.compare.test_set_log import record_look
    from evaluation.decisions.thresholds import check_policy
    from evaluation.report.report import write_report
    from evaluation.report.result_tables import write_tables

    for each in policy or ():
        check_policy(each)
    dataset = DataSet.open(data)
    split = own_split(split, [path for _, paths in named for path in paths], dataset)
    wanted = chosen_targets(dataset, [asked.target] if asked.target else target)
    if wanted[1:]:
        rest: dict[str, Any] = {
            "split": split, "images": images, "replicates": replicates, "seed": seed,
            "interval": interval, "margin": margin, "prevalence": prevalence, "unit": unit,
            "policy": policy, "cases": cases,
        }  # fmt: skip

        def judge(name: str, members: list[str], folder: Path) -> None:
            compare(members, data=data, out=folder, target=[name], **rest)

        page = compare_each(judge, systems, dataset, wanted, out, split)
        console.say(f"All targets: {page}")
        if as_json:
            console.emit_json({"targets": {t.name: str(out / t.name) for t in wanted}})
        return
    judged = wanted[0]
    require_only(out, OF_ONE_TARGET, "report", CASES_PAGES)
    with folder_lock(out):
        # Unmarked first: a report that is written anew is incomplete until its last file.
        (out / METRICS).unlink(missing_ok=True)
        opened: dict[str, list[Predictions]] = {}
        for name, paths in named:
            members = open_seeds(name, paths, dataset, judged, out, split)
            opened[name or members[0].name] = members
        if len(opened) < len(named):
            raise InputError("compare: two systems have one name; give each its own: NAME=PATH")
        with console.progress("Resampling patients", replicates) as advance:
            comparison = compare_systems(
                opened,
                dataset,
                judged,
                split=split,
                images=images,
                replicates=replicates,
                seed=seed,
                protocol=asked,
                prevalence=prevalence,
                unit=unit,
                extra_policies=policy or (),
                advance=advance,
            )
        # Once the figures exist they count as seen, whatever becomes of the report.
        looks = record_look(dataset, split, judged.name, opened, asked)
        comparison = looks.told_in(comparison)
        with console.progress("Drawing cases", None) as advance:
            page = write_report(comparison, dataset, out, seed=seed, cases=cases, progress=advance)
        write_tables(comparison, out)
    console.say(comparison.verdict)
    console.say(f"Report: {page}")
    if as_json:
        import json

        console.emit_json(json.loads((out / METRICS).read_text()))


def read_question(
    path: Path | None,
    margin: float | None,
    target: str | None,
    interval: Literal["percentile", "bca"] | None = None,
) -> Protocol:
    """The question of a comparison: from a protocol, or an exploratory one with a margin.

    Raises:
        InputError: The protocol cannot be used, or the command line contradicts it.
    """
    from evaluation.compare.protocol import Protocol

    if path is None:
        return Protocol(margin=margin, interval=interval or "percentile")
    from configs.protocol import read_protocol
    from configs.schema import ConfigError

    try:
        fixed, digest = read_protocol(path)
    except ConfigError as error:
        raise InputError(str(error)) from None
    for option, given, stands in (
        ("target", target, fixed.target),
        ("margin", margin, fixed.margin),
        ("interval", interval, fixed.interval),
    ):
        if given is not None and given != stands:
            raise InputError(
                f"--{option} {given}: the protocol {path} fixed {stands}; leave the option out"
            )
    keys = fixed.model_dump() | {"subgroups": tuple(fixed.subgroups)}
    return Protocol(**keys, declared=True, file_sha256=digest)
