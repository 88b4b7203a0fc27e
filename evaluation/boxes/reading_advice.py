"""Advice in messages about files of predictions, in the words of the command that reads them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass

from cxr_compare.data_prep.contracts.box_readings import FORMS, UNITS
from cxr_compare.evaluation.boxes.box_checks import PYTHON_ANSWERS


@dataclass(frozen=True)
class ReadingAdvice:
    """Advice to a user about a file of predictions that was misread.

    The same file is read by several commands, which have different options. Each attribute is a
    phrase for an error message or a note.

    Attributes:
        column_option: How the user names a column, with ``{role}`` in the place of image, score or
            finding; empty if the command has no option for it.
        unknown_rows: What to do with rows of images or findings that the data set lacks.
        unknown_files: What to do with files of images that the data set lacks.
        finding: How the user says which finding the rows are about.
        annotations: How the user gives the COCO annotation file that explains ids.
        class_names: How the user names the numbered classes of YOLO files.
        empty_images: What to do if a detector was not run on images without a box.
        images_run: How the user names the images that a detector was run on; empty if the command
            has no option for it.
        split: How the user chooses another split of the data set; empty if there is only one.
        frame: Name of a table in memory, where a file has its path.
    """

    column_option: str = ""
    unknown_rows: str = "remove these rows"
    unknown_files: str = "remove them from the folder"
    finding: str = "add a column 'finding' with the finding of each row"
    annotations: str = "use the names of images and findings"
    class_names: str = "put a data.yaml with their names beside the files"
    empty_images: str = "leave those out of the truth"
    images_run: str = ""
    split: str = ""
    frame: str = "the DataFrame"

    def _option(self, role: str, column: str = "COLUMN") -> str:
        return self.column_option.replace("{role}", role).replace("COLUMN", column)

    @property
    def name_others(self) -> str:
        """Phrase on how the user names other columns than those that were recognised."""
        if not self.column_option:
            return "rename the columns if others are meant"
        return f"name others with {self._option('ROLE')}"

    def other_class(self, column: str) -> str:
        """Return how the user says that the class of boxes is in another column, or in none."""
        read = f"'{column}' is read as the class of each box"
        if not self.column_option:
            return f"{read}; if it is something else, leave the column out"
        option, none = self._option("finding"), self._option("finding", "")
        return f"{read}; if another column holds it, say {option}, if none does, {none}"

    @property
    def resized(self) -> str:
        """Answer of the user on whether boxes are in px of a resized image."""
        give = "Give px of the original image"
        if not self.column_option:
            return give
        return f"{give}, or say {self._option('box_unit', 'px')} if these are"

    @property
    def image_ids(self) -> str:
        """Answer of the user on whether image numbers of COCO results are ids or of file names."""
        write = "Write the file_name of its image into each result"
        if not self.column_option:
            return write
        ids, names = self._option("image", "id"), self._option("image", "file_name")
        return f"{write}, or say {ids} if these are ids, {names} if not"

    @property
    def box_answers(self) -> dict[str, str]:
        """Answer of the user to a question about the form or unit of boxes, by its name."""
        answers: dict[str, str] = {}
        for kind, names in (("form", FORMS), ("unit", UNITS)):
            for name in names:
                option = self._option(f"box_{kind}", name)
                answers[name] = f"say {option}" if option else PYTHON_ANSWERS[name]
        return answers

    def confirm_score(self, column: str) -> str:
        """Return how the user says that a column of scores holds the probability of the finding."""
        if not self.column_option:
            return "If it is that already, on every row, name the column of scores yourself"
        return f"If it is that already, on every row, say {self._option('score', column)}"

    def scores_of_boxes(self, column: str) -> str:
        """Return how the user says whether a column holds the scores of boxes, or none does."""
        if not self.column_option:
            return "If so, call it score; if not, leave it out"
        given, none = self._option("score", column), self._option("score", "")
        return f"If so, say {given}; if no column does, {none}"

    def any_range(self, column: str) -> str:
        """Return how the user says that scores may have any range; empty if they may not."""
        return self._option("score", column)

    def name_column(self, role: str, usual_name: str) -> str:
        """Return how the user says which column holds a role: ``image``, ``score`` or ``finding``.

        `usual_name` is the name of a column that is recognised without an option.

        Example:
            >>> advice_for_result_file("A").name_column("score", "score")
            'name the column of scores by columns A.score=COLUMN, or call it score'
            >>> ReadingAdvice().name_column("image", "image_id")
            'call the column of image ids image_id'
        """
        content = {"image": "image ids", "score": "scores", "finding": "findings"}[role]
        if not self.column_option:
            return f"call the column of {content} {usual_name}"
        return f"name the column of {content} by {self._option(role)}, or call it {usual_name}"


def advice_for_result_file(system: str, *, names_columns: bool = True) -> ReadingAdvice:
    """Return the advice for a system's result file that a command with ``--truth`` reads.

    `names_columns` is True if the command has the option ``--columns``, as ``cxr compare`` has.

    Example:
        >>> advice_for_result_file("Net A").column_option
        "columns 'Net A.{role}=COLUMN'"
    """
    word = shlex.quote(f"{system}.ROLE=COLUMN").replace("ROLE=COLUMN", "{role}=COLUMN")
    return ReadingAdvice(
        column_option=f"columns {word}" if names_columns else "",
        unknown_rows="remove their rows from the file",
        finding="choose one with target, or add a column 'finding' with the finding of each row",
        annotations="give the annotation file that they come from as truth",
    )
