"""What is said of one image, as text and as JSON: of a run as of its export, without pandas."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.contracts.addresses import shown as addressed
from data_prep.contracts.words import counted
from evaluation.decisions.decision_rule import CalledBox
from evaluation.metrics.words import score_words

_SHOWN_BOXES = 3  # in a line of text
_DECISIONS = {True: "positive", False: "negative", None: None}


@dataclass(frozen=True)
class PlainAnswer:
    """What one system says of one image; see `serving.answer.Answer` for each attribute.

    Example:
        >>> box = CalledBox("mass", 8.0, 0.0, 16.0, 8.0, 0.5)
        >>> answer = PlainAnswer("a.png", "CheXNet", "scores", "mass", 0.5, 0.25, "max_f1", 0.375,
        ...                      True, (box,))
        >>> answer.line()
        'a.png  CheXNet  POSITIVE  probability 0.25  score 0.500 (threshold 0.375)  1 box: ...'
    """

    image: str
    system: str
    kind: str
    finding: str
    score: float
    probability: float | None
    policy: str
    threshold: float | None
    decision: bool | None
    boxes: tuple[CalledBox, ...]
    warnings: tuple[str, ...] = ()
    undecided_because: str | None = None
    notes: tuple[str, ...] = ()

    def line(self) -> str:
        """The answer as the terminal shows it."""
        called = (_DECISIONS[self.decision] or "undecided").upper()
        parts = [self.image, self.system, called if self.decision else called.lower()]
        if self.probability is not None:
            parts.append(f"probability {self.probability:.2f}")
        limit = "" if self.threshold is None else f" (threshold {score_words(self.threshold)})"
        parts.append(f"score {score_words(self.score)}{limit}")
        if self.boxes:
            parts.append(self._boxes_in_words())
        return "  ".join(parts)

    def _boxes_in_words(self) -> str:
        shown = [
            f"{box.x1:.0f},{box.y1:.0f}-{box.x2:.0f},{box.y2:.0f} ({box.score:.2f})"
            for box in self.boxes[:_SHOWN_BOXES]
        ]
        count = len(self.boxes)
        if count > _SHOWN_BOXES:
            shown.append(f"{count - _SHOWN_BOXES} more")
        return f"{counted(count, 'box')}: {', '.join(shown)}"

    def to_json(self) -> dict[str, Any]:
        """The answer for a program."""
        return {
            "image": self.image,
            "system": self.system,
            "kind": self.kind,
            "finding": self.finding,
            "decision": _DECISIONS[self.decision],
            "undecided_because": self.undecided_because,
            "probability": self.probability,
            "score": self.score,
            "policy": self.policy,
            "threshold": self.threshold,
            "boxes": [box._asdict() for box in self.boxes],
            "warnings": list(self.warnings),
            "notes": list(self.notes),
        }


class AnswerPrinter:
    """Prints answers to stdout as they come: lines, or one JSON list.

    Args:
        as_json: Whether stdout gets JSON; what stands beside the answers then goes to the person.
        say: Shows a line to the person at the terminal.
    """

    def __init__(self, as_json: bool, say: Callable[[str], object]) -> None:
        self._as_json, self._say = as_json, say
        self._is_first = True

    def write(self, answers: Sequence[PlainAnswer]) -> None:
        """One image, answered by each system."""
        said = [("WARNING", text) for answer in answers for text in answer.warnings]
        said += [("NOTE", text) for answer in answers for text in answer.notes]
        for kind, text in dict.fromkeys(said):
            line = f"{answers[0].image}  {kind}: {text}"
            if self._as_json:
                self._say(line)
            else:
                sys.stdout.write(addressed(line) + "\n")
        for answer in answers:
            if not self._as_json:
                sys.stdout.write(addressed(answer.line()) + "\n")
        self._emit([answer.to_json() for answer in answers])

    def leave_out(self, path: Path, problem: str) -> None:
        """One file without an answer."""
        self._say(f"left out: {problem}")
        self._emit([{"image": str(path), "problem": problem}])

    def _emit(self, entries: list[dict[str, Any]]) -> None:
        """Append to the JSON list."""
        if not self._as_json:
            sys.stdout.flush()
            return
        for entry in entries:
            sys.stdout.write("[\n" if self._is_first else ",\n")
            self._is_first = False
            sys.stdout.write(addressed(json.dumps(entry, ensure_ascii=False)))

    def close(self) -> None:
        """End the JSON list."""
        if self._as_json:
            sys.stdout.write("[]\n" if self._is_first else "\n]\n")
