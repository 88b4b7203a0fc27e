"""Options that several commands share, and the split that a command works on by default."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeAlias

from cxr_compare import configs
from cxr_compare.data_prep.contracts.errors import InputError, counted
from cxr_compare.data_prep.contracts.own_parts import part_name
from cxr_compare.data_prep.contracts.processors import cpu_count
from cxr_compare.data_prep.store.identify_folder import join_command, read_marker
from cxr_compare.data_prep.store.prediction_info import MadeOn, PredictionsInfo
from cxr_compare.scripts.outcome import Outcome
from cxr_compare.scripts.parameters import AnyPath, Argument
from cxr_compare.serving.export_spec import ExportSpec, is_export
from cxr_compare.training.run_info import RunInfo

if TYPE_CHECKING:
    from cxr_compare.data_prep.dataset import DataSet
    from cxr_compare.data_prep.work.map_images import Workers

_SAMPLE_SEED = 0

DataFolder = Annotated[
    AnyPath, Argument(folder_kind="data set", help="Data set that cxr prepare made.")
]


def _read_names(value: str | Iterable[str]) -> tuple[str, ...]:
    """Return names from a text with commas, or from several texts.

    Example:
        >>> _read_names("precision, recall,"), _read_names(["f1"])
        (('precision', 'recall'), ('f1',))
    """
    texts: list[Any] = [value] if isinstance(value, str) or callable(value) else [*value]
    texts = [part_name(text) for text in texts]
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"expected names as texts, got a value of type {type(text).__name__}")
    return tuple(name.strip() for text in texts for name in text.split(",") if name.strip())


Names = Annotated[tuple[Any, ...], Argument(read=_read_names)]  # from Python also functions


def read_numbers(value: str | float | Iterable[str | float]) -> tuple[float, ...]:
    """Return the numbers in a text with commas, or in several such texts.

    Example:
        >>> read_numbers("0.85,0.80"), read_numbers([3, 4])
        ((0.85, 0.8), (3.0, 4.0))
    """
    texts = [value] if isinstance(value, str | int | float) else value
    try:
        return tuple(map(float, _read_names(map(str, texts))))
    except ValueError:
        raise ValueError("are not numbers with commas") from None


def _read_counts(value: str | float | Iterable[str | float]) -> tuple[int, ...]:
    """Return whole numbers from 1 on, each once."""
    numbers = read_numbers(value)
    if any(number != int(number) for number in numbers):
        raise ValueError("are not whole numbers")
    if any(number < 1 for number in numbers):
        raise ValueError("give 1 or more")
    return tuple(dict.fromkeys(map(int, numbers)))


Counts = Annotated[tuple[int, ...], Argument(read=_read_counts, metavar="N[,N...]")]


def _read_images(value: str | float | Iterable[str | float]) -> tuple[int | str, ...]:
    """Return whole numbers from 1 on, or names of data sets, each once."""
    texts = _read_names(map(str, [value] if isinstance(value, str | int | float) else value))
    return tuple(t if t in ("rsna", "nih") else _read_counts(t)[0] for t in dict.fromkeys(texts))


Images = Annotated[tuple[int | str, ...], Argument(read=_read_images, metavar="N,rsna,nih")]


SettingsGiven: TypeAlias = str | Sequence[str] | Mapping[str, Any]
"""New values of configuration keys: texts ``section.key=value``, or values by section and key."""


def read_settings(value: SettingsGiven) -> list[str] | dict[str, Any]:
    """Return new values of configuration keys in a uniform form, from any form a user may give.

    A mapping may be nested by section, such as ``{"training": {"epochs": 2}}``, and becomes flat;
    texts stay texts.

    Example:
        >>> read_settings({"training": {"epochs": 2}, "model.weights": Path("a.pth")})
        {'training.epochs': 2, 'model.weights': 'a.pth'}
    """
    if isinstance(value, str):
        return [value]
    if not isinstance(value, Mapping):
        return list(value)
    return _flat_settings(value)


def _flat_settings(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return values by ``section.key``, from values by section and key."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flat_settings({f"{key}.{name}": part for name, part in item.items()})
        else:
            flat[key] = str(item) if isinstance(item, Path) else item
    return flat


def settings_words(value: SettingsGiven) -> list[str]:
    """Return new values of configuration keys as texts ``section.key=value``.

    Example:
        >>> settings_words({"training": {"epochs": 2}, "model.weights": "none"})
        ['training.epochs=2', 'model.weights="none"']
    """
    settings = read_settings(value)
    if not isinstance(settings, Mapping):
        return list(settings)
    return [f"{key}={json.dumps(item)}" for key, item in settings.items()]


Settings = Annotated[
    SettingsGiven | None,
    Argument(
        read=read_settings,
        write=settings_words,
        metavar="KEY=VALUE",
        help="Replace a key of the configuration, such as training.epochs=20 or "
        "model.architecture=fcos; cxr configs NAME shows every key.",
    ),
]


def config_names() -> list[str]:
    """Return the names of the training configurations that come with the program, sorted.

    The shell offers them as completions, such as ``retinanet_small``.
    """
    return sorted(path.stem for path in Path(configs.__path__[0]).glob("*.toml"))


def read_roles(value: str | Sequence[str] | Mapping[str, str]) -> tuple[str, ...]:
    """Return which column of a table contains what, as texts ROLE=COLUMN.

    ROLE says what the column contains, such as ``label``; COLUMN is its name in the table.

    Example:
        >>> read_roles("label=Finding,xmin=left"), read_roles({"label": "Finding"})
        (('label=Finding', 'xmin=left'), ('label=Finding',))
    """
    if isinstance(value, Mapping):
        return tuple(f"{role}={column}" for role, column in value.items())
    return _read_names(value)


def read_target(text: str) -> tuple[str, tuple[str, ...]]:
    """Read the definition of a target from a text NAME=FINDING,FINDING.

    Raises InputError if the name or the findings are missing.

    Example:
        >>> read_target("opacity=lung_opacity,pneumonia")
        ('opacity', ('lung_opacity', 'pneumonia'))
    """
    name, _, members = text.partition("=")
    findings = tuple(member.strip() for member in members.split(",") if member.strip())
    if not name.strip() or not findings:
        raise InputError(f"--target {text!r}: write NAME=FINDING,FINDING")
    return name.strip(), findings


def uses_cluster() -> bool:
    """Return True if ``CXR_ENGINE=ray`` asks for a Ray cluster, False for this machine alone.

    Raises InputError if the engine is unknown, or an address is set without the engine ``ray``.
    """
    name = os.environ.get("CXR_ENGINE") or "local"
    address = os.environ.get("CXR_ADDRESS")
    if name not in ("local", "ray"):
        raise InputError(f"CXR_ENGINE={name}: is none of local, ray")
    if name == "local" and address:
        raise InputError(
            f"CXR_ADDRESS={address}: is for a Ray cluster; set CXR_ENGINE=ray, too, or unset "
            "CXR_ADDRESS"
        )
    return name == "ray"


Shards = Annotated[
    Sequence[AnyPath],
    Argument(
        metavar="DIR",
        takes_words=True,
        help="Folders of all shards that this command made with CXR_SHARD (docs/scale.md). They "
        "are joined in place of computing. Give the other options as for the shards.",
    ),
]


def shard_outcome(folder: Path, n_images: int) -> Outcome:
    """Return the result of a command that made the folder of a shard."""
    record = read_marker(folder)
    text = (
        f"{folder}: shard {record['number']} of {record['count']} is complete, with "
        f"{counted(n_images, 'image')} of {record['n_rows']:,}; join the shards when all are"
    )
    payload = {"folder": str(folder), "images": n_images, **record}
    return Outcome(text, payload, next_steps=(join_command(folder, record),))


@contextmanager
def open_workers(processes: int | None = None) -> Iterator[Workers]:
    """Open what the environment variables choose for decoding and predicting images.

    Learning curves train there as well. ``CXR_ENGINE`` is ``local`` (the default:
    processes of this machine) or ``ray``. ``CXR_ADDRESS`` names the Ray cluster to join: ``auto``
    or HOST:PORT. Without an address the command starts a cluster on this machine, which ends with
    the ``with`` block.

    `processes` None uses all processors. Raises InputError if the variables contradict each other,
    or there is no such cluster.
    """
    if uses_cluster():
        from cxr_compare.data_prep.work.ray_cluster import open_cluster

        with open_cluster(os.environ.get("CXR_ADDRESS") or None, processes) as cluster:
            yield cluster
    else:
        yield cpu_count() if processes is None else processes


Policy = Annotated[
    str | None,
    Argument(
        help="Policy (rule that chose a threshold on validation images) whose threshold decides, "
        "such as sensitivity>=0.95. By default it is the threshold that was declared for the run, "
        "or else that of max_f1."
    ),
]
Backend = Annotated[
    Literal["torch", "onnx", "openvino", "auto"] | None,
    Argument(
        help="Program that computes the network: torch (the default for a run), onnx or openvino "
        "(an export of the run by cxr export), or auto, the fastest of those with the given "
        "--precision."
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16", "int8"] | None,
    Argument(
        help="Number format of the computation: fp32 (the default for a run), or the faster bf16 "
        "or, for exports only, int8. A threshold that was chosen in one format does not fit "
        "another."
    ),
]
Device = Annotated[
    str,
    Argument(
        help="cpu computes on the processor, cuda on a GPU. auto takes a GPU if there is one."
    ),
]
Devices = Annotated[
    int,
    Argument(
        minimum=1,
        help="GPUs that share each batch of a training. On a processor: processes that do so.",
    ),
]


DespiteAudit = Annotated[
    bool,
    Argument(
        help="Train although the audit found an error. The figures of such a training may be wrong."
    ),
]

_USUAL_SPLIT = "default"


def choose_images(dataset: DataSet, named: list[str] | None, split: str, limit: int) -> list[str]:
    """Return the images that the user names, or at most `limit` random test images, sorted.

    Raises InputError if a named image is unknown, or the split has no test image.
    """
    import numpy as np

    if named:
        present = set(dataset.images["image_id"])
        unknown = [image_id for image_id in named if image_id not in present]
        if unknown:
            raise InputError(f"{dataset.folder}: has no image '{unknown[0]}'")
        return list(dict.fromkeys(named))
    ids = dataset.image_ids("test", split)
    if not len(ids):
        raise InputError(f"{dataset.folder}: split '{split}' has no test image")
    count = min(limit, len(ids))
    return sorted(np.random.default_rng(_SAMPLE_SEED).choice(ids.to_numpy(), count, replace=False))


def own_split(split: str | None, sources: Iterable[Path], dataset: DataSet) -> str:
    """Return the name of the split to use: the one that the user names, or that of the models.

    A split says which images of a data set are for training, validation and test. The default is
    the split that the models learned on. On another split, a model has often learned from the
    images that it would be evaluated on.

    `sources` are trainings or predictions; without one it is ``default``. Raises InputError if they
    were made on different splits and `split` is None.
    """
    if split is not None:
        return split
    # A missing folder is reported by the command that opens it.
    found = {source: _split_of(source, dataset) for source in sources if source.exists()}
    names = sorted(set(found.values()))
    if len(names) > 1:
        each = ", ".join(f"{source} '{name}'" for source, name in found.items())
        raise InputError(f"made on different splits: {each}; choose one with --split")
    return names[0] if names else _USUAL_SPLIT


def _split_of(source: Path, dataset: DataSet) -> str:
    made_on = _data_set_of(source)
    if made_on is None or made_on.content_id != dataset.ids.content_id:
        return _USUAL_SPLIT
    is_known = made_on.split in dataset.ids.split_ids
    return made_on.split if made_on.split and is_known else _USUAL_SPLIT


def _data_set_of(source: Path) -> MadeOn | None:
    """Return the data set that predictions, a run or an export were made from."""
    if (source / "predictions.json").is_file():
        return PredictionsInfo.read(source / "predictions.json").data_set
    if (source / "run.json").is_file():
        return RunInfo.read(source / "run.json").data_set
    if is_export(source):
        return ExportSpec.open(source).run.data_set
    return None  # the command that opens the folder reports what is wrong with it


def split_name(system: str) -> tuple[str | None, Path]:
    """Separate a text ``NAME=PATH`` into the name of a detector or classifier and its folder.

    A text without ``=`` has no name. A text that is an existing path is taken as a path.

    Raises InputError if the name or the path is empty.

    Example:
        >>> split_name("A=out/a"), split_name("out/a")
        (('A', PosixPath('out/a')), (None, PosixPath('out/a')))
    """
    name, equals, path = system.partition("=")
    if not equals or Path(system).exists():
        return None, Path(system)
    if not name or not path:
        raise InputError(f"{system}: expected NAME=PATH")
    return name, Path(path)
