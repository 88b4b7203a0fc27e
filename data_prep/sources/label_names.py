"""Names of findings from all labels of a column, or all class names of a file, taken together.

A name keeps letters and digits only, so a label cannot be named alone: ``TB+`` and ``TB-`` are
opposites, ``>=3mm`` and ``<3mm`` are two classes, and each pair would become one finding.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from typing import Literal, NamedTuple

from cxr_compare.data_prep.contracts.box_numbers import finite_or_nan
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.sources.label_values import (
    STATE_OF_TEXT,
    class_finding,
    dictionary,
    normal_classes,
)

_SHOWN = 60  # characters of a label in a message


class Label(NamedTuple):
    """Finding that a label names, and its state: ``present``, ``absent`` or ``uncertain``."""

    finding: str
    state: str = "present"


@dataclass(frozen=True)
class LabelNames:
    """Meaning of the labels of a column or file.

    Attributes:
        labels: Finding and state by the text of the label.
        notes: Sentences on labels whose signs or words of doubt were read.
    """

    labels: dict[str, Label] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def name_labels(
    texts: Iterable[str], where: str, kind: Literal["label", "class", "column"] = "label"
) -> LabelNames:
    """Name the findings of all labels of a column, or of all class names of a file, together.

    Two texts share a name only if they differ in nothing but case, blanks, ``_``, ``/`` and ``-``
    between letters or digits. A sign of presence or absence (``+``, ``(-)``, "negative" at the end,
    ``!``, "no", "non-" in front) counts where the same word stands with the other sign. With a word
    of doubt in front or behind, such as "possible mass", the finding is uncertain; a word of doubt
    alone names no finding, and is left out. Each text is of one class; see `split_labels` for cells
    that list several.

    `kind` is ``label`` for a column of labels, where "no mass" denies every known finding, and is
    asked about if it is none; ``class`` for class names of boxes; ``column`` for names that have
    states of their own, such as columns of 1 and 0: their signs and doubts are not read.

    Refused are two texts that differ in a sign and get one name, a text that is no name (JSON,
    numbers) or lists others, and one that seems to say that something is absent, where nothing says
    what. `where` names file and column.

    Example:
        >>> name_labels(["TB+", "TB-", "Lung Opacity"], "labels.csv").labels["TB-"]
        Label(finding='tb', state='absent')
    """
    distinct = list(dict.fromkeys(texts))
    if kind == "column":
        return LabelNames(*_named(distinct, where, kind))
    bare = {
        text: _doubt().sub("", text)
        for text in distinct
        if text == "-1" or STATE_OF_TEXT.get(text.lower()) != "uncertain"
    }
    labels, notes = _named(list(dict.fromkeys(bare.values())), where, kind)
    states = {text: labels[plain] for text, plain in bare.items()}
    for text in distinct:
        if text not in bare:
            notes.append(f"'{text}' names no finding: what has this label is unknown")
        elif text != bare[text]:
            states[text] = Label(states[text].finding, "uncertain")
            notes.append(f"'{text}' is taken for the finding '{states[text].finding}', uncertain")
    return LabelNames(states, notes)


def _named(distinct: list[str], where: str, kind: str) -> tuple[dict[str, Label], list[str]]:
    """Name the findings of labels without words of doubt; return notes on their signs, too."""
    _refuse_json(distinct, where)
    _refuse_numbers(distinct, where)
    signed = {} if kind == "column" else _opposites(distinct)
    labels: dict[str, Label] = {}
    spellings: dict[str, dict[str, str]] = {}  # a text by its spelling, by finding
    for text in distinct:
        label = Label(class_finding(text, where))
        spelling = _spelling(_plain(text))
        if text in signed:
            sign = signed[text]
            label = Label(sign.finding, sign.state)
            spelling = f"{sign.spelling} {sign.state}"
        labels[text] = label
        if label.state == "present":
            spellings.setdefault(label.finding, {}).setdefault(spelling, text)
    for finding, by_spelling in spellings.items():
        if len(by_spelling) > 1:
            one, other, *_ = by_spelling.values()
            raise InputError(
                f"{where}: the labels {one[:_SHOWN]!r} and {other[:_SHOWN]!r} would both be the "
                f"finding '{finding}'; give each a name of its own in letters, or both one spelling"
            )
    if kind == "label":
        _refuse_lists(distinct, where)
    if kind != "column":
        _refuse_question_marks(distinct, where)
    for text in distinct:
        if text not in signed:
            labels[text] = _unpaired(text, labels[text], where, kind)
    return labels, _notes(signed)


def split_labels(cell: str) -> list[str]:
    """Return the labels of a cell that lists several: by ``|`` or ``;``, or as Python or JSON do.

    A cell of any other structure, such as a JSON object, is returned whole.

    Example:
        >>> split_labels("mass; nodule"), split_labels("['mass', 'nodule']"), split_labels("[1, 2]")
        (['mass', 'nodule'], ['mass', 'nodule'], ['[1, 2]'])
    """
    if _LIST.fullmatch(cell):
        parts = ["".join(pair) for pair in re.findall(r"'([^']*)'|\"([^\"]*)\"", cell)]
    elif cell.startswith(("[", "{")):
        parts = [cell]
    else:
        parts = re.split(r"[|;]", cell)
    return [part.strip() for part in parts if part.strip()]


_LIST = re.compile(r"\[\s*(?:(?:'[^']*'|\"[^\"]*\"|nan|None|null)[\s,]*)*\]")
_OBJECT = re.compile(r"^\[|[{}]|[\"'][\w .-]+[\"']\s*:")
_TOOLS = {
    "Label Studio": re.compile(r"\w+labels\b|\bchoices\b|\boriginal_width\b"),
    "Labelbox": re.compile(r"\b(?:objects|featureId|schemaId)\b"),
}
_NUMBER = re.compile(r"\d+(?:[.,]\d+)?")
_BOX = re.compile(r"(?<![\w.])\d+(?:\.\d+)?(?:[\s,]+-?\d+(?:\.\d+)?){3}(?![\w.])")
_JOINTS = re.compile(r"[,/+&()'\"\n]|\b(?:and|und|et)\b", re.IGNORECASE)


def _refuse_json(texts: Iterable[str], where: str) -> None:
    """Refuse texts that hold objects, or lists of something else than names."""
    for text in texts:
        if not _has_letter(text) or not _OBJECT.search(text):
            continue
        tool = next((name for name, mark in _TOOLS.items() if mark.search(text)), None)
        content = f"JSON of {tool}" if tool else "JSON or a list of something else than names"
        advice = "name the findings, or give the file of the tool that drew them"
        if tool == "Label Studio":
            advice = "export from Label Studio as JSON, and give that file"
        elif tool:
            advice = f"export from {tool} as COCO, and give that file"
        raise InputError(_no_name(where, text, content, advice))


def _refuse_numbers(texts: Sequence[str], where: str) -> None:
    """Refuse texts of numbers or of a box; the clearest sign of another content is named."""
    for text in texts:
        are_numbers = not _has_letter(text) and len(_NUMBER.findall(text)) > 1
        if are_numbers or _BOX.search(text):
            content = "several numbers, such as corners of a box or run lengths of a mask (RLE)"
            advice = "give boxes in columns of their own, x1,y1,x2,y2, and the label as a name"
            raise InputError(_no_name(where, text, content, advice))
    numbers = [text for text in texts if not _has_letter(text) and _NUMBER.search(text)]
    numbers = [text for text in numbers if text not in ("0", "1")]
    minus_one = [text for text in numbers if _plain(text) in ("-1", "-1.0")]
    for text in numbers:
        if text not in minus_one:
            content = "a number, such as a share, a score or a class"
            advice = "write 1 (present) or 0 (absent), or the names of the findings"
            raise InputError(_no_name(where, text, content, advice))
    for text in minus_one:
        raise InputError(
            f"{where}: does the label {text!r} say that something is absent, or uncertain? Write "
            "'normal' where an image shows nothing, and 'unknown' where nobody could say"
        )


def _refuse_lists(texts: Iterable[str], where: str) -> None:
    """Ask about a text of which each part is a label of the column, or behind a comma a finding.

    Taken for the name of one finding, it would deny the findings that it lists.
    """
    parts_of = {
        text: {class_finding(part, where) for part in _JOINTS.split(text) if _has_word(part)}
        for text in texts
    }
    times = Counter(chain.from_iterable(parts_of.values()))
    known = {*dictionary()["findings"]["names"], *normal_classes()}
    for text, parts in parts_of.items():
        others = {part for part in parts if times[part] > 1 or ("," in text and part in known)}
        if len(parts) > 1 and parts == others:
            raise InputError(
                f"{where}: does {text[:_SHOWN]!r} list {counted(len(parts), 'label')}? Write | or "
                "; between labels; if it is one, give it a name of other words"
            )


def _refuse_question_marks(texts: Iterable[str], where: str) -> None:
    """Ask about a text with a question mark, whose finding may be uncertain."""
    for text in texts:
        if "?" in text:
            raise InputError(
                f"{where}: does '{text[:_SHOWN]}' say that a finding is uncertain? Write it in "
                "words, such as 'uncertain mass', or without the question mark"
            )


def _no_name(where: str, text: str, content: str, advice: str) -> str:
    shown = f"{text[:_SHOWN]}{'...' if len(text) > _SHOWN else ''}"
    return f"{where} holds {content}, no name of a finding ({shown}); {advice}"


def _has_letter(text: str) -> bool:
    return re.search(r"[^\W\d_]", text) is not None and not is_number(text)


def is_number(text: str) -> bool:
    """Return True if a label is a finite number.

    Example:
        >>> is_number("0.9"), is_number("nan"), is_number("mass 2")
        (True, False, False)
    """
    return math.isfinite(finite_or_nan([text])[0])


class _Sign(NamedTuple):
    """Sign of a label, and the rest of the label, as a name and as people spell it."""

    finding: str
    spelling: str
    state: str
    is_in_front: bool

    @property
    def word(self) -> tuple[str, str]:
        return self.finding, self.spelling


def _opposites(texts: list[str]) -> dict[str, _Sign]:
    """Return the signs of the labels whose word also stands with the other sign."""
    signs = {text: sign for text in texts if (sign := _sign(text)) is not None}
    affirmed = {sign.word for sign in signs.values() if sign.state == "present"}
    bare = {
        (class_finding(text, ""), _spelling(_plain(text)))
        for text in texts
        if text not in signs and _has_word(text)
    }
    denied = {
        sign.word
        for sign in signs.values()
        if sign.state == "absent"
        and (sign.word in affirmed or (sign.is_in_front and sign.word in bare))
    }
    return {text: sign for text, sign in signs.items() if sign.word in denied}


_STATES = {
    word: state
    for word, state in STATE_OF_TEXT.items()
    if len(word) > 1 and word.isalpha() and state != "uncertain"
}
_SIGN_AT_END = re.compile(r"\(\s*([+-])\s*\)$|([+-])$")
_LAST_WORD = re.compile(r"([^\W_]+)[\W_]*$")
_BETWEEN_WORDS = " _-/:,.(["


def _sign(text: str) -> _Sign | None:
    """Return the sign of a label; None if it has none, or says that an image shows no finding."""
    plain = _plain(text)
    if not _has_word(plain) or class_finding(text, "") in normal_classes():
        return None
    in_front = _denial().match(plain)
    at_end = _SIGN_AT_END.search(plain)
    if in_front:
        rest = plain[in_front.end() :]
        state = "absent"
    elif at_end:
        rest = plain[: at_end.start()].strip()
        state = "present" if "+" in at_end.groups() else "absent"
    else:
        rest, state = _without_state(plain)
    if not state or not _has_word(rest):
        return None
    finding = class_finding(rest, "")
    if finding in normal_classes():
        return None
    return _Sign(finding, _spelling(rest), state, in_front is not None)


@cache
def _doubt() -> re.Pattern[str]:
    """Return the pattern of the words around a label which say that its finding is uncertain."""
    words = "|".join(dictionary()["uncertain_before"])
    pattern = rf"^(?:{words})[\W_]+(?=\w)|(?<=\w)[\W_]+(?:{words})\W*$"
    return re.compile(pattern, re.IGNORECASE)


@cache
def _denial() -> re.Pattern[str]:
    """Return the pattern of the signs and words in front that say that a finding is absent."""
    words = dictionary()["absent_before"] + dictionary()["may_be_absent_before"]
    return re.compile(rf"!\s*|\W*(?:{'|'.join(words)})[\W_]+", re.IGNORECASE)


def _without_state(plain: str) -> tuple[str, str]:
    """Return a label without its last word, and the state that this word states, if any."""
    last = _LAST_WORD.search(plain)
    before = plain[: last.start()] if last else ""
    rest = before.rstrip(_BETWEEN_WORDS)
    state = _STATES.get(last[1].lower()) if last else None
    if state and rest != before:
        return rest, state
    for word, of_word in _STATES.items():  # scripts without blanks between words
        if not word.isascii() and plain.endswith(word):
            return plain.removesuffix(word), of_word
    return plain, ""


def _has_word(text: str) -> bool:
    return re.search(r"[^\W_]", text) is not None


def _plain(text: str) -> str:
    """Return a label with the signs of other scripts as those of ASCII."""
    signs = (
        unicodedata.normalize("NFKC", sign) if unicodedata.category(sign)[0] in "PSZ" else sign
        for sign in unicodedata.normalize("NFC", text.strip())
    )
    return "".join(
        "-" if sign == "−" or unicodedata.category(sign) == "Pd" else sign
        for sign in "".join(signs)
    )


def _spelling(plain: str) -> str:
    """Return a label without what does not distinguish names."""
    return re.sub(r"(?<=\w)\s*-\s*(?=\w)|[\s_/]", "", plain.lower())


def _unpaired(text: str, label: Label, where: str, kind: str) -> Label:
    """Return the meaning of a label whose word stands with no other sign, or ask about it."""
    sign = _sign(text)
    if sign is None or sign.state != "absent":
        return label
    if sign.finding != label.finding:  # the word of absence stays in the name
        negation = label.finding.partition("_")[0]
        if kind != "label" or negation not in dictionary()["absent_before"]:
            return label
        if sign.finding in dictionary()["findings"]["names"]:
            return Label(sign.finding, "absent")
    advice = f"Write it in words, such as 'no {sign.finding}', or without the sign"
    if kind == "label":
        advice = (
            "Write 'normal' where an image shows nothing, 'unknown' where nobody knows, or give "
            "the class another name"
        )
    shown = text[:_SHOWN]
    raise InputError(f"{where}: does the class '{shown}' say that something is absent? {advice}")


def _notes(signed: dict[str, _Sign]) -> list[str]:
    """Return a sentence for each finding that labels with signs affirm and deny."""
    texts: dict[str, list[str]] = {}
    for text, sign in signed.items():
        texts.setdefault(sign.finding, []).append(f"'{text}' ({sign.state})")
    return [
        f"labels are taken for the finding '{finding}' by their signs: {', '.join(listed)}"
        for finding, listed in texts.items()
    ]
