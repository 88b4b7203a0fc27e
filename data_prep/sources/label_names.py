"""Names of labels and classes as findings, and the question about those that may mean otherwise."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from functools import cache
from typing import Literal, NamedTuple

from cxr_compare.data_prep.base.errors import InputError
from cxr_compare.data_prep.base.names import without_accents
from cxr_compare.data_prep.sources.words import (
    class_finding,
    dictionary,
    is_number,
    normal_classes,
    state_of_text,
)

_SHOWN = 60  # characters of a label in a message
_OBJECT = re.compile(r"""^\[|[{}]|["'][\w .-]+["']\s*:""")
_NUMBERS = re.compile(r"(?<![\w.])-?\d+(?:[.,]\d+)?(?:[\s,]+-?\d+(?:\.\d+)?)*(?![\w.])")
_MINUS = re.compile("^\\s*[!\uff01]|[-\u2010-\u2015\u2212\uff0d]\\s*\\)?\\s*$")
_JOINTS = re.compile(r"""[,/+&()'"\n]|\b(?:and|und|et)\b""", re.IGNORECASE)
_SIGNS = re.compile(r"[,;/+&\n]")
_JOINING_WORD = re.compile(r"(?<=[^\W_])[\s_][^\W\d_]{1,3}[\s_](?=[^\W_])")
_NOTHING = {"nothing is found": "normal"}


class Label(NamedTuple):
    """Finding that a label names, and its state: ``present``, ``absent`` or ``uncertain``."""

    finding: str
    state: str = "present"


class LabelError(InputError):
    """A question about one label, and what it may mean by the case in which it does."""

    def __init__(self, text: str, where: str, meaning: str, meanings: Mapping[str, str]) -> None:
        super().__init__(
            f"{where}: does the label '{text[:_SHOWN]}' {meaning}? Write the name of one finding, "
            "'normal' or 'unknown', with | between several labels"
        )
        self.text = text
        self.meanings = {**meanings, "it is the name of one finding": "finding"}


def name_labels(
    texts: Iterable[str],
    where: str,
    kind: Literal["label", "class", "column"] = "label",
    *,
    is_published: bool = False,
) -> dict[str, Label]:
    """Name the findings of all labels of a column, or of all class names of a file, together.

    Those that say nothing are left out. A label that may mean something else than its name, such as
    ``mass?`` or ``TB-``, is asked about; so are two labels that would get one name.
    """
    label_of: dict[str, Label] = {}
    for text in dict.fromkeys(texts):
        _refuse_other_content(text, where)
        label = Label(class_finding(text, where)) if kind == "column" else _doubted(text, where)
        if label is not None:
            label_of[text] = label
    labels = dict(label_of)
    if kind != "column":
        findings = {label.finding for label in label_of.values()}
        for text, label in label_of.items():
            meant = _denied(text, label.finding, findings, where, kind)
            labels[text] = meant if label.state == "present" else meant._replace(state=label.state)
    if kind == "label":
        _ask_about_lists(labels, where, is_published=is_published)
    _refuse_one_name(label_of, where)
    for text in label_of:
        if _MINUS.search(text):
            raise LabelError(text, where, "say that something is absent", _NOTHING)
    return labels


def _doubted(text: str, where: str) -> Label | None:
    """Return the finding of a label, uncertain by a word of doubt; None for this word alone."""
    if state_of_text().get(text.lower()) == "uncertain":
        return None
    name, doubt = class_finding(text, where), _words("uncertain_words")
    is_doubt_alone = re.fullmatch(doubt, name) is not None
    bare = _without_doubt(name)
    plain = bare.replace("_", " ")
    is_within = re.search(rf"(?:^|_){doubt}(?:_|$)", bare) is not None
    if "?" in text or (is_within and not is_doubt_alone):
        meanings = {"it is uncertain": f"uncertain {plain}", "nobody knows": "unknown"}
        raise LabelError(text, where, "say that a finding is uncertain", meanings)
    if re.search(rf"(?:^|_){_words('past_before')}_", bare):
        meanings = {"the image need not show it": "unknown"}
        raise LabelError(text, where, "say that a finding was there before", meanings)
    if is_doubt_alone:
        return None
    return Label(bare, "present" if bare == name else "uncertain")


def _without_doubt(name: str) -> str:
    """Return the name of a finding without the words of doubt before or behind it."""
    doubt = _words("uncertain_words")
    return re.sub(rf"^{doubt}_|_{doubt}$", "", name)


@cache
def _words(list_name: str) -> str:
    """Return the pattern of a list of words of ``columns.toml``, in names of findings."""
    names = [class_finding(word, "columns.toml") for word in dictionary()[list_name]]
    names.sort(key=len, reverse=True)
    return f"(?:{'|'.join(names)})"


def _denied(text: str, finding: str, findings: set[str], where: str, kind: str) -> Label:
    """Return that a label denies another of some findings, or else that its own is present."""
    if finding in normal_classes():
        return Label(finding)
    terms = dictionary()
    denying = [*terms["absent_before"], *terms["may_be_absent_before"]]
    word = max((w for w in denying if finding.startswith(f"{w}_")), key=len, default="")
    rest = finding.removeprefix(f"{word}_") if word else ""
    names_one = rest != "" and rest not in normal_classes()
    denies = names_one and word in terms["absent_before"]
    is_known = kind == "label" and rest in terms["findings"]["names"]
    if (rest in findings and names_one) or (denies and is_known):
        return Label(rest, "absent")
    absent = [without_accents(word) for word in terms["states"]["absent"] if len(word) > 1]
    absent.append("free")
    ends = tuple(f"_{word}" if word.isascii() else word for word in absent)  # or without a blank
    if denies or (finding.endswith(ends) and finding not in absent):
        raise LabelError(text, where, "say that something is absent", _NOTHING)
    if kind == "label" and not word and {"normal", "healthy"} & {*finding.split("_")}:
        raise LabelError(text, where, "mean that the image shows nothing", _NOTHING)
    return Label(finding)


def _refuse_one_name(label_of: dict[str, Label], where: str) -> None:
    """Refuse labels of one name that differ in more than case, blanks, hyphens or all accents."""
    first: dict[Label, str] = {}
    for text, label in label_of.items():
        other = first.setdefault(label, text)
        spelling, other_spelling = _spelling(text), _spelling(other)
        is_one = (
            spelling == other_spelling
            or without_accents(spelling) == other_spelling
            or spelling == without_accents(other_spelling)
        )
        if label.state == "present" and not is_one:
            raise InputError(
                f"{where}: the labels {other[:_SHOWN]!r} and {text[:_SHOWN]!r} would both be the "
                f"finding '{label.finding}'; give each a name of its own in letters, or both one "
                "spelling"
            )


def _spelling(text: str) -> str:
    plain = re.sub(
        "[\u2010-\u2015\u2212]", "-", unicodedata.normalize("NFKC", text.strip()).lower()
    )
    return re.sub(r"(?<=\w)\s*-\s*(?=\w)|[\s_/]", "", plain)


def _refuse_other_content(text: str, where: str) -> None:
    """Refuse JSON, numbers, boxes and run lengths in place of a name."""
    has_letter = re.search(r"[^\W\d_]", text) is not None and not is_number(text)
    numbers = _NUMBERS.search(text)
    n_numbers = len(re.findall(r"\d+(?:\.\d+)?", numbers[0])) if numbers else 0
    is_value = not has_letter and n_numbers > 0 and text not in ("0", "1")
    if (has_letter and _OBJECT.search(text)) or is_value or n_numbers >= 4:
        raise InputError(
            f"{where}: {text[:_SHOWN]!r} is no name of a finding; write 'mass', 'normal' or "
            "'unknown', or 1 and 0 in a column for each finding; boxes have columns x1,y1,x2,y2, "
            "and an annotation tool such as Label Studio exports COCO"
        )


def _ask_about_lists(labels: Mapping[str, Label], where: str, *, is_published: bool) -> None:
    """Ask about a text that is made of labels of the column, or behind a comma of findings.

    Where a sign or a short word (and, und, y, mit) joins the parts, one of them is enough: as a
    class of its own the text would deny this label. Published names hold such words, too.
    """
    findings = {label.finding for label in labels.values()}
    parts_of = {text: _parts(text, _JOINTS, where) for text in labels}
    times = Counter(part for parts in parts_of.values() for part in parts)
    known_names = {*dictionary()["findings"]["names"], *normal_classes()}
    for text, parts in parts_of.items():
        are_known = [times[f] > 1 or ("," in text and f in known_names) for f in parts]
        name = labels[text].finding
        if len(parts) == 1 or not all(are_known):
            parts = _labels_in(name, findings) if name in findings - normal_classes() else set()
        others = findings - normal_classes() - {name}
        for joints in () if is_published else (_JOINING_WORD, _SIGNS):
            joined = _parts(text, joints, where)
            parts = joined if joined & others else parts
        if len(parts) > 1:
            meanings = {"it lists them": "|".join(sorted(parts))}
            raise LabelError(text, where, f"list {len(parts)} labels", meanings)


def _parts(text: str, joints: re.Pattern[str], where: str) -> set[str]:
    """Return the parts of a label that have a letter or a number, as names without doubt."""
    written = [part for part in joints.split(text) if re.search(r"[^\W_]", part)]
    return {_without_doubt(class_finding(part, where)) for part in written}


def _labels_in(name: str, labels_of_column: Set[str]) -> set[str]:
    """Return the other labels of which a name is made, joined by ``_``; an empty set if none."""
    words = name.split("_")
    labels_before: dict[int, set[str]] = {0: set()}  # labels by the number of words that they take
    for end in range(1, len(words) + 1):
        for begin, labels in labels_before.items():
            last = "_".join(words[begin:end])
            if last in labels_of_column and last != name:
                labels_before[end] = {*labels, last}
                break
    return labels_before.get(len(words), set())
