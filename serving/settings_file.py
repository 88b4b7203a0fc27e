"""The TOML file with settings of `cxr serve` and `cxr pacs`: limits, addresses and models.

Each key has a default, so the file holds only the keys that differ. An unknown key or a value of
the wrong type is refused with one line. For an unknown key the line suggests the most similar known
key.
"""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.text_files import read_toml_file


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ModelSection(_Section):
    """Keys of the section ``[models]``: how `cxr serve` and `cxr pacs` compute predictions.

    Attributes:
        policy: Name of the policy (rule that chose a threshold on validation images) whose
            threshold decides; None takes ``max_f1``.
        backend: Program that computes the networks: ``torch``, ``onnx``, ``openvino``, or ``auto``
            for the fastest. None takes ``torch`` for a run (folder of a training), and the program
            of its format for an export.
        precision: Number format of the computation: ``fp32``, ``bf16`` or ``int8``. None takes
            ``fp32`` for a run, and its own format for an export.
        device: ``cpu`` for the processor, ``cuda`` for a GPU; ``auto`` takes a GPU if there is one.
    """

    policy: str | None = Field(
        default=None, description="Operating point of the runs that decides; by default max_f1."
    )
    backend: Literal["torch", "onnx", "openvino", "auto"] | None = Field(
        default=None,
        description="Program that computes: torch (by default with a run), onnx, openvino or auto, "
        "the fastest of all.",
    )
    precision: Literal["fp32", "bf16", "int8"] | None = Field(
        default=None, description="Precision of the computation; by default fp32 with a run."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto",
        description="Processor (cpu) or GPU (cuda); auto takes a GPU if there is one.",
    )


class ServeSection(_Section):
    """Keys of the section ``[serve]``: limits of the web server that `cxr serve` starts.

    Attributes:
        max_mib: Largest upload, MiB.
        max_megapixels: Largest image, megapixels.
        seconds: Time limit of a request, seconds.
        queue: Number of images that may wait; further ones are refused with status 429.
        batch_size: Number of images predicted at a time; None takes the number of the model.
        workers: Number of processes that decode uploads.
        rate: Requests a second that one client may send; 0 sets no limit.
        strict: True refuses an image with a warning (status 422), such as one that is no frontal
            chest X-ray; False predicts it without a decision.
        examples: Folder of example images that the web page offers; None offers synthetic images.
        allowed_hosts: Names by which clients may call the server, beside its address.
    """

    max_mib: int = Field(default=64, ge=1, le=512, description="Largest upload, MiB.")
    max_megapixels: int = Field(default=100, ge=1, le=100, description="Largest image, megapixels.")
    seconds: float = Field(default=30.0, ge=0.1, description="Time limit of a request, seconds.")
    queue: int = Field(
        default=64, ge=1, description="Images that may wait; more are refused with status 429."
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="Images predicted at a time; by default the model's."
    )
    workers: int = Field(default=1, ge=1, description="Processes that decode uploads.")
    rate: float = Field(
        default=0.0, ge=0, description="Requests a second that one client may send; 0: no limit."
    )
    strict: bool = Field(
        default=False,
        description="Refuse an image with a warning (status 422) instead of answering.",
    )
    examples: Path | None = Field(
        default=None, description="Folder of example images; by default phantoms."
    )
    allowed_hosts: list[str] = Field(
        default=[], description="Names by which clients may call the server, beside its address."
    )

    @field_validator("examples")
    @classmethod
    def _require_folder(cls, examples: Path | None) -> Path | None:
        if examples is not None and not examples.is_dir():
            raise ValueError("is not a folder")
        return examples


_Modality = Annotated[str, Field(pattern=r"^[A-Z0-9 _]{1,16}$")]


