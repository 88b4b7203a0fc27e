"""Questions about the texts of labels: words of doubt, of absence, of a list, of the past."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from cxr_compare.data_prep.base.errors import InputError, counted
from cxr_compare.data_prep.base.user_tables import line_of
from cxr_compare.data_prep.sources.words import (
    class_finding,
    dictionary,
    normal_classes,
    state_of_text,
)

Table: TypeAlias = Any
"""A `LabelTable`, whose module names labels by these questions."""
_MINUS = re.compile("^\\s*[!\uff01]|[-\u2010-\u2015\u2212\uff0d]\\s*\\)?\\s*$")
_SHOWN = 60  # characters of a label in a message


def of_which_findings(
    table: Table, texts_of: Mapping[str, list[str]], meanings: Mapping[str, tuple[str, str]]
) -> dict[str, str]:
    """Return, by finding, the question about a label that says "positive", and not of what.

    Such a word stands among names of findings. One that no finding can be called by is refused.
    """
    states = {text: state_of_text().get(text.lower(), "") for text in meanings}
    findings = {meanings[text][0] for text, state in states.items() if not state}
    if table.has("state") or not findings - normal_classes():
        return {}
    questions: dict[str, str] = {}
    cells = table.cells("label")
    for text, state in states.items():
        finding = meanings[text][0]
        if state in ("present", "absent") and finding not in normal_classes():
            is_here = cells.map(lambda cell, text=text: text in texts_of[cell]).astype(bool)
            where = f"{line_of(is_here)}: column '{cells.name}'"
            if table.path.is_dir():
                where = f"folder '{text}'"
            question = (
                f"{table.path}: {where} says '{text}' beside names of findings, and not of which "
                f"finding ({counted(int(is_here.sum()), 'row')}); write the name of the finding, "
                "or 'normal' where nothing is found"
            )
            if state == "absent" or len(text) == 1:
                raise InputError(question)
            questions[finding] = question
    return questions


class LabelError(InputError):
    """A question about one label, and what it may mean by the case in which it does."""

    def __init__(self, problem: str, text: str, meanings: Mapping[str, str]) -> None:
        super().__init__(problem)
        self.text, self.meanings = text, meanings


@dataclass(frozen=True)
class LabelQuestion:
    """A question about a label: a test, what the label may mean, and what the user then writes.

    Attributes:
        meanings: What the label means, by the case: `{name}` is the name of its finding without
            words of doubt, and ``finding`` that the whole text is the name of one.
    """

    test: Callable[[Any], bool]
    meaning: str
    answer: str
    meanings: Mapping[str, str]

    def asked(self, text: str, where: str, parts: Sequence[str] = ()) -> LabelError:
        """Return the question about a label; `where` names the file and the column."""
        meaning = self.meaning.format(n_labels=len(parts))
        name = without_doubt(class_finding(text, where)).replace("_", " ")
        meant = {
            when: to.format(name=name, parts="|".join(sorted(parts)))
            for when, to in self.meanings.items()
        }
        problem = f"{where}: does the label '{text[:_SHOWN]}' {meaning}? {self.answer}"
        return LabelError(problem, text, meant)


def _doubts_within(text: str) -> bool:
    """Return True for a word of doubt between others; one in front or behind is understood."""
    name = class_finding(text, "")
    doubt = words_pattern("uncertain_words")
    bare = without_doubt(name)
    is_alone = re.fullmatch(doubt, name) is not None
    return not is_alone and re.search(rf"(?:^|_){doubt}(?:_|$)", bare) is not None


def _tells_of_past(text: str) -> bool:
    name = without_doubt(class_finding(text, ""))
    return re.search(rf"(?:^|_){words_pattern('past_before')}_", name) is not None


def without_doubt(name: str) -> str:
    """Return the name of a finding without the words of doubt before or behind it."""
    doubt = words_pattern("uncertain_words")
    return re.sub(rf"^{doubt}_|_{doubt}$", "", name)


@cache
def words_pattern(list_name: str) -> str:
    """Return the pattern of a list of words of ``columns.toml``, in names of findings."""
    names = [class_finding(word, "columns.toml") for word in dictionary()[list_name]]
    names.sort(key=len, reverse=True)
    return f"(?:{'|'.join(names)})"


DOUBTS = (
    LabelQuestion(
        lambda text: "?" in text,
        "say that a finding is uncertain",
        "Write 'uncertain mass', or no question mark",
        {"it is uncertain": "uncertain {name}", "it is present": "{name}"},
    ),
    LabelQuestion(
        _doubts_within,
        "say that a finding is uncertain",
        "Write 'uncertain mass', with | between labels",
        {"nobody knows": "unknown", "it is the name of one finding": "finding"},
    ),
    LabelQuestion(
        _tells_of_past,
        "say that a finding was there before",
        "Write the finding alone if the image shows it, else 'unknown', or other words",
        {"the image need not show it": "unknown", "it is the name of one finding": "finding"},
    ),
)
"""Questions about a label alone, in the order in which they are asked."""
ABSENT = LabelQuestion(
    lambda text: _MINUS.search(text) is not None,
    "say that something is absent",
    "Write 'normal' where an image shows nothing, or give the class another name",
    {"nothing is found": "normal", "it is the name of a finding": "finding"},
)
NORMAL = LabelQuestion(
    lambda name: not {"normal", "healthy"}.isdisjoint(name.split("_")),
    "mean that the image shows nothing",
    "Write 'normal', or give it the name of a finding",
    {"nothing is found": "normal", "it is the name of a finding": "finding"},
)
LIST = LabelQuestion(
    lambda parts: len(parts) > 1,
    "list {n_labels} labels",
    "Write | or ; between labels; if it is one, give it a name of other words",
    {"it lists them": "{parts}", "it is one": "finding"},
)
