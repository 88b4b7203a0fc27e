"""`cxr reader-verdicts`: the verdict of a comparison by the labels of each reader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, cast

from cxr_compare import DataSet, InputError, Result, compare
from cxr_compare.data_prep.contracts.schemas import REFERENCE_READER
from cxr_compare.data_prep.store.prediction_writer import is_predictions_folder
from cxr_compare.evaluation.metrics.prose import listing
from cxr_compare.evaluation.statistics.figure_text import number
from cxr_compare.scripts.command_frame import (
    AnyPath,
    Argument,
    DataFolder,
    Outcome,
    SystemPaths,
    Systems,
    as_path,
    command,
    own_split,
    read_systems,
)

_NOT_SHOWN = "not shown"


@command
def reader_verdicts(
    systems: Systems,
    *,
    data: DataFolder,
    target: str | None = None,
    split: str | None = None,
    replicates: Annotated[int, Argument(minimum=100)] = 2000,
    protocol: AnyPath | None = None,
) -> Outcome:
    """Compare systems by the labels of each reader.

    The systems are compared once with the labels of the data set and once with those of each human
    reader. Only the labels of the test images change: thresholds come from validation images with
    the labels of the data set.

    Args:
        systems: Predictions folders (of cxr predict, import or ensemble), each as PATH or
            NAME=PATH; several training seeds of one system are written NAME=PATH,PATH,...
        data: Data set that cxr prepare made of labels with a column reader.
        target: Target (a finding, or a group of findings) to evaluate. Needed only if the data set
            has several targets.
        split: Split (which images are for training, validation and test) whose test images are
            evaluated. By default it is the split of the systems.
        replicates: Number of bootstrap replicates behind each interval. With fewer the command is
            faster, and the ends of the intervals are less exact.
        protocol: TOML file that fixed the question, as in cxr compare. Each verdict is then about
            its figure.

    Returns:
        Whether the verdict stays the same, and each difference by the labels of each reader.

    Raises:
        InputError: The labels name no reader, there are fewer than two systems, or a system is a
            run that was not predicted.

    Example:
        cxr reader-verdicts A=out/a B=out/b --data out/two
    """
    given = read_systems(systems)
    dataset = DataSet.open(as_path(data))
    if not dataset.readers:
        raise InputError(
            f"{dataset.folder}: its labels name no reader; cxr prepare keeps them from a column "
            "'reader'"
        )
    if len(given) < 2:
        raise InputError("reader-verdicts: give at least two systems")
    for path in [path for system in given for path in system.paths]:
        if not is_predictions_folder(path):
            raise InputError(f"{path}: is no predictions folder; make one with cxr predict")
    split = own_split(split, [path for system in given for path in system.paths], dataset)
    compared = [_text(system) for system in given]
    rows: list[dict[str, Any]] = []
    usual: dict[tuple[str, str], str] = {}
    for reader, labelled in _labelled_by_readers(dataset, target, split):
        result = compare(
            compared,
            data=labelled,
            target=None if target is None else [target],
            split=split,
            replicates=replicates,
            protocol=protocol,
        )
        of_reader = _rows(reader, cast("Result", result))  # of one target, so it is one result
        usual = usual or {row["systems"]: row["higher"] for row in of_reader}
        rows += [
            {**row, "same_verdict": row["higher"] == usual[row["systems"]]} for row in of_reader
        ]
    text = _verdict_text(rows, REFERENCE_READER)
    payload = [{**row, "systems": " - ".join(row["systems"])} for row in rows]
    return Outcome("\n".join([text, *map(_line, payload)]), payload)


def _text(system: SystemPaths) -> str:
    paths = ",".join(map(str, system.paths))
    return paths if system.name is None else f"{system.name}={paths}"


def _labelled_by_readers(
    dataset: DataSet, target: str | None, split: str
) -> Iterator[tuple[str, DataSet]]:
    """Yield the reference and each reader who labelled a test image, with the data set so labelled.

    The labels of all other images stay those of the reference.
    """
    test = dataset.image_ids("test", split)
    for reader in (REFERENCE_READER, *dataset.readers):
        labelled = dataset.with_labels_of(reader, test)
        if labelled.labels(dataset.target(target)).reindex(test).notna().any():
            yield reader, labelled


def _rows(reader: str, result: Result) -> list[dict[str, Any]]:
    """Return the differences in the primary figure by the labels of one reader."""
    labels = result.decisions.drop_duplicates("image_id")["label"]
    return [
        {
            "labels_of": reader,
            "images": len(labels),
            "positive": int(labels.sum()),
            "systems": (claim["first"], claim["second"]),
            "metric": claim["metric"],
            "estimate": claim["estimate"],
            "ci_low": claim["ci_low"],
            "ci_high": claim["ci_high"],
            "higher": claim["higher"] or _NOT_SHOWN,
        }
        for claim in result.answer.claims
    ]


def _line(row: Mapping[str, Any]) -> str:
    """Return a difference by the labels of one reader as a line of text."""
    figures = [
        "unknown" if row[name] is None else number(row[name])
        for name in ("estimate", "ci_low", "ci_high")
    ]
    return (
        f"{row['labels_of']} ({row['images']:,} images, {row['positive']:,} positive): "
        f"{row['systems']} {row['metric']} {figures[0]} ({figures[1]} to {figures[2]}), higher: "
        f"{row['higher']}"
    )


def _verdict_text(rows: Sequence[Mapping[str, Any]], reference: str) -> str:
    """Return the sentence that compares the verdicts by the readers' labels and the reference."""
    of_reference = {row["systems"]: row["higher"] for row in reversed(rows)}
    readers = [row["labels_of"] for row in rows if row["labels_of"] != reference]
    readers = list(dict.fromkeys(readers))
    changed = [row for row in rows if not row["same_verdict"]]
    opposite = [
        row for row in changed if _NOT_SHOWN not in (row["higher"], of_reference[row["systems"]])
    ]
    if not readers:
        return "No reader of the data set has labelled the test images."
    if all(row["higher"] == _NOT_SHOWN for row in rows):
        estimates = [row["estimate"] for row in rows]
        return (
            f"Nothing is shown by the labels of {listing(readers)}, either. Differences range from "
            f"{number(min(estimates))} to {number(max(estimates))}."
        )
    if not changed:
        return f"The verdict is the same by the labels of {listing(readers)}."
    if opposite:
        names = list(dict.fromkeys(row["labels_of"] for row in opposite))
        return (
            f"If the labels of {listing(names)} replace those of the reference, the verdict is the "
            "opposite."
        )
    names = list(dict.fromkeys(row["labels_of"] for row in changed))
    return (
        f"If the labels of {listing(names)} replace those of the reference, the verdict is "
        "another. One of three equally good readers does this by sampling error alone in up to "
        "55 % of simulated test sets, so compare the differences and their intervals."
    )
