"""Answers of one or more systems for several images, as an object and as lines of text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, overload

import pandas as pd

from cxr_compare.data_prep.contracts.errors import counted
from cxr_compare.data_prep.contracts.notebook import html_lines
from cxr_compare.serving.answer import ANSWER_COLUMNS, Answer
from cxr_compare.serving.answer_summary import SystemTally, summary_frame, summary_lines

MOST_LINES = 10
"""Largest number of images for which a text has a line for each image; above it is a summary."""


@dataclass(frozen=True)
class Answers(Sequence[Answer]):
    """Predictions of one or more systems for image files, one image after another.

    A system is a trained detector or classifier. ``str()`` of a few predictions has a line for
    each. If there are more than 10 images, it has a table with one row for each system; `to_frame`
    then gives the single predictions.

    Attributes:
        answers: Predictions in the order of the images; one for each system on each image.
        left_out: Reason for each file that could not be predicted, by path.
        exit_status: Exit status of the command: 1 if files were left out, else 0.
        printed: True if the predictions were printed one by one. They are then not kept in
            `answers`.
        tallies: Counts of positive, negative and undecided images of each system.
    """

    answers: tuple[Answer, ...]  # one for each image and system
    left_out: dict[str, str] = field(default_factory=dict)  # reason for each file without an answer
    exit_status: int = 0  # 1 if files were left out
    printed: bool = False  # True if they were printed one by one, and are not kept
    tallies: tuple[SystemTally, ...] = ()

    @overload
    def __getitem__(self, index: int) -> Answer: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Answer, ...]: ...
    def __getitem__(self, index: int | slice) -> Answer | tuple[Answer, ...]:
        return self.answers[index]

    def __len__(self) -> int:
        return len(self.answers)

    def __str__(self) -> str:
        left_out = [f"left out: {problem}" for problem in self.left_out.values()]
        declared = Answer.declared_lines(self.answers)
        if self.is_many:
            return "\n".join([*summary_lines(self.tallies), *declared, *left_out])
        by_image = groupby(self.answers, key=lambda answer: answer.image)
        lines = [line for _, of_image in by_image for line in lines_of_image([*of_image])]
        return "\n".join([*lines, *run_lines(self.answers), *declared, *left_out])

    @property
    def is_many(self) -> bool:
        """True if there are more than 10 images, so that ``str()`` is a summary."""
        return any(tally.images > MOST_LINES for tally in self.tallies)

    @property
    def summary(self) -> pd.DataFrame:
        """Table with one row for each system, with the columns `SUMMARY_COLUMNS`.

        They are the system's name, the numbers of images by decision and with warnings, and
        seconds.
        """
        return summary_frame(self.tallies)

    def to_frame(self) -> pd.DataFrame:
        """Return the predictions as a table with one row for each image and system.

        The columns are `ANSWER_COLUMNS`. The table is empty if the
        predictions were printed and not kept.
        """
        rows = [answer.to_row() for answer in self.answers]
        return pd.DataFrame(rows, columns=list(ANSWER_COLUMNS))

    def __repr__(self) -> str:
        without = f", {counted(len(self.left_out), 'file')} left out" if self.left_out else ""
        return f"<{counted(len(self), 'answer')}{without}>"

    def to_json(self) -> list[dict[str, Any]]:
        """Return all predictions for JSON, followed by an entry for each file that was left out."""
        problems = [left_out_entry(path, why) for path, why in self.left_out.items()]
        return [*(answer.to_json() for answer in self.answers), *problems]

    def _repr_html_(self) -> str:
        if self.is_many:
            return html_lines(str(self))
        table: str = self.to_frame().to_html(index=False)
        return table


def left_out_entry(path: str, problem: str) -> dict[str, Any]:
    """Return the entry of a file that was left out, in JSON and in a table."""
    return {"image": path, "status": "refused", "problem": problem}


def remarks(answers: Sequence[Answer]) -> list[str]:
    """Return a line for each warning, note and caution about an image.

    A warning removes the decision, a note is a fact about the image, and a caution limits how far
    the prediction can be trusted. `answers` are those of all systems for one image. Each line
    begins with the path of the image and ``WARNING:``, ``NOTE:`` or ``CAUTION:``.
    """
    remarks = [f"WARNING: {text}" for text in Answer.joint_warnings(answers)]
    remarks += [f"NOTE: {text}" for answer in answers for text in answer.notes]
    remarks += [f"CAUTION: {text}" for text in Answer.image_cautions(answers)]
    return [f"{answers[0].image}  {remark}" for remark in dict.fromkeys(remarks)]


def lines_of_image(answers: Sequence[Answer]) -> list[str]:
    """Return the lines that the command line prints for an image: remarks, then each prediction."""
    return [*remarks(answers), *map(str, answers)]


def run_lines(answers: Iterable[Answer]) -> list[str]:
    """Return a ``CAUTION:`` line for each sentence that limits all predictions of a system."""
    cautions = (text for answer in answers for text in answer.run_cautions)
    return [f"CAUTION: {text}" for text in dict.fromkeys(cautions)]
