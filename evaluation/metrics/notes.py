"""Notes that a reader of a comparison must know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

NoteKind = Literal[
    # The basis of the figures.
    "left_out",  # images that are left out
    "no_boxes",  # positive images without boxes of their lesions
    "training",  # training data that is unknown
    "copies",  # test images that look like copies of training images
    "exposure",  # test images that an encoder has seen before
    "validation",  # a deficiency of the validation images
    "no_validation",  # systems without validation images
    "not_tuned",  # systems without stored thresholds
    "seeds",  # several training seeds
    "unit",  # figures by study or patient
    "few_patients",  # few patients, or one with many images
    "by_image",  # images whose patient is unknown
    "no_box_hits",  # a detector with an AP50 of 0
    "other_reading",  # boxes that match far better if they are read in another way
    "image_blind",  # the constant positions beside localisation figures, or why there are none
    "scores",  # scores that are not what they are called
    "operating_point",  # a system whose boxes have no scores
    # How the input was read.
    "reading",  # what was recognised, cut or left out, as it usually is
    "assumption",  # what was left out or assumed although it may be wrong
    # Further cautions beside the answer.
    "audit",  # an error that the audit found
    "no_audit",  # a data set without an audit
    "chance",  # an AUROC that may be chance
    "below_chance",  # an AUROC below chance
    "shortcut",  # a guess from metadata and borders alone
    "elsewhere",  # training on other data
    "synthetic",  # synthetic images
]
"""Subject of a note."""

CAUTIONS: Mapping[NoteKind, str] = {
    "scores": "Scores may not be what they are called",
    "other_reading": "Boxes match far better if they are read in another way",
    "operating_point": "A system without scores is one operating point",
    "by_image": "Patients are unknown or in several roles",
    "copies": "Test images resemble training images",
    "exposure": "Test images were seen before",
    "audit": "The audit found an error",
    "no_audit": "Patient leaks were not checked",
    "chance": "Some not shown better than chance",
    "below_chance": "Worse than chance",
    "shortcut": "Not shown better than a shortcut",
    "elsewhere": "Trained on other data",
    "synthetic": "Synthetic test images",
    "left_out": "Test images left out",
    "no_boxes": "Lesions without boxes",
    "few_patients": "Few patients in a class",
    "no_box_hits": "No box matches a true box",
    "assumption": "Assumed or left out in reading",
}
"""Heading of the notes that may make the answer wrong, by kind, the most harmful first."""


class Note(NamedTuple):
    """One remark that a reader of a comparison must know, such as "few patients".

    Attributes:
        kind: Subject of the remark; `NoteKind` lists all codes with their meaning.
        text: The remark in whole sentences.
        brief: The remark in a few words, beside the number of evaluated images; may be empty.
        names_images: True if the text names images, for reports that must not name any.
    """

    kind: NoteKind
    text: str
    brief: str = ""
    names_images: bool = False

    @property
    def caution(self) -> bool:
        """True if the fact may make the conclusion on the better system wrong.

        The report shows such a remark directly below that conclusion, and all others further down.
        """
        return self.kind in CAUTIONS


WARNING = "WARNING: "
"""Beginning of a sentence of a reader that is a caution."""


def reading_note(sentence: str, of: str = "") -> Note:
    """Return the note on what a reader recognised, cut, left out or assumed.

    The sentence begins with ``WARNING: `` if it is a caution; `of` is what was read, such as the
    name of a system, if the sentence does not name it.

    Example:
        >>> reading_note("WARNING: 1 box without width left out.", of="A")[:2]
        ('assumption', 'A: 1 box without width left out.')
    """
    begin = f"{of}: " if of else ""
    if sentence.startswith(WARNING):
        return Note("assumption", begin + sentence.removeprefix(WARNING))
    return Note("reading", begin + sentence)
