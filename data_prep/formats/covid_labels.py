"""What the words of published COVID-19 sets mean: findings, targets, and where images come from."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urlsplit

import pandas as pd

from data_prep.formats.common import display_name, finding_name

COVID = "covid_19"
_JUDGED = (
    COVID, "pneumonia", "lung_opacity", "viral_pneumonia", "bacterial_pneumonia",
    "fungal_pneumonia", "tuberculosis",
)  # fmt: skip
_KINDS = ("viral", "bacterial", "fungal", "lipoid", "aspiration")
_UNKNOWN = {"", "todo", "unknown", "unclear"}
# There, the host alone names many sources.
_PLATFORMS = ("github.com", "kaggle.com")


def covid_targets(findings: set[str]) -> dict[str, dict[str, Any]]:
    """A target for each finding that is worth judging; rare germs stay findings only.

    Example:
        >>> covid_targets({"covid_19", "legionella"})
        {'covid_19': {'any_of': ['covid_19'], 'display_name': 'COVID-19'}}
    """
    return {
        name: {
            "any_of": [name],
            "display_name": "COVID-19" if name == COVID else display_name(name),
        }
        for name in _JUDGED
        if name in findings
    }


def origin_of(address: str) -> str:
    """Where an image was taken from: the host, and on a platform the owner and set, too.

    Example:
        >>> origin_of("https://www.sirm.org/en/category/articles/")
        'sirm.org'
        >>> origin_of("https://github.com/armiro/COVID-CXNet/tree/master")
        'github.com/armiro/covid-cxnet'
    """
    try:
        parts = urlsplit(address.strip().lower())
    except ValueError:
        return ""
    host = parts.netloc.removeprefix("www.")
    names = [name for name in parts.path.split("/") if name]
    return "/".join([host, *names[:2]]) if host in _PLATFORMS else host


def origins_of(addresses: pd.Series) -> pd.Series:
    """`origin_of` each address; missing where there is none."""
    known = {address: origin_of(address) for address in addresses.unique()}
    origins = addresses.map(known)
    return origins.where(origins != "").astype("str")


def path_findings(cell: str) -> list[str]:
    """Take a published finding apart: each part of the path is one.

    Returns:
        Names of findings; ``no_finding`` for a healthy image; nothing where it is not known.

    Example:
        >>> path_findings("Pneumonia/Viral/COVID-19")
        ['pneumonia', 'viral_pneumonia', 'covid_19']
        >>> path_findings("COVID-19, ARDS"), path_findings("todo")
        (['covid_19', 'ards'], [])
    """
    names = [finding_name(part) for part in re.split("[/,]", cell)]
    return [f"{n}_pneumonia" if n in _KINDS else n for n in names if n not in _UNKNOWN]
