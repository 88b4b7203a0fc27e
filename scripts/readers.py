"""`cxr readers`: several readers by several modalities, and readers against systems."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from data_prep.contracts.errors import InputError
from scripts import console
from scripts.options import own_split, split_name

if TYPE_CHECKING:
    import pandas as pd

    from evaluation.decisions.test_set import TestSet


def readers(
    ratings: Annotated[
        list[str],
        typer.Argument(
            help="CSV files of readings: reader, case, rating or decision (0 or 1) or both, and "
            "modality where there are several. With --key: filled-in forms of a blind study, each "
            "as READER=FILE or READER:MODALITY=FILE."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the page and the tables.")],
    truth: Annotated[
        Path | None,
        typer.Option(help="CSV of the truth: case, label (0 or 1) and, maybe, patient."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Data set that cxr prepare made, in place of --truth; cases are images."),
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="With --data: what is judged, where there are several.")
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            help="A stand-alone system on the same cases, as NAME=FILE (CSV: case, score and, "
            "maybe, decision) or, with --data, NAME=PREDICTIONS. May be given several times."
        ),
    ] = None,
    readers: Annotated[
        Literal["random", "fixed"],
        typer.Option(help="random: the result is for readers like these; fixed: for these."),
    ] = "random",
    cases: Annotated[
        Literal["random", "fixed"],
        typer.Option(help="random: the result is for cases like these; fixed: for these."),
    ] = "random",
    level: Annotated[
        float, typer.Option(min=0.5, max=0.999, help="Coverage of the intervals.")
    ] = 0.95,
    positive_from: Annotated[
        float | None,
        typer.Option(help="The lowest rating that calls a case positive: sensitivity and so on."),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="Of a predictions folder: decide at this policy's threshold.")
    ] = "max_f1",
    key: Annotated[
        Path | None, typer.Option(help="key.csv of the blind study (cxr overlay --blind).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print readers.json at the end.")] = False,
) -> None:
    """Analyse a reader study: Obuchowski and Rockette's analysis with Hillis' degrees of freedom.

    Readers may read all cases with each modality, some with some, or each with another.

    Example: cxr readers ratings.csv --truth truth.csv --out out/readers --system CheXNet=scores.csv
    """
    given = truth if truth is not None else data
    if given is None or (truth is not None and data is not None):
        raise InputError("readers: give either --truth TRUTH.csv or --data DATA")
    from data_prep.contracts.folders import folder_lock, make_folder
    from evaluation.report.files import require_only
    from evaluation.studies.reader_analysis import analyse_readers
    from evaluation.studies.reader_page import statements, write_readers
    from evaluation.studies.readings import build_study, read_truth, truth_of
    from evaluation.studies.study_page import study_files

    require_only(out, study_files("readers"), "reader study")
    judged = open_target(given, target) if truth is None else None
    known = truth_of(judged) if judged else read_truth(given)
    read = [read_one(each, key) for each in ratings]
    systems = read_systems(system or [], judged, read, policy)
    study = build_study(known, read, systems, positive_from=positive_from)
    analysis = analyse_readers(study, readers=readers, cases=cases, level=level)
    make_folder(out)
    with folder_lock(out):
        page = write_readers(analysis, out)
    for statement in statements(analysis):
        console.say(statement.text)
    console.next_step(f"open {shlex.quote(str(page))} in a browser")
    if as_json:
        from data_prep.contracts.json_files import read_json

        console.emit_json(read_json(out / "readers.json", "readers"))


def open_target(data: Path, target: str | None) -> TestSet:
    """Open a data set and choose what is judged."""
    from data_prep.store.dataset import DataSet
    from evaluation.decisions.test_set import TestSet

    dataset = DataSet.open(data)
    return TestSet(dataset, dataset.target(target))


def read_one(ratings: str, key: Path | None) -> pd.DataFrame:
    """Read one file of readings: a table, or with a key the form of a blind study."""
    from evaluation.studies.readings import read_form, read_ratings

    if key is None:
        return read_ratings(Path(ratings))
    name, path = split_name(ratings)
    if name is None:
        raise InputError(f"{ratings}: with --key, say who read: READER={ratings}")
    reader, _, modality = name.partition(":")
    return read_form(path, key, reader, modality or None)


def read_systems(
    named: list[str],
    judged: TestSet | None,
    read: list[pd.DataFrame],
    policy: str,
) -> dict[str, pd.DataFrame]:
    """Read stand-alone systems on the cases that readers read."""
    from dataclasses import replace

    import pandas as pd

    from data_prep.store.predictions import Predictions, is_predictions_folder
    from evaluation.studies.readings import predicted_system, read_system

    cases = pd.Index(pd.concat([each["case"] for each in read]).unique(), name="image_id")
    systems: dict[str, pd.DataFrame] = {}
    for each in named:
        name, path = split_name(each)
        if name is None or name in systems:
            raise InputError(f"--system {each}: expected NAME=PATH, each with a name of its own")
        if not is_predictions_folder(path):
            systems[name] = read_system(path, name)
            continue
        if judged is None:
            raise InputError(f"--system {each}: a predictions folder needs --data, not --truth")
        test_set = replace(judged, split=own_split(None, [path], judged.dataset))
        systems[name] = predicted_system(
            Predictions.open(path), name, test_set, cases, policy=policy
        )
    return systems
