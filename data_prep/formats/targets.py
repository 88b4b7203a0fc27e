"""Targets: the findings that make an image positive."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

from cxr_compare.data_prep.formats.finding_names import display_name


def targets_of(findings: Collection[str], *, of_all: bool = False) -> dict[str, dict[str, Any]]:
    """A target of its own for each finding, and `of_all` as ``any_finding``."""
    targets = {name: target_of(name, [name]) for name in findings}
    return targets | ({"any_finding": target_of("any_finding", findings)} if of_all else {})


def target_of(name: str, findings: Iterable[str]) -> dict[str, Any]:
    """A target that any of some findings makes positive."""
    return {"any_of": list(dict.fromkeys(findings)), "display_name": display_name(name)}
