"""The three classes of the RSNA Pneumonia Detection Challenge, their finding and their target."""

from __future__ import annotations

CLASSES = {
    "Normal": "normal",
    "No Lung Opacity / Not Normal": "not_normal",
    "Lung Opacity": "lung_opacity",
}
"""Our names of the classes, by the names in RSNA's files."""
FINDING = "lung_opacity"
TARGETS = {"opacity": {"any_of": [FINDING], "display_name": "Lung opacity"}}
