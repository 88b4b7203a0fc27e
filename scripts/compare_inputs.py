"""The inputs of `cxr compare`: the truth, the systems, the targets and the protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError, counted, nearest_name
from cxr_compare.data_prep.store.dataset import DataSet, Target
from cxr_compare.data_prep.store.predictions import Predictions
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.scripts import console
from cxr_compare.scripts.options import read_target
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path
from cxr_compare.scripts.systems import (
    ComparedSystem,
    GivenSystem,
    GivenValues,
    names_path,
    values_caption,
)

if TYPE_CHECKING:
    import pandas as pd

    from cxr_compare.evaluation.labelled_images import GroundTruth
    from cxr_compare.scripts.result_columns import ResultColumns

_ALL = "all"
_IMAGE_RULES = ("all", "common")


def _read_table(value: Any) -> Any:
    """Return a table in memory as it is, also a list of texts; take a text or folder as a path."""
    return as_path(value) if value is None or names_path(value) else value


def _table_texts(value: Any) -> list[str]:
    return [str(value) if names_path(value) else values_caption(value)]


Table = Annotated[Any, Argument(read=_read_table, write=_table_texts, metavar="FILE")]
"""Parameter of a command that takes a table: a file or, from Python, an array, a Series or a frame.
"""


class ImageOptions(NamedTuple):
    """Values of the option ``--images`` of `cxr compare`.

    Attributes:
        rule: ``all`` refuses systems (detectors or classifiers) that have predicted different
            images, ``common`` evaluates only the images that every system has predicted.
        folder: Folder of the image files that belong to labels in a table; None if there is none.
    """

    rule: Literal["all", "common"] = "all"
    folder: Path | None = None


def read_image_options(value: Any) -> ImageOptions:
    """Return the values of the option ``--images`` of `cxr compare`.

    Args:
        value: ``all`` (refuse detectors or classifiers that were run on different images),
            ``common`` (evaluate the images that all of them were run on) or a folder of image
            files; or one of the words and one folder.

    Returns:
        The rule, and the folder of image files or None.

    Raises:
        ValueError: Two rules or two folders are given, or a value is neither a rule nor a folder.

    Example:
        >>> read_image_options(["common", "."])
        ImageOptions(rule='common', folder=PosixPath('.'))
    """
    if isinstance(value, ImageOptions):
        return value
    values = [value] if isinstance(value, str | Path) else list(value)
    rules = [item for item in values if item in _IMAGE_RULES]
    folders = [Path(item) for item in values if item not in _IMAGE_RULES]
    if len(rules) > 1 or len(folders) > 1:
        raise ValueError("give all or common once, and one folder of image files")
    if any(not path.is_dir() for path in folders):
        raise ValueError("is neither all nor common, nor a folder of image files")
    return ImageOptions("common" if "common" in rules else "all", folders[0] if folders else None)


def read_scales(value: Any) -> dict[str, float]:
    """Return the scales of boxes by system, from texts NAME=FACTOR or a mapping.

    Raises InputError if a factor is no positive number.

    Example:
        >>> read_scales(["A=2", "B=0.5"]), read_scales({"A": 4})
        ({'A': 2.0, 'B': 0.5}, {'A': 4.0})
    """
    given = value.items() if isinstance(value, Mapping) else (t.rpartition("=")[::2] for t in value)
    scales = {}
    for name, factor in given:
        try:
            scales[name] = float(factor)
        except ValueError:
            raise InputError(f"--scale {name}={factor}: write NAME=FACTOR, such as A=2") from None
        if not 0 < scales[name] < float("inf"):
            raise InputError(f"--scale {name}={factor}: the factor must be a positive number")
    return scales


def _scale_texts(value: Any) -> list[str]:
    return [f"{name}={factor:g}" for name, factor in read_scales(value).items()]


Scales = Annotated[
    Sequence[str] | Mapping[str, float],
    Argument(read=read_scales, write=_scale_texts, metavar="NAME=FACTOR"),
]


Images = Annotated[
    AnyPath | Sequence[AnyPath],
    Argument(read=read_image_options, metavar="all|common|FOLDER"),
]


def open_truth(
    truth: Any,
    boxes: Any,
    patients: Any,
    columns: tuple[str, ...],
    target_names: list[str] | None,
) -> tuple[DataSet, pd.Series | None]:
    """Make a data set in memory from true labels and true boxes that the user gives.

    Args:
        truth: File of labels (CSV with ``image_id`` and ``label``), file or folder of true boxes,
            or labels in memory as an array, a Series or a frame.
        boxes: Table of the true boxes with the columns ``image_id,x1,y1,x2,y2`` in px of the
            original image, in a file or in memory; None if there are no boxes or `truth` holds
            them.
        patients: Patient id of each image: file with the columns ``image_id,patient_id``, or values
            in memory in the order of the labels; None if `truth` names the patients or they are
            unknown.
        columns: Columns of the CSV file of labels as texts ROLE=COLUMN, such as ``label=Finding``.
        target_names: Names of the targets (findings, or groups of findings) to evaluate, or for
            labels in a file definitions NAME=FINDING,FINDING; None if there is one only.

    Returns:
        The data set and, for labels in memory, the image ids in the order and with the index of the
        labels (None for a file).

    Raises:
        InputError: The labels, boxes or patients are malformed, or there is no such target.
    """
    order = None
    if isinstance(truth, Path):
        # Readers of label files load much that values in memory do not need.
        from cxr_compare.evaluation.sources.truth_files import truth_set

        if not truth.exists():
            raise InputError(f"{truth}: no such file or folder")
        further = [value for value in (boxes, patients) if value is not None]
        if any(not isinstance(value, Path) for value in further):
            raise InputError("compare: with truth in a file, boxes and patients are files, too")
        defined = dict(read_target(text) for text in target_names or () if "=" in text)
        dataset = truth_set(truth, patients, console.say, boxes, columns, defined)
        target_names = without_definitions(target_names)
    else:
        from cxr_compare.evaluation.sources.from_frames import truth_from_values

        dataset, order = truth_from_values(truth, boxes=boxes, patients=patients)
    chosen_targets(dataset, target_names)  # refuses a wrong name before results are read
    is_assumed = dataset.images["patient_id_source"] == "assumed_image"
    if is_assumed.any():
        count = counted(int(is_assumed.sum()), "image")
        console.say(
            f"Intervals are by image, for {_caption(truth)} does not name the patient of {count}: "
            "too narrow where patients have several images; give --patients CSV "
            "(image_id,patient_id)"
        )
    return dataset, order


def open_result_files(
    systems: list[GivenSystem],
    dataset: DataSet,
    truth: Any,
    order: pd.Series | None,
    columns: ResultColumns | None,
    targets: Sequence[Target],
    scales: Mapping[str, float],
) -> list[ComparedSystem]:
    """Read files and values in memory with the predictions of systems.

    Args:
        systems: Systems, each with a file or with values in memory for each training with another
            random seed.
        dataset: Data set that `open_truth` made.
        truth: The true labels as the user gave them. If they are a COCO file, it says which images
            and classes the ids in COCO results mean.
        order: Image ids in the order of arrays of scores; None if the labels are in a file.
        columns: Names of the columns in tables of predictions; None if the user cannot give any.
        targets: Targets to evaluate. If there is one, rows without a finding are about it.
        scales: Factor from the px of the boxes of a system to px of the original image, by name.

    Returns:
        The systems with their predictions.

    Raises:
        InputError: A file is malformed, or a detector's file holds no box.
    """
    coco = truth if isinstance(truth, Path) and truth.suffix == ".json" else None
    opened: list[ComparedSystem] = []
    target = targets[0] if len(targets) == 1 else None
    names = [_system_name(system, number) for number, system in enumerate(systems, start=1)]
    for name in scales:
        if name not in names:
            raise InputError(
                f"--scale {name}: there is no such system; {nearest_name(name, names, '')}"
            )
    if columns is not None:
        columns.require_known(names, [path for system in systems for path in system.paths])
    for name, (_, members) in zip(names, systems, strict=True):
        opened_members = [
            _open_member(member, name, dataset, coco, order, columns, target, scales.get(name))
            for member in members
        ]
        for member, predictions in zip(members, opened_members, strict=True):
            if predictions.kind == "boxes" and predictions.boxes.empty:
                raise InputError(f"{member}: holds no box; give results that have some")
            for note in predictions.info["notes"]:
                console.say(f"{name}: {note}")
        opened.append(ComparedSystem(name, [*opened_members]))
    return opened


def _system_name(system: GivenSystem, number: int) -> str:
    """Return the name of a system: the given one, that of its first file, or its number."""
    first = system.members[0]
    return system.name or (first.stem if isinstance(first, Path) else f"system {number}")


def open_values(
    system: GivenSystem, dataset: DataSet, split: str, columns: ResultColumns | None = None
) -> ComparedSystem:
    """Turn a system's values in memory into predictions; folders and files stay as they are.

    Args:
        system: System (detector or classifier) as it was given to the command.
        dataset: Data set that the values belong to.
        split: Name of the split (division into training, validation and test images) whose test
            images the values belong to.
        columns: Names of the columns of values; None if the user cannot give any.

    Returns:
        The system, whose members are folders or predictions.
    """
    from cxr_compare.evaluation.sources.from_frames import predictions_from_values

    name = system.name or "system"
    names = None if columns is None else columns.names(name)
    members: list[Path | Predictions] = [
        predictions_from_values(name, member.value, dataset, None, split, names)
        if isinstance(member, GivenValues)
        else member
        for member in system.members
    ]
    return ComparedSystem(system.name, members)


def _open_member(
    member: Any,
    name: str,
    dataset: DataSet,
    coco: Path | None,
    order: pd.Series | None,
    columns: ResultColumns | None,
    target: Target | None,
    scale: float | None,
) -> Predictions:
    from cxr_compare.evaluation.sources.from_frames import predictions_from_values
    from cxr_compare.evaluation.sources.imported import read_predictions
    from cxr_compare.evaluation.sources.reading_advice import advice_for_result_file

    if isinstance(member, GivenValues):
        own_columns = None if columns is None else columns.names(name)
        return predictions_from_values(
            name, member.value, dataset, order, columns=own_columns, scale=scale
        )
    if isinstance(member, Predictions):
        return member
    return read_predictions(
        member,
        dataset,
        name=name,
        coco_truth=coco,
        columns=None if columns is None else columns.names(name, member),
        usual_finding=None if target is None else _usual_finding(target),
        scale=scale,
        advice=advice_for_result_file(name, names_columns=columns is not None),
    )


def _usual_finding(target: Target) -> str:
    """Return the finding of rows without one: that with the target's name, or its first."""
    return target.name if target.name in target.any_of else target.any_of[0]


