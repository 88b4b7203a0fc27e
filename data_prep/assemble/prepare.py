"""From a source folder to a data set folder: tables, pixels, splits, audit."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.assemble.dataset_writer import Made, Plan, begin_set, is_complete, write_set
from data_prep.assemble.ingest import Effort, Progress, assemble, ingest, outdated_images
from data_prep.assemble.summary import Summary, describe_changes, known_ids, summarise
from data_prep.audit.audit import MeasureShortcuts
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import folder_lock
from data_prep.contracts.pseudonyms import hide_paths, key_id, keyed_hash, read_id_key
from data_prep.contracts.tables import frame_digest
from data_prep.contracts.text_lookup import is_member, renamed
from data_prep.formats.registry import read_source
from data_prep.formats.source import ReadOptions, SourceTables, with_targets
from data_prep.splits.given_split import read_split_file
from data_prep.splits.split import SplitRule
from data_prep.store.dataset import DataSet
from data_prep.store.pixel_store import PixelStore, build_pixel_store, store_folder
from data_prep.store.preprocess import require_size
from data_prep.work.addresses import recorded_path
from data_prep.work.engine import Engine
from data_prep.work.pool import LocalEngine, cpu_count


def _source_id(tables: SourceTables) -> str:
    """Digest all that the source holds."""
    names = ("images", "findings", "boxes", "split", "excluded", "official")
    frames = [getattr(tables, name) for name in names]
    parts = [frame_digest(frame.astype("str"), frame.columns) for frame in frames]
    return frame_digest(pd.DataFrame({"part": parts}), ["part"])


def _user_choices(
    options: ReadOptions,
    targets: Mapping[str, Sequence[str]],
    split: str | Path | None,
    window: str | None,
    key: bytes | None,
) -> dict[str, Any]:
    """What the user asked for beyond the defaults."""
    stated = {f.name: getattr(options, f.name) for f in fields(options)}
    extras: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else str(value)
        for name, value in stated.items()
        if value != getattr(ReadOptions(), name)
    }
    if targets:
        extras["targets"] = {name: list(members) for name, members in targets.items()}
    if split is not None:
        extras["split"] = str(split)
    if window is not None:
        extras["window"] = window
    if key is not None:
        extras["id_key"] = key_id(key)
    return extras


def _no_progress(description: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    return nullcontext(lambda n: None)


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    format: str | None,  # noqa: A002 - the option's own name
    options: ReadOptions | None = None,
    name: str | None = None,
    sizes: Iterable[int] = (),
    targets: Mapping[str, Sequence[str]] | None = None,
    rule: SplitRule | None = None,
    split: str | Path | None = None,
    window: str | None = None,
    id_key: str | Path | None = None,
    keep_ids: bool = False,
    add: bool = False,
    strict: bool = False,
    workers: int | None = None,
    engine: Engine | None = None,
    progress: Progress = _no_progress,
    measure_shortcuts: MeasureShortcuts | None = None,
) -> Summary:
    """Make a data set folder from a source folder.

    Every image is decoded once. The work may be killed at any moment: the same call goes on
    where it stopped. A complete folder is left as it is, but gets the pixel stores it lacks.
    """
    source, out = Path(source), Path(out)
    rule, options = rule or SplitRule(), options or ReadOptions()
    sizes = tuple(dict.fromkeys(sizes))
    for size in sizes:
        require_size(size)
    engine = engine or LocalEngine(cpu_count() if workers is None else workers)
    effort = Effort(sizes, strict, engine, progress, measure_shortcuts)
    id_key = None if id_key is None else Path(id_key)
    key = _read_key(format, id_key, out, source, keep_ids)
    tables = with_targets(_read(source, format, options, strict), targets or {})
    default = _user_split(split, tables, strict)
    if key is not None:
        tables, new_names = _pseudonymise(tables, key)
        if isinstance(default, tuple):
            given, how = default
            default = given.assign(image_id=given["image_id"].map(new_names)), how
    settings = {
        "source_format": format,
        "source_root": recorded_path(source),
        "source_id": _source_id(tables),
        **asdict(rule),
        **_user_choices(options, targets or {}, split, window, key),
    }
    plan = Plan(name or out.resolve().name, rule, settings, default, window, key)
    is_complete(out, settings, add=add)  # refuses a wrong folder before a lock is put into it
    with folder_lock(out):
        complete = is_complete(out, settings, add=add)
        outdated = outdated_images(tables.images, tables.root, out)
        changes: tuple[str, ...] = ()
        if not complete or (add and len(outdated)):
            before = known_ids(out)
            again = outdated if add else outdated[outdated["replaced"]]
            _build(tables, out, plan, effort, again)
            changes = describe_changes(before, known_ids(out), int(outdated["replaced"].sum()))
            complete = False
        dataset = DataSet.open(out)
        _add_stores(dataset, tables, effort)
    return summarise(dataset, already_complete=complete, changes=changes)


def _read_key(
    format: str | None,  # noqa: A002
    id_key: Path | None,
    out: Path,
    source: Path,
    keep_ids: bool,
) -> bytes | None:
    if id_key is not None:
        if keep_ids:
            raise InputError("--id-key and --keep-ids: choose one of them")
        return read_id_key(id_key, out, source)
    if format == "dicom" and not keep_ids:
        raise InputError(
            "--format dicom: ids and paths may name patients; give --id-key FILE (it is made where "
            "there is none), or --keep-ids where the files are de-identified already"
        )
    return None


def _read(
    source: Path,
    format: str | None,  # noqa: A002
    options: ReadOptions,
    strict: bool,
) -> SourceTables:
    tables = read_source(source, format, options)
    if strict and len(tables.excluded):
        first = tables.excluded.iloc[0]
        raise InputError(
            f"{source}: {first['path']}: {first['reason']} ({len(tables.excluded)} such images; "
            "without --strict they are left out)"
        )
    return tables


def _user_split(split: str | Path | None, tables: SourceTables, strict: bool) -> str | Made | None:
    """The user's own split file, read before any image: it may be refused."""
    if split is None:
        return None
    if str(split) != "official":
        return read_split_file(Path(split), tables.images, strict=strict)
    if not tables.official.empty:
        return "official"
    if len(tables.split) and len(tables.split) == len(tables.images):
        return None  # every image comes with a role: the default split is the source's own
    raise InputError("--split official: the source comes with no split; leave it out")


