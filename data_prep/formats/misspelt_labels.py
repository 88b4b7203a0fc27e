"""Labels of very few images that are spelt almost like a frequent label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted

_MOST_IMAGES = 3  # with a label that may be misspelt
_LEAST_RATIO = 10  # images of the other label for each of them
_SHORTEST = 4  # letters; shorter words are often a letter apart
_LONG = 8  # letters from which two changes are allowed
_NOTHING = ("normal", "no_finding", "negative", "healthy")
_SHOWN = 3


@dataclass(frozen=True)
class MisspeltLabel:
    """A rare label that is probably a frequent label with a spelling mistake.

    Attributes:
        name: The rare label, converted to the name of a finding.
        image_ids: Ids of the images with the rare label.
        meant: The frequent label, which was probably meant.
        n_meant: Number of images with the frequent label.
        is_finding: False if the frequent label says that an image shows no finding.
    """

    name: str
    image_ids: tuple[str, ...]
    meant: str
    n_meant: int
    is_finding: bool

    @property
    def question(self) -> str:
        """Message that asks whether the frequent label was meant, and says what to do.

        Example:
            >>> print(MisspeltLabel("opacitiy", ("a.png",), "opacity", 70, True).question)
            label 'opacitiy' of 1 image (a.png): did you mean 'opacity' (70 images)? ...
        """
        shown = ", ".join(self.image_ids[:_SHOWN])
        text = (
            f"label '{self.name}' of {counted(len(self.image_ids), 'image')} ({shown}): did you "
            f"mean '{self.meant}' ({counted(self.n_meant, 'image')})? As a finding of its own it "
            "gives these images a wrong label. Correct it in the table, and run the command again, "
            "with a new folder if it makes one"
        )
        if self.is_finding:
            text += f"; or join both by --target {self.meant}={self.meant},{self.name}"
        return text


def joining_targets(
    labels: Iterable[MisspeltLabel], defined: Mapping[str, Sequence[str]]
) -> dict[str, tuple[str, ...]]:
    """Return targets that join misspelt labels with the frequent labels that were meant.

    A label that was to say that an image shows no finding belongs to no target.

    Args:
        labels: Misspelt labels.
        defined: Findings of each target that the user has defined already, by its name.

    Returns:
        By name of the frequent label, that label and its misspelt forms, besides the findings of
        the user's own target of this name.

    Example:
        >>> label = MisspeltLabel("opacitiy", ("a.png",), "opacity", 70, True)
        >>> joining_targets([label], {})
        {'opacity': ('opacity', 'opacitiy')}
    """
    targets: dict[str, tuple[str, ...]] = {}
    for label in labels:
        if label.is_finding:
            members = targets.get(label.meant) or tuple(defined.get(label.meant, (label.meant,)))
            targets[label.meant] = (*members, label.name)
    return targets


def misspelt_labels(
    findings: pd.DataFrame, targets: Iterable[Sequence[str]] = ()
) -> list[MisspeltLabel]:
    """Find labels of at most 3 images that are spelt almost like a label of ten times as many.

    Almost means that one letter is missing, added, replaced or exchanged with its neighbour, or two
    letters in a word of 8 or more. Names that differ in a digit are different names.

    Args:
        findings: Table with columns ``image_id``, ``finding`` and ``state``.
        targets: For each target (findings that together make an image positive), its findings. Two
            findings of one target are not reported, because the user joins them on purpose.

    Returns:
        One entry for each such label, in alphabetical order.

    Example:
        >>> rows = [{"image_id": f"i{n}", "finding": "opacity", "state": "present"}
        ...         for n in range(20)]
        >>> rows[3]["finding"] = "opacitiy"
        >>> [label.meant for label in misspelt_labels(pd.DataFrame(rows))]
        ['opacity']
    """
    present = findings[findings["state"] == "present"]
    images_of = {
        str(name): tuple(sorted(set(rows))) for name, rows in present.groupby("finding")["image_id"]
    }
    counts = {name: len(images) for name, images in images_of.items()}
    n_empty = findings["image_id"].nunique() - present["image_id"].nunique()
    for word in _NOTHING:
        counts.setdefault(word, n_empty)
    frequent = {name: count for name, count in counts.items() if count >= _LEAST_RATIO}
    joined = [set(target) for target in targets]
    labels = []
    for name, images in images_of.items():
        meant = _meant(name, len(images), frequent)
        if meant is None or any({name, meant} <= target for target in joined):
            continue
        labels.append(MisspeltLabel(name, images, meant, counts[meant], meant in images_of))
    return labels


def _meant(name: str, n_images: int, frequent: Mapping[str, int]) -> str | None:
    """Return the most frequent label that is spelt almost like a rare one; None without."""
    if len(name) < _SHORTEST or n_images > _MOST_IMAGES:
        return None
    most_changes = 2 if len(name) >= _LONG else 1
    near = [
        other
        for other, count in frequent.items()
        if count >= _LEAST_RATIO * n_images
        and other != name
        and _digits(other) == _digits(name)
        and count_changes(name, other, most_changes) <= most_changes
    ]
    return max(near, key=lambda other: frequent[other], default=None)


def _digits(text: str) -> str:
    return "".join(sign for sign in text if sign.isdigit())


def count_changes(one: str, other: str, most: int) -> int:
    """Count the changes of single letters that turn one word into the other.

    A change adds, removes or replaces a letter, or exchanges two neighbours.

    Args:
        one: A word.
        other: Another word.
        most: Number of changes beyond which the exact number does not matter.

    Returns:
        The smallest number of changes; any number above `most` if more than `most` are necessary.

    Source:
        Damerau 1964, as optimal string alignment.

    Example:
        >>> count_changes("opacitiy", "opacity", 2), count_changes("effusoin", "effusion", 2)
        (1, 1)
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    before: list[int] = []
    last = list(range(len(other) + 1))
    for row, letter in enumerate(one, start=1):
        current = [row]
        for column, rival in enumerate(other, start=1):
            changes = min(last[column] + 1, current[-1] + 1, last[column - 1] + (letter != rival))
            if min(row, column) > 1 and letter == other[column - 2] and one[row - 2] == rival:
                changes = min(changes, before[column - 2] + 1)
            current.append(changes)
        before, last = last, current
    return last[-1]