def refuse_shared_patients(ground_truth: GroundTruth, table: Any, *, allowed: bool) -> None:
    """Refuse labels in which a patient of test images has images in another role, too."""
    shared = ground_truth.shared_patients()
    if allowed or shared.empty:
        return
    names = {"val": "validation", "train": "training"}
    counts = " and ".join(
        f"{counted(count, 'patient', 'have')} images in test and {names[str(role)]}"
        for role, count in shared["role"].value_counts().items()
    )
    first = shared["patient_id"].iloc[0]
    raise InputError(
        f"{_caption(table)}: {counts}, such as '{first}'; give each patient one role, or say "
        "--allow-shared-patients (the figures are then too good for new patients)"
    )


def _caption(table: Any) -> str:
    return str(table) if isinstance(table, Path) else values_caption(table)


def chosen_targets(dataset: DataSet, names: list[str] | None) -> list[Target]:
    """Return the targets (findings, or groups of findings) that a command is to evaluate.

    Args:
        dataset: Data set with its targets.
        names: Names of targets, or ``all`` for all targets of the data set. None takes the only
            target. NAME=FINDING,FINDING names a target that has these findings.

    Returns:
        The targets without repetition, in the order of the names.

    Raises:
        InputError: There is no such target, or it has other findings, or there are several targets
            and `names` is None.
    """
    if names and _ALL in names and _ALL not in dataset.targets:
        return list(dataset.targets.values())
    if not names:
        return [dataset.target()]
    return [_chosen_target(dataset, text) for text in dict.fromkeys(names)]