def _build(
    tables: SourceTables, out: Path, plan: Plan, effort: Effort, again: pd.DataFrame
) -> None:
    """Write every file of the data set; ``dataset.json`` comes last and completes it."""
    begin_set(out, plan.settings)
    if again["replaced"].any():  # stores that are not written now would keep the old images
        kept = {store_folder(out, size) for size in effort.sizes}
        for folder in set((out / "pixels").glob("*")) - kept:
            shutil.rmtree(folder)
    outcomes = ingest(tables, out, effort, again["image_id"], plan.window)
    tables, decode = assemble(tables, outcomes)
    if tables.images.empty:
        first = tables.excluded.iloc[0]
        raise InputError(f"{tables.root}: no usable image; {first['path']}: {first['reason']}")
    if plan.key is not None:
        tables = replace(
            tables,
            images=hide_paths(tables.images, plan.key),
            excluded=hide_paths(tables.excluded, plan.key),
        )
    write_set(
        out,
        tables,
        decode,
        plan,
        measure_shortcuts=effort.measure_shortcuts,
        engine=effort.engine,
    )


def _add_stores(dataset: DataSet, tables: SourceTables, effort: Effort) -> None:
    """Build the wanted pixel stores that are not complete yet."""
    if effort.sizes and not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: the source gives no images, so --size does not apply")
    images = tables.images[is_member(tables.images["image_id"], dataset.images["image_id"])]
    for size in effort.sizes:
        if (store_folder(dataset.folder, size) / "pixels.json").is_file():
            store = PixelStore.open(store_folder(dataset.folder, size))
            if is_member(images["image_id"], store.ids).all():
                continue
        with effort.progress(f"Pixels at {size} px", len(images)) as advance:
            build_pixel_store(
                dataset.folder,
                images,
                dataset.source_root,
                size,
                window=dataset.window,
                engine=effort.engine,
                progress=advance,
            )


def _pseudonymise(tables: SourceTables, key: bytes) -> tuple[SourceTables, dict[str, str]]:
    """Replace the ids of images, patients and studies in all tables.

    The name space of a patient stays: ``dicom:17`` becomes ``dicom:`` and 24 digits. Paths stay
    true, since the images are yet to be read; `hide_paths` comes before anything is written.
    """
    images = tables.images.copy()
    frames = (images, tables.findings, tables.boxes, tables.box_coverage, tables.split)
    ids = pd.concat([frame["image_id"] for frame in (*frames, tables.official)]).unique()
    names = {name: keyed_hash(key, f"image:{name}") for name in ids}
    people = {name: _hide_patient(key, name) for name in images["patient_id"].unique()}
    images["patient_id"] = renamed(images["patient_id"], people)
    if "study_id" in images.columns:
        studies = images["study_id"].dropna().unique()
        hidden_studies = {name: keyed_hash(key, f"study:{name}") for name in studies}
        images["study_id"] = renamed(images["study_id"], hidden_studies)

    def hide(frame: pd.DataFrame) -> pd.DataFrame:
        return frame.assign(image_id=renamed(frame["image_id"], names))

    names_of_tables = ("findings", "boxes", "box_coverage", "split", "official")
    labels: dict[str, Any] = {name: hide(getattr(tables, name)) for name in names_of_tables}
    hidden = replace(
        tables,
        images=hide(images),
        # An image without a file is listed there by its id, which is hidden as a path is.
        excluded=hide_paths(tables.excluded, key),
        **labels,
    )
    return hidden, {**names, **people}


def _hide_patient(key: bytes, name: str) -> str:
    space, colon, _ = name.partition(":")
    return f"{space if colon else 'hidden'}:{keyed_hash(key, f'patient:{name}')}"
