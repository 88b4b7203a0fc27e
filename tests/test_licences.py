"""Licences of the packages in the environment, which has those of the program and of its tests."""

import re
from importlib import metadata

FORBIDDEN = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public License", re.IGNORECASE)
# The CUDA toolkit of torch on Linux (NVIDIA EULA), and a package under Apache-2.0.
WITHOUT_METADATA = {"cuda-toolkit", "faster-coco-eval"}


def licence_of(about):
    """Licence that a distribution states: its expression, its classifiers, or its field."""
    classifiers = [text for text in about.get_all("Classifier", []) if text.startswith("License")]
    return about["License-Expression"] or "; ".join(classifiers) or about["License"] or ""


def test_no_package_is_under_the_gpl():
    licences = {
        each.metadata["Name"]: licence_of(each.metadata) for each in metadata.distributions()
    }
    assert {"numpy", "torch", "lightning", "fastapi", "onnxruntime"} <= licences.keys()
    assert {name for name, text in licences.items() if not text} <= WITHOUT_METADATA
    first_lines = {name: text.partition("\n")[0] for name, text in licences.items()}
    assert {name: text for name, text in first_lines.items() if FORBIDDEN.search(text)} == {}
