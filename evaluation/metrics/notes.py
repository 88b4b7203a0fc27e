"""Notes that a reader of a comparison must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

NoteKind = Literal[
    "left_out", "training", "copies", "validation", "not_tuned", "seeds", "unit", "uses",
    "few_patients", "audit", "no_audit", "chance", "below_chance", "shortcut", "elsewhere",
    "synthetic", "readers", "reference", "by_image",
]  # fmt: skip
"""Images that are left out; training data that is unknown; test images that look like copies of
training images; what validation lacks; a system that was not tuned; several seeds; figures by study
or patient; earlier uses of the test images; few patients, or one with many images. Of cautions
beside these: an error of the audit, or no audit; an AUROC that may be chance, or is below it; a
guess without the lungs; training on other data; synthetic images. The verdicts by each reader's
labels, or opposite ones. Images whose patient is unknown."""


class Note(NamedTuple):
    """Something that a reader of a comparison must know."""

    kind: NoteKind
    text: str
    values: Mapping[str, Any] | None = None  # values inside the text, by name; `None`: not known

    @property
    def caution(self) -> bool:
        """Whether it may make the answer wrong and stands right below it."""
        return self.kind in ("few_patients", "copies", "reference", "by_image")

    @property
    def of_decisions(self) -> bool:
        """Whether it says where a decision comes from, which no reader has to mind."""
        return self.kind == "not_tuned"
