"""What the report says about the maps themselves: how they were made, and what they depend on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evaluation.metrics.registry import number

_METHODS = {
    "cam": "class activation maps",
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "occlusion": "occlusion",
    "gradient": "the input gradient (SmoothGrad)",
}
_CHANGED = 0.5
"""Rank correlation from which maps of random weights count as much the same."""


def map_checks(systems: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line per system with maps: the method, and what random weights do to them.

    Args:
        systems: By display name what a predictions folder says of itself; reads ``maps``.

    Returns:
        Lines for the report's methods; none for a system that does not say how its maps were made.

    Source:
        The check is that of Adebayo et al. 2018, Sanity Checks for Saliency Maps.

    Example:
        >>> stages = [{"share": 1.0, "spearman": 0.1, "spearman_abs": 0.2, "n_maps": 48}]
        >>> sanity = {"n_images": 16, "draws": 3, "mode": "cascading", "stages": stages}
        >>> print(map_checks({"A": {"maps": {"method": "cam", "sanity": sanity}}})[0][:42])
        Maps of A are class activation maps. With
    """
    lines = []
    for name, said in systems.items():
        maps = said.get("maps")
        if not maps:
            continue
        method = _METHODS.get(maps["method"], str(maps["method"]))
        lines.append(f"Maps of {name} are {method}. {_check(maps.get('sanity'))}")
    return lines


def _check(sanity: Mapping[str, Any] | None) -> str:
    if not sanity:
        return "Whether random weights would change them was not checked."
    last = sanity["stages"][-1]
    looked = f"{sanity['n_images']} images, {sanity['draws']} random networks"
    if last["spearman"] is None:
        told = f"With random weights they have no order left ({looked}), "
        return told + "so they depend on what was learned."
    told = (
        f"With all weights random they correlate by rank with the trained model's at "
        f"{number(last['spearman'], 2)} on average, {number(last['spearman_abs'], 2)} in absolute "
        f"value ({looked}; 1 would be the same map; Adebayo et al. 2018): "
    )
    if last["spearman_abs"] < _CHANGED:
        return told + "they depend on what was learned."
    return told + "much of them does not depend on what was learned, so trust them little."
