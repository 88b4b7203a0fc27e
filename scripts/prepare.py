"""`cxr prepare`: from a public download to a data set folder, or several sets into one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from data_prep.contracts.errors import InputError
from data_prep.store.folder_kinds import kind_of, require_kind
from scripts import console
from scripts.options import AddressOption, EngineOption

if TYPE_CHECKING:
    from data_prep.contracts.engines import Engine
    from data_prep.store.dataset import DataSet
    from data_prep.store.pixel_store import PixelStore


def prepare(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="SOURCE OUT",
            help="Folder of the data set as it was published, and the data set folder to make; "
            "with --out instead: prepared sets to put into one.",
        ),
    ],
    format: Annotated[  # noqa: A002 - the option's own name
        str | None,
        typer.Option(
            help="rsna, csv, nih, vindr, kermany, covid, voc, yolo, coco or dicom (docs/formats.md "
            "says what the folder of each holds)."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder to make, where several prepared sets come in.")
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name in reports; the folder's name if left out.")
    ] = None,
    size: Annotated[
        list[int] | None,
        typer.Option(help="Also store the pixels at this size, px; may be repeated."),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A target of your own, NAME=FINDING,FINDING: positive if any is present; may be "
            "repeated."
        ),
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Default split: 'official' (the publisher's), or a CSV of yours (image_id or "
            "patient_id, role). Drawn by patient if left out."
        ),
    ] = None,
    val: Annotated[float, typer.Option(help="Share of patients for validation.")] = 0.15,
    test: Annotated[float, typer.Option(help="Share of patients for test.")] = 0.2,
    folds: Annotated[int, typer.Option(help="Number of folds for cross-validation.")] = 5,
    seed: Annotated[int, typer.Option(help="Seed of the split.")] = 0,
    method: Annotated[
        str,
        typer.Option(
            help="balanced (roles alike in class, source and view) or hash (a patient's role never "
            "changes, whatever is added)."
        ),
    ] = "balanced",
    reference: Annotated[
        str,
        typer.Option(
            help="Where several readers read an image: majority, any, all or reader:NAME (vindr)."
        ),
    ] = "majority",
    labels: Annotated[
        Path | None, typer.Option(help="CSV of labels that lies elsewhere (dicom).")
    ] = None,
    class_names: Annotated[
        str, typer.Option(help="Names of the numbered classes, comma between (yolo).")
    ] = "",
    patient_pattern: Annotated[
        str | None,
        typer.Option(
            help=r"Regular expression that finds the patient in a file's name, as in "
            r"'(?P<nih>\d{8})_' (kermany, covid, voc, yolo, coco)."
        ),
    ] = None,
    window: Annotated[
        str | None,
        typer.Option(help="Name of the DICOM window to show; a file's first if left out."),
    ] = None,
    id_key: Annotated[
        Path | None,
        typer.Option(
            help="Replace ids and paths by hashes keyed by this file, kept outside the folder; "
            "made if it is not there."
        ),
    ] = None,
    keep_ids: Annotated[
        bool, typer.Option("--keep-ids", help="The DICOM files carry no real ids: keep them.")
    ] = False,
    add: Annotated[
        bool, typer.Option("--add", help="Take what is new in the source into a complete set.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first file or label that is unusable.")
    ] = False,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Processes that decode; all processors if left out.")
    ] = None,
    engine: EngineOption = "local",
    address: AddressOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Make a data set folder: tables, split by patient, audit.

    May be interrupted: the same command goes on where it stopped.

    Example: cxr prepare ~/rsna sets/rsna --format rsna --size 512

    Example: cxr prepare sets/rsna sets/nih --out sets/both --target opacity=lung_opacity,pneumonia
    """
    several = out is not None and len(paths) > 1
    _require_sources(paths if several else [source_and_out(paths, out)[0]], prepared=several)
    from data_prep.assemble.combine import combine
    from data_prep.assemble.prepare import prepare as prepare_dataset
    from data_prep.contracts.engines import open_engine
    from data_prep.formats.source import ReadOptions
    from data_prep.splits.split import SplitRule
    from data_prep.store.dataset import DataSet
    from evaluation.systems.shortcuts import measure_shortcuts

    rule = SplitRule(val=val, test=test, folds=folds, seed=seed, method=method)
    targets = dict(read_target(text) for text in target or ())
    with open_engine(engine, address=address, workers=workers) as decoders:
        if out is not None and len(paths) > 1:
            if format is not None:
                raise InputError(
                    "--format: prepared sets have none; leave it out, or leave out --out"
                )
            summary = combine(
                paths,
                out,
                name=name,
                rule=rule,
                targets=targets,
                measure_shortcuts=measure_shortcuts,
            )
            for side in size or ():
                open_store(DataSet.open(out), side, decoders if engine == "ray" else None)
        else:
            source, out = source_and_out(paths, out)
            summary = prepare_dataset(
                source,
                out,
                format=format,
                options=ReadOptions(
                    reference=reference,
                    labels=labels,
                    class_names=tuple(n.strip() for n in class_names.split(",") if n.strip()),
                    patient_pattern=patient_pattern,
                ),
                name=name,
                sizes=size or (),
                targets=targets,
                rule=rule,
                split=split,
                window=window,
                id_key=id_key,
                keep_ids=keep_ids,
                add=add,
                strict=strict,
                engine=decoders,
                progress=console.progress,
                measure_shortcuts=measure_shortcuts,
            )
    for line in summary.lines:
        console.say(line)
    console.next_step(f"cxr check {shlex.quote(str(out))}")
    if as_json:
        console.emit_json(summary.payload)