class PacsSection(_Section):
    """Keys of the section ``[pacs]``: how `cxr pacs` talks to the archive (PACS).

    Attributes:
        modalities: Modalities to fetch, as DICOM codes such as ``CR``.
        limit: Largest number of images to fetch in one search; None fetches all.
        patience: Seconds for which an archive may not answer.
        ae_title: AE title of this program as a sender.
        callers: AE titles that may send images to this program; empty allows every sender.
        tls_cert: PEM file with the key and certificate of this program; None for no TLS.
        tls_ca: PEM file of the authority that signs certificates of DICOM peers.
        strict: True skips an image with a warning, such as one that is no frontal chest X-ray.
    """

    modalities: list[_Modality] = Field(
        default=["CR", "DX"], min_length=1, description="Modalities to fetch, as DICOM codes."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Most images to fetch in one search; by default all."
    )
    patience: float = Field(
        default=60.0, ge=0, description="Seconds for which an archive may not answer."
    )
    ae_title: str = Field(
        default="CXR-COMPARE", description="AE title as a sender; with --listen that of --listen."
    )
    callers: list[str] = Field(
        default=[], description="AE titles that may send to --listen; empty: every sender."
    )
    tls_cert: Path | None = Field(
        default=None,
        description="PEM file with the station's key and certificate: TLS for --listen and for "
        "--send-to AE@HOST:PORT. Needs tls_ca.",
    )
    tls_ca: Path | None = Field(
        default=None,
        description="PEM file of the authority that signs certificates of DICOM peers.",
    )
    strict: bool = Field(default=False, description="Skip an image with a warning.")


class SettingsFile(_Section):
    """Content of the settings file of `cxr serve` and `cxr pacs`, one attribute for each section.

    Attributes:
        models: How both commands compute predictions.
        serve: Limits of the web server that `cxr serve` starts.
        pacs: How `cxr pacs` fetches and receives images and sends results.

    Example:
        >>> SettingsFile().serve.max_mib
        64
    """

    models: ModelSection = ModelSection()
    serve: ServeSection = ServeSection()
    pacs: PacsSection = PacsSection()


def read_settings_file(path: Path | None) -> SettingsFile:
    """Read and check a settings file of `cxr serve` or `cxr pacs`.

    Args:
        path: A TOML file; None gives the defaults.

    Returns:
        The settings; keys that the file leaves out have their defaults.

    Raises:
        InputError: The file cannot be read, a key is unknown, or a value is of the wrong type or
            out of range. The line names the file, the key and what it may be.
    """
    if path is None:
        return SettingsFile()
    content = read_toml_file(path)
    try:
        return SettingsFile.model_validate(content)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
    problem = min(problems, key=lambda item: item["type"] != "extra_forbidden")
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "extra_forbidden":
        raise InputError(f"{path}: {key}: unknown key{_suggestion(key)}")
    message = re.sub("^(Value error, )?", "", problem["msg"])
    raise InputError(f"{path}: {key}: {message[:1].lower()}{message[1:]}, got {problem['input']!r}")


def settings_keys() -> dict[str, str]:
    """Return the description of each key of the settings file of `cxr serve` and `cxr pacs`.

    Returns:
        Description by ``section.key``.

    Example:
        >>> settings_keys()["serve.max_mib"]
        'Largest upload, MiB.'
    """
    sections: dict[str, type[_Section]] = {
        "models": ModelSection,
        "serve": ServeSection,
        "pacs": PacsSection,
    }
    return {
        f"{name}.{key}": field.description or ""
        for name, section in sections.items()
        for key, field in section.model_fields.items()
    }


def _suggestion(key: str) -> str:
    """Return the nearest key as advice, or the sections where none is near."""
    keys = list(settings_keys())
    leaf = key.rpartition(".")[2].replace("-", "_")
    for known in keys:
        if known.rpartition(".")[2] == leaf:
            return f"; did you mean '{known}'?"
    nearest = difflib.get_close_matches(key, keys, n=1, cutoff=0.7)
    if not nearest:
        names = {known.rpartition(".")[2]: known for known in keys}
        near_names = difflib.get_close_matches(leaf, names, n=1, cutoff=0.7)
        nearest = [names[name] for name in near_names]
    if nearest:
        return f"; did you mean '{nearest[0]}'?"
    return "; the sections are models, serve and pacs"
