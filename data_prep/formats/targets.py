"""Targets, which are named sets of findings that make an image positive."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cxr_compare.data_prep.contracts.finding_names import display_name


def targets_from_findings(
    findings: Collection[str], *, any_finding: bool = False
) -> dict[str, dict[str, Any]]:
    """Make a target of each finding (disease): an image is positive if the finding is present.

    A target is what a model is to detect.

    Args:
        findings: Names of the findings.
        any_finding: True adds the target ``any_finding``, which contains all findings.

    Returns:
        By name of a target, its findings ``any_of`` and its ``display_name``, as in
        ``dataset.json``.

    Example:
        >>> list(targets_from_findings(["mass", "edema"], any_finding=True))
        ['mass', 'edema', 'any_finding']
    """
    targets = {name: target_from_findings(name, [name]) for name in findings}
    return targets | (
        {"any_finding": target_from_findings("any_finding", findings)} if any_finding else {}
    )


def without_spellings(
    targets: Mapping[str, Mapping[str, Any]], name_by_spelling: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Name the one finding in targets of findings that are spellings of it.

    The target of a spelling alone is left out.

    Args:
        targets: All targets by name, as ``dataset.json`` stores them.
        name_by_spelling: Name of the finding by its other spelling.

    Example:
        >>> targets = targets_from_findings(["opacity", "opacitiy"], any_finding=True)
        >>> joined = without_spellings(targets, {"opacitiy": "opacity"})
        >>> {name: target["any_of"] for name, target in joined.items()}
        {'opacity': ['opacity'], 'any_finding': ['opacity']}
    """
    renamed = {}
    for name, target in targets.items():
        if name in name_by_spelling and list(target["any_of"]) == [name]:
            continue
        findings = (name_by_spelling.get(finding, finding) for finding in target["any_of"])
        renamed[name] = {**target, "any_of": list(dict.fromkeys(findings))}
    return renamed


def target_from_findings(name: str, findings: Iterable[str]) -> dict[str, Any]:
    """Join findings (diseases) to one target: an image is positive if any of them is present.

    Args:
        name: Name of the target, such as ``opacity``.
        findings: Names of the findings. Repeated names count once.

    Returns:
        The target as ``dataset.json`` stores it: ``any_of`` and ``display_name``.

    Example:
        >>> target_from_findings("opacity", ["consolidation", "infiltration"])["display_name"]
        'Opacity'
    """
    return {"any_of": list(dict.fromkeys(findings)), "display_name": display_name(name)}