def require_given_thresholds(policies: Sequence[str] | None) -> None:
    """Refuse rules that choose a threshold, for true labels without validation images.

    Without a rule, the user is told that no threshold is chosen.

    Args:
        policies: Rules by which thresholds are chosen, such as ``max_f1``, or ``threshold=0.5`` for
            a given one; None or empty if the user named no rule.

    Raises:
        InputError: A rule chooses a threshold on validation images.
    """
    if not policies:
        console.say(
            "Without validation images no threshold is chosen; --policy threshold=T gives one"
        )
        return
    for policy in policies:
        if not policy.startswith("threshold="):
            raise InputError(
                f"--policy {policy}: this rule chooses a threshold on validation images, and the "
                "truth has none; give --policy threshold=T, or a column 'role' with val and test"
            )


def without_definitions(names: list[str] | None) -> list[str] | None:
    """Return names of targets without the findings that define them.

    Args:
        names: Targets as NAME or NAME=FINDING,FINDING; None for none.

    Example:
        >>> without_definitions(["opacity=opacity,opacitiy", "edema"])
        ['opacity', 'edema']
    """
    return None if names is None else [text.partition("=")[0] for text in names]


def _chosen_target(dataset: DataSet, text: str) -> Target:
    """Return the target that NAME or NAME=FINDING,FINDING names."""
    if "=" not in text:
        return dataset.target(text)
    name, findings = read_target(text)
    target = dataset.targets.get(name)
    if target is None or set(target.any_of) != set(findings):
        raise InputError(
            f"--target {text}: {dataset.folder} has no such target, and the targets of a data set "
            f"are fixed; prepare it anew with cxr prepare --target {text}, or choose one of "
            f"{', '.join(dataset.targets)}"
        )
    return target


