"""Targets, which are named sets of findings that make an image positive."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from cxr_compare.data_prep.formats.finding_names import display_name
from cxr_compare.data_prep.formats.joined_spellings import spellings_of_targets


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


def without_joined(
    targets: Mapping[str, Mapping[str, Any]], defined: Mapping[str, Collection[str]]
) -> dict[str, dict[str, Any]]:
    """Leave out the targets of findings that the user joined as other spellings of a finding.

    A user's target that is named after one of its findings, such as ``opacity`` of ``opacity`` and
    ``opacitiy``, says that its findings are one. The others then are no targets of their own,
    unless the user defined them, too.

    Args:
        targets: All targets by name, as ``dataset.json`` stores them.
        defined: Findings of each target that the user defined, by its name.

    Example:
        >>> targets = targets_from_findings(["opacity", "opacitiy"])
        >>> list(without_joined(targets, {"opacity": ["opacity", "opacitiy"]}))
        ['opacity']
    """
    joined = spellings_of_targets(defined)
    return {
        name: dict(target)
        for name, target in targets.items()
        if name not in joined or list(target["any_of"]) != [name]
    }


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
