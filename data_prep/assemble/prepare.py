"""From a source folder to a data set folder: tables, pixels, splits, audit."""

from __future__ import annotations

import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import pandas as pd

from data_prep.assemble.dataset_writer import Made, Plan, begin_set, is_complete, write_set
from data_prep.assemble.ingest import PrepareOptions, assemble, ingest, outdated_images
from data_prep.assemble.summary import Summary, describe_changes, known_ids, summarise
from data_prep.contracts.errors import InputError
from data_prep.contracts.folders import folder_lock
from data_prep.contracts.pseudonyms import hide_paths, key_id, keyed_hash, read_id_key
from data_prep.contracts.tables import frame_digest, is_member, renamed
from data_prep.formats.registry import read_source
from data_prep.formats.source import ReadOptions, SourceTables, with_targets
from data_prep.splits.given_split import read_split_file
from data_prep.store.dataset import DataSet
from data_prep.store.pixel_store import PixelStore, build_pixel_store, store_folder
from data_prep.store.preprocess import require_size
from data_prep.work.object_store import recorded_path


def _source_id(tables: SourceTables) -> str:
    """Digest all that the source holds."""
    names = ("images", "findings", "boxes", "split", "excluded", "official")
    frames = [getattr(tables, name) for name in names]
    parts = [frame_digest(frame.astype("str"), frame.columns) for frame in frames]
    return frame_digest(pd.DataFrame({"part": parts}), ["part"])


def _user_choices(options: PrepareOptions, key: bytes | None) -> dict[str, Any]:
    """What the user asked for beyond the defaults."""
    stated = {f.name: getattr(options.read, f.name) for f in fields(options.read)}
    choices: dict[str, Any] = {
        name: list(value) if isinstance(value, tuple) else str(value)
        for name, value in stated.items()
        if value != getattr(ReadOptions(), name)
    }
    if options.targets:
        choices["targets"] = {name: list(members) for name, members in options.targets.items()}
    if options.split is not None:
        choices["split"] = str(options.split)
    if options.window is not None:
        choices["window"] = options.window
    if key is not None:
        choices["id_key"] = key_id(key)
    return choices


def prepare(source: str | Path, out: str | Path, options: PrepareOptions) -> Summary:
    """Make a data set folder from a source folder; return what came in and what was left out.

    Every image is decoded once. The work may be killed at any moment: the same call goes on
    where it stopped. A complete folder is left as it is, but gets the pixel stores it lacks.
    """
    source, out = Path(source), Path(out)
    for size in options.sizes:
        require_size(size)
    key = _read_key(options, out, source)
    tables = with_targets(_read(source, options), options.targets)
    default = _user_split(options, tables)
    if key is not None:
        tables, new_names = _pseudonymise(tables, key)
        if isinstance(default, tuple):
            roles, how = default
            default = roles.assign(image_id=roles["image_id"].map(new_names)), how
    settings = {
        "source_format": options.format,
        "source_root": recorded_path(source),
        "source_id": _source_id(tables),
        **asdict(options.rule),
        **_user_choices(options, key),
    }
    plan = Plan(options.name or out.resolve().name, options.rule, settings, default)
    is_complete(out, settings, add=options.add)  # refuses a wrong folder before it gets a lock
    with folder_lock(out):
        complete = is_complete(out, settings, add=options.add)
        outdated = outdated_images(tables.images, tables.root, out)
        changes: tuple[str, ...] = ()
        if not complete or (options.add and len(outdated)):
            before = known_ids(out)
            again = outdated if options.add else outdated[outdated["replaced"]]
            _build(tables, out, plan, options, key, again)
            changes = describe_changes(before, known_ids(out), int(outdated["replaced"].sum()))
            complete = False
        dataset = DataSet.open(out)
        _add_stores(dataset, tables, options)
    return summarise(dataset, already_complete=complete, changes=changes)


def _read_key(options: PrepareOptions, out: Path, source: Path) -> bytes | None:
    if options.id_key is not None:
        if options.keep_ids:
            raise InputError("--id-key and --keep-ids: choose one of them")
        return read_id_key(Path(options.id_key), out, source)
    if options.format == "dicom" and not options.keep_ids:
        raise InputError(
            "--format dicom: ids and paths may name patients; give --id-key FILE (it is made where "
            "there is none), or --keep-ids where the files are de-identified already"
        )
    return None


def _read(source: Path, options: PrepareOptions) -> SourceTables:
    tables = read_source(source, options.format, options.read)
    if options.strict and len(tables.excluded):
        first = tables.excluded.iloc[0]
        raise InputError(
            f"{source}: {first['path']}: {first['reason']} ({len(tables.excluded)} such images; "
            "without --strict they are left out)"
        )
    return tables


def _user_split(options: PrepareOptions, tables: SourceTables) -> str | Made | None:
    """The user's own split file, read before any image: it may be refused."""
    if options.split is None:
        return None
    if str(options.split) != "official":
        return read_split_file(Path(options.split), tables.images, strict=options.strict)
    if not tables.official.empty:
        return "official"
    if len(tables.split) and len(tables.split) == len(tables.images):
        return None  # every image comes with a role: the default split is the source's own
    raise InputError("--split official: the source comes with no split; leave it out")


def _build(
    tables: SourceTables,
    out: Path,
    plan: Plan,
    options: PrepareOptions,
    key: bytes | None,
    again: pd.DataFrame,
) -> None:
    """Write every file of the data set; ``dataset.json`` comes last and completes it."""
    begin_set(out, plan.settings)
    if again["replaced"].any():  # stores that are not written now would keep the old images
        kept = {store_folder(out, size) for size in options.sizes}
        for folder in set((out / "pixels").glob("*")) - kept:
            shutil.rmtree(folder)
    outcomes = ingest(tables, out, options, again["image_id"])
    tables, decode = assemble(tables, outcomes)
    if tables.images.empty:
        first = tables.excluded.iloc[0]
        raise InputError(f"{tables.root}: no usable image; {first['path']}: {first['reason']}")
    if key is not None:
        images, excluded = hide_paths(tables.images, key), hide_paths(tables.excluded, key)
        tables = replace(tables, images=images, excluded=excluded)
    shortcuts = options.measure_shortcuts
    write_set(out, tables, decode, plan, measure_shortcuts=shortcuts, engine=options.engine)


def _add_stores(dataset: DataSet, tables: SourceTables, options: PrepareOptions) -> None:
    """Build the wanted pixel stores that are not complete yet."""
    if options.sizes and not dataset.has_pixels:
        raise InputError(f"{dataset.folder}: the source gives no images, so --size does not apply")
    images = tables.images[is_member(tables.images["image_id"], dataset.images["image_id"])]
    for size in options.sizes:
        if (store_folder(dataset.folder, size) / "pixels.json").is_file():
            store = PixelStore.open(store_folder(dataset.folder, size))
            if is_member(images["image_id"], store.ids).all():
                continue
        with options.progress(f"Pixels at {size} px", len(images)) as advance:
            build_pixel_store(
                dataset.folder,
                images,
                dataset.source_root,
                size,
                window=dataset.window,
                engine=options.engine,
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
