"""What the audit's page says in words."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydicom.uid import UID_dictionary

from data_prep.audit.counts import MISSING
from data_prep.audit.problem import SEVERITIES, Problem
from data_prep.duplicates.hash_search import CERTAIN_DISTANCE
from data_prep.duplicates.near_duplicates import NEAR_CORRELATION, TRUSTED_DISTANCE

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {
    "error": ("makes results wrong", "make results wrong"),
    "warning": ("may make results wrong", "may make results wrong"),
    "info": ("worth knowing", "worth knowing"),
}

METHODS = (
    "Shortcuts: a logistic model of one fact (numbers may bend at their terciles, categories with "
    "fewer than 20 images are one, a missing value is a category) is fitted on four fifths of the "
    "patients and judged on the rest, in turn; pairs of images within a fifth are compared. The "
    "95 % interval is DeLong's, summed by patient, on the logit. Sibling images: the mean label of "
    "the same patient's other images, the overall mean where there is none. Outer tenth: the mean "
    "greys of 16 pieces around the picture, four a side, in one such model: what is seen of it "
    "where little lung lies (after Maguolo and Nanni, 2021).",
    "Split by image: of N images, m drawn for test; an image of a patient with k images has all "
    "siblings in test with probability (m−1)…(m−k+1) / ((N−1)…(N−k+1)), given that it is "
    "itself. The expected share of leaking test images is 1 minus the mean of that.",
    "Equal pictures: the same SHA-256 of the decoded pixels.",
    "Copies that are not equal: a fingerprint of 256 bits (signs of low frequencies of the ranked "
    "grey values) proposes pairs, also mirrored, upside down and as negatives; every pair that "
    f"differs in at most {CERTAIN_DISTANCE} bits is proposed. Then the pixels decide: fine detail "
    f"at 128 × 128 must correlate by {NEAR_CORRELATION:g}. Without pixels, pairs within "
    f"{TRUSTED_DISTANCE} bits count. Cropped, shifted or obliquely turned copies are not found.",
    "Burned-in text: as the DICOM header says, or as many shapes like characters stand in a line.",
)


def verdict(counts: dict[str, int]) -> str:
    """One sentence.

    Example:
        >>> verdict({"error": 1, "warning": 2, "info": 0})
        'One fault makes results on this data set wrong; two more may.'
        >>> verdict({"error": 0, "warning": 1, "info": 3})
        'Nothing was found that makes results wrong; one thing may.'
    """
    errors, warnings = counts["error"], counts["warning"]
    if errors:
        verb = "fault makes" if errors == 1 else "faults make"
        more = f"; {_number(warnings)} more may" if warnings else ""
        return f"{_number(errors).capitalize()} {verb} results on this data set wrong{more}."
    if warnings:
        noun = "thing" if warnings == 1 else "things"
        return f"Nothing was found that makes results wrong; {_number(warnings)} {noun} may."
    return "Nothing was found that makes results wrong."


def explain(problems: Iterable[Problem]) -> str:
    """What to do first."""
    worst = next(iter(problems), None)
    if worst is None or worst.severity == "info":
        return "Read the shortcuts below before you read results."
    word = "Mend first" if worst.severity == "error" else "Look first at"
    return f"{word}: {worst.message}."


def tally(counts: dict[str, int]) -> list[tuple[str, str]]:
    """Counts by severity, those that are not 0."""
    return [(s, f"{counts[s]} {_WORDS[s][counts[s] > 1]}") for s in SEVERITIES if counts[s]]


def leak_words(leak: dict[str, Any] | None) -> str:
    """What a split by image would do, in a sentence."""
    if not leak:
        return ""
    return (
        f"A random {100 - 100 * leak['test_share']:.0f}/{100 * leak['test_share']:.0f} split by "
        f"image would leak {leak['expected_share']:.1%} of the test images (expected "
        f"{leak['expected_images']:,.0f} of {leak['n_test']:,})."
    )


def picture_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Sizes, spacing, storage and copies as titles and words."""
    pictures, copies = facts.get("pictures", {}), facts.get("copies")
    rows = []
    if sizes := pictures.get("sizes"):
        rows.append(
            (
                "Size, px (width × height)",
                f"{sizes['smallest']} to {sizes['largest']}; {sizes['different']:,} different; "
                f"{sizes['commonest_share']:.0%} are {sizes['commonest']}".replace(" x ", " × "),
            )
        )
    if field := pictures.get("field_width_mm"):
        low, middle, high = field["quartiles"]
        text = f"{middle:.0f} mm (quartiles {low:.0f} to {high:.0f}), known of {field['n_known']:,}"
        rows.append(("Field width", text))
    for name, counts in pictures.get("files", {}).items():
        names = {value: _syntax(value) if name == "transfer_syntax" else value for value in counts}
        listed = ", ".join(f"{names[value]}: {n:,}" for value, n in counts.items())
        if set(counts) == {MISSING}:
            continue
        rows.append((name.replace("_", " ").capitalize(), listed))
    if copies and copies["pictures"]:
        rows += [
            ("Equal pixels", _groups(copies["equal_pixels"])),
            ("Equal files", _groups(copies["equal_bytes"])),
            ("Copies that are not equal", _groups(copies["near"])),
        ]
    return rows


def _groups(counts: dict[str, int]) -> str:
    if not counts["images"]:
        return "none"
    return f"{counts['images']:,} images in {counts['groups']:,} groups"


def _syntax(value: str) -> str:
    """The name of a transfer syntax, as the DICOM standard gives it."""
    return str(UID_dictionary.get(value, (value,))[0])


def counted(count: int, thing: str) -> str:
    """A count with its noun.

    Example:
        >>> counted(1, "splits"), counted(1200, "images")
        ('1 split', '1,200 images')
    """
    return f"{count:,} {thing.removesuffix('s') if count == 1 else thing}"


def _number(count: int) -> str:
    return _NUMBERS[count] if count < len(_NUMBERS) else f"{count:,}"
