"""Licences of the packages that the program needs."""

import re
from importlib import metadata

FORBIDDEN = re.compile(r"\bA?GPL|Affero|(?<!Lesser )General Public License", re.IGNORECASE)
# The CUDA toolkit of torch on Linux states no licence in its metadata (NVIDIA EULA).
WITHOUT_METADATA = {"cuda-toolkit"}


def needed(name, extras=frozenset(), seen=None):
    """Names of a distribution and all that it requires, with some of its extras."""
    seen = set() if seen is None else seen
    for text in metadata.requires(name) or []:
        requirement, _, marker = text.partition(";")
        asked = re.findall(r"extra == ['\"]([\w-]+)['\"]", marker)
        if asked and not extras.intersection(asked):
            continue
        other = re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")
        of_other = set(re.findall(r"[\w-]+", (re.findall(r"\[(.*?)\]", requirement) or [""])[0]))
        if other in seen and not of_other:
            continue
        seen.add(other)
        try:
            metadata.distribution(other)
        except metadata.PackageNotFoundError:
            continue  # of another platform or Python
        needed(other, of_other, seen)
    return seen


def licence_of(name):
    """Licence that a distribution states: its expression, its field, or its classifiers."""
    about = metadata.metadata(name)
    stated = [about.get("License-Expression"), *about.get_all("Classifier", [])]
    classifiers = [text for text in stated if text and text.startswith("License ::")]
    return stated[0] or "; ".join(classifiers) or (about.get("License") or "").split("\n")[0]


def test_no_package_that_the_program_needs_is_under_the_gpl():
    names = needed("cxr-compare", {"train", "serve", "export", "cluster"}) - {"cxr-compare"}
    assert {"numpy", "torch", "lightning", "fastapi", "onnxruntime"} <= names
    installed = {d.metadata["Name"].lower().replace("_", "-") for d in metadata.distributions()}
    licences = {name: licence_of(name) for name in names & installed}
    assert {name for name, text in licences.items() if not text} <= WITHOUT_METADATA
    assert {name: text for name, text in licences.items() if FORBIDDEN.search(text)} == {}