def _require_sources(sources: list[Path], *, prepared: bool) -> None:
    """Check before anything heavy is imported that sources are there and of the right kind."""
    published = "give the folder of images and labels as it was published"
    for source in sources:
        kind = kind_of(source)
        if prepared:
            require_kind(source, "data set")
        elif not source.exists():
            raise InputError(f"{source}: no such file or folder; {published}")
        elif kind is not None and kind.name not in ("data set", "phantom"):
            raise InputError(f"{source}: is {kind.with_article}; {published}")


def source_and_out(paths: list[Path], out: Path | None) -> tuple[Path, Path]:
    """Tell the source from the folder to make.

    Example:
        >>> source_and_out([Path("rsna"), Path("sets/rsna")], None)
        (PosixPath('rsna'), PosixPath('sets/rsna'))
    """
    both = [*paths, *([] if out is None else [out])]
    if len(both) == 2:
        return both[0], both[1]
    if len(both) < 2:
        raise InputError("cxr prepare SOURCE OUT: the folder to make is missing")
    raise InputError(
        f"cxr prepare SOURCE OUT: {len(both)} folders given; to put prepared sets into one, say "
        "cxr prepare SET SET ... --out OUT"
    )


def read_target(text: str) -> tuple[str, tuple[str, ...]]:
    """Read NAME=FINDING,FINDING.

    Example:
        >>> read_target("opacity=lung_opacity,pneumonia")
        ('opacity', ('lung_opacity', 'pneumonia'))
    """
    name, _, members = text.partition("=")
    findings = tuple(member.strip() for member in members.split(",") if member.strip())
    if not name.strip() or not findings:
        raise InputError(f"--target {text!r}: write NAME=FINDING,FINDING")
    return name.strip(), findings


def open_store(dataset: DataSet, size: int, engine: Engine | None = None) -> PixelStore:
    """Open the pixel store of a size; decode what it lacks.

    Where another training is decoding the same pixels, wait for it: one does the work.
    """
    from data_prep.store.pixel_store import build_pixel_store

    title = f"Pixels at {size} px"
    with console.progress(title, len(dataset.images)) as advance:
        return build_pixel_store(
            dataset.folder,
            dataset.image_files,
            dataset.source_root,
            size,
            window=dataset.window,
            engine=engine,
            progress=advance,
            before_wait=lambda: console.say(f"{title}: another cxr decodes them; waiting"),
        )
