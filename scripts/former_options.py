"""Options that were removed or renamed, and what the user does instead.

A renamed option still works under its former name for one release, but no help shows that name. A
removed option is refused with one line: exit code 2 on the command line, `InputError` from Python.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.scripts.command_line import command_name

_ENGINE = "set the environment variable CXR_ENGINE=ray instead (docs/scale.md)"
_ADDRESS = "set the environment variable CXR_ADDRESS=HOST:PORT instead (docs/scale.md)"
_CLUSTER = {"engine": _ENGINE, "address": _ADDRESS}
_TRAININGS = {
    "device": "set the environment variable CXR_DEVICE=cpu (or cuda) instead (docs/scale.md)",
    "despite_audit": "set the environment variable CXR_DESPITE_AUDIT=1 instead (docs/scale.md)",
}
_COLUMNS = "write --columns ROLE=COLUMN instead, such as --columns score=prob,image=filename"
_FIXED_SEED = "the seed is always 0 now; leave the option out"
_REPLICATES = "2,000 bootstrap replicates are always drawn now; leave the option out"


REMOVED: dict[str, dict[str, str]] = {
    "synth": {
        "contrast": "lesions of every contrast are drawn now; leave the option out",
        "flaws": "the images have no planted flaws now; leave the option out",
        "workers": "all processors draw now; leave the option out",
        "prevalence": "30 % of the images show lesions now; leave the option out",
    },
    "prepare": {
        **_CLUSTER,
        "seed": "draw the split anew with: cxr split DATA --name default --replace --seed N",
        "folds": "make folds with: cxr split DATA --name NAME --folds N",
        "method": "draw the split anew with: cxr split DATA --name default --replace --method hash",
        "window": "each DICOM file's first window is shown now; leave the option out",
        "labels": "give the table before the folders: cxr prepare TABLE SOURCE OUT",
    },
    "check": _CLUSTER,
    "train": {"resume": "an interrupted training goes on; for a new one choose another --out"},
    "predict": {
        **_CLUSTER,
        "open": "open the overlay that the command names at its end",
        "name": "name the system with the run: NAME=RUN",
    },
    "import_predictions": {
        "image_column": _COLUMNS,
        "score_column": _COLUMNS,
        "finding_column": _COLUMNS,
    },
    "ensemble": {"weights": "all members weigh the same now; leave the option out"},
    "tune": {"split": "the split of the predictions counts; leave the option out"},
    "overlay": {
        "role": "test images are drawn now; name others one by one with --image ID",
        "panel": "panels are 480 px wide now, with --blind 1024; leave the option out",
        "seed": "the same sample is always drawn now; name other images with --image ID",
        "faint": "boxes below the threshold are left out now; leave the option out",
    },
    "compare": {
        "image_column": _COLUMNS,
        "score_column": _COLUMNS,
        "seed": _FIXED_SEED,
        "cases": "8 cases of each kind are drawn now; leave the option out",
        "thumbnails": "5,000 thumbnails are shown now; leave the option out",
    },
    "export": {"workers": "all processors render now; leave the option out"},
    "pacs": {
        "once": "the archive is searched once unless --watch is given; leave the option out",
    },
    "monitor": {
        "key": "put the key as the file 'key' into the folder of the log",
        "first": "the first 28 days are the baseline now; leave the option out",
        "window": "a patient counts once in 28 days now; leave the option out",
        "policy": "the threshold of the log, or else the run's own, counts; leave the option out",
    },
    "curve": {
        **_CLUSTER,
        **_TRAININGS,
        "target": "write it as a key of both configurations: --set data.target=NAME",
        "replicates": "1,000 bootstrap replicates are always drawn now; leave the option out",
    },
    "readers": {
        "cases": "the result always holds for cases like these now; leave the option out",
        "hit_limit": "write the limit behind the rule: --hit iou:0.2 or --hit distance:40",
        "policy": "the policy max_f1 decides now; for another give NAME=FILE with its decisions",
        "level": "intervals are at 95 % now; leave the option out",
        "false_marks": "FROC is read at 0.5 false positives per image now; leave the option out",
    },
    "plan": {
        "level": "intervals are at 95 % now; leave the option out",
        "split": "the split of the pilot's predictions counts; leave the option out",
    },
}
"""Advice on what to do instead of each removed option, by command function and parameter name."""

RENAMED: dict[str, dict[str, str]] = {
    "tune": {"promise": "guarantee"},
    "plan": {"promise": "guarantee"},
}
"""Present name of each renamed option, by command function and former parameter name."""


def current_keywords(function_name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Translate former names of options to present ones in the arguments of a call from Python.

    Args:
        function_name: Name of the command function, such as ``tune``.
        keywords: Keyword arguments under present or former names.

    Returns:
        The same values under present names.

    Raises:
        InputError: A keyword was removed.

    Example:
        >>> current_keywords("tune", {"promise": "ppv>=0.5,prevalence=0.1@0.9"})
        {'guarantee': 'ppv>=0.5,prevalence=0.1@0.9'}
    """
    present: dict[str, Any] = {}
    for keyword, value in keywords.items():
        _refuse_removed(function_name, keyword, keyword)
        present[RENAMED.get(function_name, {}).get(keyword, keyword)] = value
    return present


def current_words(function_name: str, words: Sequence[str]) -> list[str]:
    """Translate former names of options to present ones in the words of a command line.

    Args:
        function_name: Name of the command function, such as ``plan``.
        words: Words of the command line after the name of the command.

    Returns:
        The words with present names of options.

    Raises:
        InputError: A word is an option that was removed.

    Example:
        >>> current_words("plan", ["--promise", "sensitivity>=0.9@0.9"])
        ['--guarantee', 'sensitivity>=0.9@0.9']
    """
    present: list[str] = []
    for word in words:
        option, equals, value = word.partition("=")
        if not option.startswith("--"):
            present.append(word)
            continue
        parameter = option.removeprefix("--").replace("-", "_")
        _refuse_removed(function_name, parameter, option)
        _refuse_removed(function_name, parameter.removeprefix("no_"), option)
        new_name = RENAMED.get(function_name, {}).get(parameter)
        if new_name is not None:
            option = "--" + new_name.replace("_", "-")
        present.append(f"{option}{equals}{value}")
    return present


def _refuse_removed(function_name: str, parameter: str, shown_as: str) -> None:
    advice = REMOVED.get(function_name, {}).get(parameter)
    if advice is not None:
        command = command_name(function_name)
        raise InputError(f"{command} {shown_as}: this option was removed; {advice}")
