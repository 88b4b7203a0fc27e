"""Options of `cxr compare` that are more than a text, and the question of its protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.evaluation.protocol import Protocol
from cxr_compare.scripts import console
from cxr_compare.scripts.given_systems import names_path, values_caption
from cxr_compare.scripts.parameters import AnyPath, Argument, as_path

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

    The rule ``all`` refuses systems that have predicted different images; ``common`` evaluates only
    the images that every system has predicted. `folder` has the image files of labels in a table.
    """

    rule: Literal["all", "common"] = "all"
    folder: Path | None = None


def read_image_options(value: Any) -> ImageOptions:
    """Return the values of the option ``--images`` of `cxr compare`.

    A value is ``all`` (refuse detectors or classifiers that were run on different images),
    ``common`` (evaluate the images that all of them were run on) or a folder of image files; or one
    of the words and one folder. Raises ValueError for anything else.

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


def require_given_thresholds(policies: Sequence[str] | None) -> None:
    """Refuse rules that choose a threshold, for true labels without validation images.

    Without a rule, the user is told that no threshold is chosen. A policy such as ``threshold=0.5``
    passes; one such as ``max_f1``, which needs validation images, raises InputError.
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


def read_protocol_or_margin(
    path: Path | None, margin: float | None, target: str | None
) -> Protocol:
    """Return the question that a comparison answers, from a protocol file or from a margin alone.

    A protocol fixes the question before the test images are used: metric, margin and groups.

    Without a file the comparison is exploratory. The margin of non-inferiority is in the unit of
    the metric. Raises InputError if the file is malformed, or differs from `margin` or `target`.
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
