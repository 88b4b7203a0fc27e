"""Sentences of a planned study."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.evaluation.metrics.prose import listing

ASSUMED_READERS = (
    "Assumed, as in published tables (Obuchowski 2000; Rockette et al. 1999): errors of a reader's "
    "two AUROCs correlate by 0.47, those of different readers by 0.30, and a reader's true AUROCs "
    "with both modalities by 0.8. A pilot is better: run cxr readers, then give its folder"
)
SEVERAL_SEEDS = (
    "With one seed the result is for these trained models alone; with several seeds it is for the "
    "training recipe"
)
NEVER_SHOWN = (
    "no number of patients shows the difference with this power, because trainings or readers "
    "differ too much; plan for more of them"
)
NEVER_SHORT = (
    "no number of patients makes the interval this short, because trainings or readers differ too "
    "much; plan for more of them"
)


def assumed_images(equal: bool, data_sets: Sequence[str]) -> str:
    """Say what is assumed of the images of a patient.

    ``equal``: some plans have the same number of images for each patient; ``data_sets``: others
    have the numbers of these data sets.
    """
    text = "Assumed: the images of a patient are all positive or all negative"
    if equal:
        given = ", where a number is given" if data_sets else ""
        text += (
            f", and every patient has the same number of images{given}. Unequal numbers need more "
            "patients (--images rsna, nih, or a pilot)"
        )
    if data_sets:
        names = listing([name.upper() for name in data_sets])
        text += (
            f". Images as in {names}: the numbers of images are shared out among patients as they "
            "are there"
        )
    return text


def protocol(number: str, patients: int, positives: int) -> str:
    """Say which number goes into a protocol, and what published tables ask for."""
    return (
        f"Put {number} into the protocol: simulated studies of that size have the required power. "
        "A reviewer may know the published tables (Obuchowski and McClish 1997; one image for each "
        f"patient, one training). They ask for {patients:,} patients, {positives:,} of them "
        "positive, because they leave out a covariance"
    )


def protocol_number(two_questions: bool, several_plans: bool) -> str:
    """Name the number of patients that a protocol needs."""
    number = "the larger number" if two_questions else "the number"
    return f"{number} {'of the plan that you will carry out' if several_plans else 'above'}"


def plan_answer(plan: str, text: str) -> str:
    """Return the answer of a plan, which begins with the plan's name if it has one."""
    whole = f"{plan}: {text}" if plan else text
    return f"{whole[0].upper()}{whole[1:]}"


def patients(n_patients: int, n_positives: int, design: str) -> str:
    """Name the test patients and the design of a study."""
    more = f", {design}" if design else ""
    return f"{n_patients:,} test patients, {n_positives:,} of them positive{more}"


def power(
    difference: float | None, power: float, patients: str, level: float, half_width: float
) -> str:
    """Give the power of a study with these patients."""
    return (
        f"a true difference of {difference:g} is shown in {power:.0%} of studies with {patients}; "
        f"the {level:.0%} interval then has a mean half-width of {half_width:.3f}"
    )


def half_width(half_width: float | None, patients: str, level: float) -> str:
    """Say with which patients an interval is as short as required."""
    return f"the {level:.0%} interval has a mean half-width of {half_width:g} with {patients}"


def uncertain(text: str, low: int | None, high: int | None) -> str:
    """Add the range of patients that follows from the uncertain variance of a pilot."""
    ends = [f"{end:,}" if end else "no number" for end in (low, high)]
    return f"{text}. The variance of the pilot is uncertain: from {ends[0]} to {ends[1]} patients"


def design_of_readers(n_readers: int) -> str:
    """Describe a study that readers read."""
    return f"read by {n_readers} readers"


def design_of_images(images: str | float, seeds: Sequence[int]) -> str:
    """Describe the images of a patient, a number or the name of a data set, and the seeds."""
    if isinstance(images, str):
        text = f"images as in {images.upper()}"
    elif images == 1:
        text = "1 image each"
    else:
        text = f"{images:.3g} images each"
    return text if list(seeds) == [1] else f"{text}, {' and '.join(map(str, seeds))} seeds"


def plan_name(images: str | int | None, seeds: int | None) -> str:
    """Name a plan by what differs from other plans; None is left out."""
    parts = []
    if isinstance(images, str):
        parts.append(f"images as in {images.upper()}")
    elif images is not None:
        parts.append(f"{counted(images, 'image')} a patient")
    if seeds is not None:
        parts.append(counted(seeds, "seed"))
    return ", ".join(parts)


def figure_line(path: Path) -> str:
    """Name the file of a figure."""
    return f"Figure: {path}"
