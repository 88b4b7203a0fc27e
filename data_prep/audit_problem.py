"""One thing that an audit has to say, in plain words."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning", "info"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "info")
_SHOWN = 5


@dataclass(frozen=True)
class Problem:
    """A finding of the audit.

    Attributes:
        check: Short name of the check, for programs.
        severity: ``error`` makes results wrong, ``warning`` may, ``info`` is worth knowing.
        message: A sentence for the person who owns the data.
        count: How many images, boxes or patients are concerned.
        examples: Up to five of them by id.
    """

    check: str
    severity: Severity
    message: str
    count: int
    examples: tuple[str, ...] = ()

    @classmethod
    def of(cls, check: str, severity: Severity, message: str, cases: Iterable[str]) -> Problem:
        """Count cases and keep the first few in order.

        Example:
            >>> Problem.of("leak", "error", "in two roles", ["b", "a", "b"])
            Problem(check='leak', severity='error', message='in two roles', count=2,
            examples=('a', 'b'))
        """
        unique = sorted({str(case) for case in cases})
        return cls(check, severity, message, len(unique), tuple(unique[:_SHOWN]))

    @property
    def line(self) -> str:
        """The finding as one line."""
        more = ", ..." if self.count > len(self.examples) else ""
        shown = f" ({', '.join(self.examples)}{more})" if self.examples else ""
        return f"{self.severity}: {self.message}{shown}"
