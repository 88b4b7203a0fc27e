"""Protocol files in TOML, which fix the choices of a comparison before its test images are used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import BeforeValidator, Field, ValidationError

from cxr_compare.configs.load import first_problem
from cxr_compare.configs.model_settings import Section
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_files import read_toml_file

Name = Annotated[str, Field(min_length=1)]


# A single name counts as a list of one.
_Names = Annotated[list[Name], BeforeValidator(lambda x: [x] if isinstance(x, str) else x)]


class ProtocolFile(Section):
    """Keys of a protocol, the file that fixes the question of a comparison beforehand.

    Attributes:
        metric: List with the short name of the primary metric, such as ``["auroc"]``, or the list
            ``["sensitivity", "specificity"]``.
        policy: Name of the rule that chooses the threshold for the metric, such as ``max_f1``;
            empty for a metric without a threshold.
        margin: Margin of non-inferiority and equivalence, in the unit of the metric; None for none.
        subgroups: Names of columns of the images table, such as ``sex``; figures are reported for
            each group of images with the same value.
        reference: Name of the system (a model or a human reader) with which the others are
            compared; None takes the first system.
        unit: What a decision is made for; None takes images.
    """

    target: Name = Field(description="What is evaluated.")
    metric: _Names = Field(
        default=["auroc"],
        min_length=1,
        max_length=2,
        description="The primary figure, by its short name, or both halves of an operating point.",
    )
    policy: str = Field(default="", description="Threshold policy of that figure; empty: none.")
    margin: float | None = Field(
        default=None, gt=0, lt=1, description="Of non-inferiority and equivalence."
    )
    subgroups: list[Name] = Field(default=[], description="Columns whose groups are reported.")
    reference: Name | None = Field(default=None, description="Reference system; None: the first.")
    unit: Literal["image", "study", "patient"] | None = Field(
        default=None, description="What the answer is for; None: images, --unit shows others too."
    )


class ReadProtocol(NamedTuple):
    """Content of a protocol file, with the SHA-256 by which a later change of it is noticed."""

    keys: ProtocolFile
    sha256: str


def read_protocol(path: Path) -> ReadProtocol:
    """Read and check a protocol, the file that fixes the question of a comparison beforehand.

    Raises InputError if the file cannot be read, a key is missing or unknown (the message suggests
    the most similar key), or a value has the wrong type or lies outside its range.
    """
    keys = read_toml_file(path)
    try:
        protocol = ProtocolFile(**keys)
    except ValidationError as error:
        problem = first_problem(error, ProtocolFile)
        raise InputError(f"{path}: {problem.key}: {problem.message}") from None
    return ReadProtocol(protocol, hashlib.sha256(path.read_bytes()).hexdigest())
