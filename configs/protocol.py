"""Read `protocol.toml`: the question of a comparison, fixed before its figures are seen."""

from __future__ import annotations

import hashlib
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from configs.schema import ConfigError, known_keys, suggestion
from configs.settings import Section

Name = Annotated[str, Field(min_length=1)]


class ProtocolFile(Section):
    """The keys of a protocol."""

    target: Name = Field(description="What is judged.")
    metric: Name = Field(default="auroc", description="The primary figure, by its short name.")
    policy: str = Field(default="", description="Threshold policy of that figure; empty: none.")
    margin: float | None = Field(
        default=None, gt=0, lt=1, description="Of non-inferiority and equivalence."
    )
    subgroups: list[Name] = Field(default=[], description="Columns whose groups are reported.")
    reference: Name | None = Field(default=None, description="Reference system; None: the first.")
    unit: Literal["image", "study", "patient"] | None = Field(
        default=None, description="What the answer is for; None: images, --unit shows others too."
    )
    interval: Literal["percentile", "bca"] = Field(
        default="percentile", description="How the bootstrap's resamples become an interval."
    )


def read_protocol(path: Path) -> tuple[ProtocolFile, str]:
    """Read and check a protocol.

    Args:
        path: A TOML file.

    Returns:
        The protocol, and the SHA-256 of the file.

    Raises:
        ConfigError: The file cannot be read, a key is unknown (names the nearest) or missing, or
            a value has the wrong type or lies outside its range.
    """
    try:
        content = path.read_bytes()
        keys = tomllib.loads(content.decode("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: is not TOML: {error}") from None
    try:
        return ProtocolFile(**keys), hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        errors = error.errors(include_url=False, include_context=False)
    first = min(errors, key=lambda each: each["type"] != "extra_forbidden")
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        known = known_keys(ProtocolFile)
        raise ConfigError(f"{path}: {key}: unknown key{suggestion(key, known)}")
    if first["type"] == "missing":
        raise ConfigError(f"{path}: {key}: is missing; add it")
    message = first["msg"][:1].lower() + first["msg"][1:]
    raise ConfigError(f"{path}: {key}: {message}, got {first['input']!r}")