def read_protocol_or_margin(
    path: Path | None, margin: float | None, target: str | None
) -> Protocol:
    """Return the question that a comparison answers, from a protocol file or from a margin alone.

    A protocol fixes the question before the test images are used: metric, margin and groups.

    Args:
        path: Protocol file that fixed the question beforehand. None makes the comparison
            exploratory.
        margin: Margin of non-inferiority (largest acceptable disadvantage, in the unit of the
            metric) from ``--margin``. It must agree with the protocol. None without the option.
        target: Name of the target (finding that is evaluated) from ``--target``. It must agree with
            the protocol. None without the option.

    Returns:
        The question, with all choices that the protocol fixes.

    Raises:
        InputError: The protocol is malformed, or an option differs from it.
    """
    if path is None:
        return Protocol(margin=margin)
    from cxr_compare.configs.protocol_file import read_protocol

    fixed, digest = read_protocol(path)
    for option, value, fixed_value in (
        ("target", target, fixed.target),
        ("margin", margin, fixed.margin),
    ):
        if value is not None and value != fixed_value:
            raise InputError(
                f"--{option} {value}: the protocol {path} fixed {fixed_value}; leave the option out"
            )
    metric, partner = (*fixed.metric, "")[:2]
    keys = fixed.model_dump() | {"subgroups": tuple(fixed.subgroups)}
    keys |= {"metric": metric, "partner": partner}
    return Protocol(**keys, declared=True, file_sha256=digest)
