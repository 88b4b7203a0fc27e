"""The folder that a training writes: resumable at any time, complete once `run.json` is there."""

from __future__ import annotations

import json
import pickle
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import init
from torch.overrides import TorchFunctionMode

from cxr_compare.configs.settings import KINDS
from cxr_compare.data_prep.contracts.atomic_files import atomic_path, write_text
from cxr_compare.data_prep.contracts.checksums import CHECKSUM_PLACEHOLDER, require_unchanged
from cxr_compare.data_prep.contracts.disk_space import make_folder
from cxr_compare.data_prep.contracts.errors import InputError, first_line
from cxr_compare.data_prep.contracts.json_files import read_json, write_json
from cxr_compare.data_prep.contracts.output_folders import require_only_files
from cxr_compare.data_prep.contracts.provenance import provenance
from cxr_compare.data_prep.contracts.schemas import SYNTHETIC_PATIENT
from cxr_compare.data_prep.contracts.tables import read_table, write_csv, write_table
from cxr_compare.data_prep.store.identify_folder import require_kind

WEIGHTS_FILE = "model.safetensors"
ARCHITECTURE_FILE = "model.json"
_HDF5 = b"\x89HDF\r\n\x1a\n"
_BLOCKED = re.compile(r"(?:GLOBAL|global) `?([\w.]+)")  # the class that weights_only refused
# Checkpoints hold figures of NumPy's beside the weights, such as the best loss.
_HARMLESS: list[Any] = [
    np.dtype,
    np.float64(0).__reduce__()[0],  # what rebuilds a scalar; its module moves between versions
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
]
_OLD_TIMM = re.compile(r"^trunk\.(?!network\.|pooled_norm\.)")
_DRAWS = {init.kaiming_uniform_, init.normal_, init.uniform_, Tensor.normal_, Tensor.uniform_}
_WRAPPERS = ("state_dict", "model", "model_state_dict")  # keys that others nest their weights in


def save_model(model: nn.Module, folder: Path) -> None:
    """Write a model's weights and `architecture`; each file appears whole or not at all."""
    # Contiguous and on the CPU: the file then does not depend on where the model was trained.
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    _write_weights(state, folder / WEIGHTS_FILE)
    save_architecture(model, folder)


def _write_weights(state: Mapping[str, Tensor], path: Path) -> None:
    """Write tensors by name, on the CPU and contiguous, as a sealed file of safetensors."""
    with atomic_path(path, with_checksum=True) as temporary:
        content = save(dict(state), metadata={"format": "pt"})  # transformers refuses others
        # save() itself writes several entries in any order, so that equal weights would differ.
        end = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:end])
        header["__metadata__"] |= CHECKSUM_PLACEHOLDER
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)
        temporary.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


def save_architecture(model: nn.Module, folder: Path) -> None:
    """Write a model's architecture alone, as `save_model` does; its weights may change yet."""
    write_json(folder / ARCHITECTURE_FILE, "model", {"architecture": model.architecture})


def read_architecture(folder: Path) -> dict[str, Any]:
    """``kind``, ``name`` and ``arguments`` of a run's model, as today's builders take them.

    Raises:
        InputError: The file is missing or damaged.
    """
    path = folder / ARCHITECTURE_FILE
    architecture = read_json(path, "model").get("architecture", {})
    arguments = architecture.get("arguments")
    if not isinstance(arguments, dict) or architecture.get("kind") not in KINDS:
        raise InputError(f"{path}: describes no model; was it written by another version?")
    # The names of before November 2026; and a stranger's run, which has weights of its own, must
    # not make this machine fetch others.
    if "name" in arguments:
        arguments["backbone"] = arguments.pop("name")
    old = ("trainable_layers", "weights")
    kept = {key: value for key, value in arguments.items() if key not in old}
    if architecture["kind"] == "detector":
        kept["architecture"] = str(architecture.get("name"))
    return architecture | {"arguments": kept}


class _Undrawn(TorchFunctionMode):
    """Draws no random values for weights, which a file replaces: most of the time of building."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        if func in _DRAWS:
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def load_model(folder: Path, builders: Mapping[str, Callable[..., nn.Module]]) -> nn.Module:
    """Build the model that `save_model` described and load its weights, in evaluation mode.

    Raises:
        InputError: A file is missing or damaged, or the weights are of another architecture.
    """
    path = folder / ARCHITECTURE_FILE
    architecture = read_architecture(folder)
    build, arguments = builders[architecture["kind"]], architecture["arguments"]
    state = read_weights(folder / WEIGHTS_FILE)
    is_timm = str(arguments.get("backbone")).startswith("timm:")
    if is_timm:  # the names of before November 2026
        state = {_OLD_TIMM.sub("trunk.network.", key): value for key, value in state.items()}
    try:
        with _Undrawn():
            if not is_timm:  # which may read values as it builds
                with torch.device("meta"):  # shapes alone: sizes that nobody trained take no memory
                    _require_fit(build(**arguments), state, folder / WEIGHTS_FILE)
            model = build(**arguments)
    except InputError as error:
        place = "" if str(error).startswith(str(folder)) else f"{path}: "
        raise InputError(f"{place}{error}") from None
    except (TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        reason = first_line(error)
        raise InputError(f"{path}: {reason}; was it written by another version?") from None
    _load_weights(model, state, folder / WEIGHTS_FILE)
    return model.eval()


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file, by name, to the CPU; never runs code from it.

    ``.safetensors``, or a ``.pth``, ``.pt`` or ``.ckpt`` of PyTorch; a state dictionary nested
    under ``state_dict``, ``model`` or ``model_state_dict`` is found.

    Raises:
        InputError: The file is missing, damaged, or holds something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such weights file")
    with path.open("rb") as file:
        start = file.read(len(_HDF5))
    if start == _HDF5:
        raise InputError(
            f"{path}: is an HDF5 file, as Keras writes it; only weights of PyTorch can be read: "
            "take another file"
        )
    require_unchanged(path, "weights")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(), torch.serialization.safe_globals(_HARMLESS):
            warnings.simplefilter("ignore", UserWarning)  # about pickles that it then refuses
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if blocked := _BLOCKED.search(str(error)):
            raise InputError(
                f"{path}: holds Python objects ({blocked[1]}), and reading those could run code; "
                "where you trust it, convert it as docs/weights.md shows, with its own program and "
                "torch.save(model.state_dict(), FILE)"
            ) from None
        raise _unreadable(path, error) from None
    except Exception as error:  # noqa: BLE001  torch's reader raises any kind on what is no pickle
        raise _unreadable(path, error) from None
    for wrapper in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: expected a dictionary of tensors, but got {type(content)}")
    others = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if others:
        raise InputError(f"{path}: {others[0]!r} is no tensor; save the model's state_dict() alone")
    return content


def _unreadable(path: Path, error: Exception) -> InputError:
    # For a damaged pickle torch first explains a change of its version 2.6; the cause is last.
    text = str(error).split("WeightsUnpickler error:")[-1].strip()
    reason = text.splitlines()[0].split(". ")[0][:200] if text else "empty"
    return InputError(
        f"{path}: cannot be read as weights ({reason}); is it damaged, or of another program?"
    )


def _load_weights(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Load weights that must fit a model exactly."""
    _require_fit(model, state, source)
    model.load_state_dict(state, strict=False)


def _require_fit(model: nn.Module, state: Mapping[str, Tensor], source: str | Path) -> None:
    """Refuse weights that are not exactly those of a model, by name and shape."""
    # Batch norm's step counters are absent from frozen layers and old files, and change nothing.
    expected, weights = (
        {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
        for tensors in (model.state_dict(), state)
    )
    differences = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "of another shape": [
            f"{key} {tuple(weights[key].shape)} instead of {tuple(value.shape)}"
            for key, value in expected.items()
            if key in weights and weights[key].shape != value.shape
        ],
    }
    lines = [
        f"{len(keys)} {kind} ({', '.join(keys[:2])}{', ...' * (len(keys) > 2)})"
        for kind, keys in differences.items()
        if keys
    ]
    if lines:
        raise InputError(
            f"{source}: weights of another architecture: {'; '.join(lines)}; check the model's "
            "settings, or take the file that belongs to them"
        )


_CONFIG, _STARTED, _RUN = "config.toml", "started.json", "run.json"


@dataclass(frozen=True)
class RunFolder:
    """A run: its configuration, what it saw, its history, checkpoints and weights."""

    folder: Path

    def __repr__(self) -> str:
        if not self.is_complete:
            return f"<RunFolder: its training has not ended, {self.folder}>"
        info = self.info
        kept = f"{info['model_kind']} of {info['target']}, epoch {info['best_epoch']} kept"
        return f"<RunFolder of '{info['name']}': {kept}, {self.folder}>"

    def __str__(self) -> str:
        """Which epoch was kept, and what to look at: of a complete run."""
        info = self.info
        kept = f"Best epoch {info['best_epoch']} of {info['epochs']}"
        if info["monitor"] == "epoch":  # it ends at its best, or has too few images to choose by
            kept = f"Kept the weights of the last epoch, {info['best_epoch']}"
        else:
            kept += f": {info['monitor']} {info['best_value']:.3f} on validation"
        figures = f"{self.folder / 'curves.png'}  {self.folder / 'batch.png'}"
        return f"{kept}\nRun:      {self.folder}\nFigures:  {figures}"

    @classmethod
    def create(
        cls, folder: str | Path, *, config: str, seen: pd.DataFrame, started: dict[str, Any]
    ) -> RunFolder:
        """Start a run in a new or empty folder.

        Of its resolved configuration, TOML, every image used to fit or to select (``image_id,
        patient_id, role``), and what a resumed training must find unchanged, such as data set ids.
        """
        folder = Path(folder)
        cls.require_free(folder)
        run = cls(folder)
        make_folder(run.checkpoints)
        write_table(seen, folder / "seen.parquet", "seen")
        write_json(folder / _STARTED, "started_run", {**started, **provenance()})
        seal = "".join(f"# {key} = {value}\n" for key, value in CHECKSUM_PLACEHOLDER.items())
        write_text(run.config_file, config + seal, with_checksum=True)
        return run

    @staticmethod
    def require_free(folder: str | Path) -> None:
        """Refuse a folder that holds a run, or anything else."""
        folder = Path(folder)
        if (folder / _CONFIG).exists():
            raise InputError(
                f"{folder}: holds a run already; leave out --no-resume to go on with it, or "
                "choose another --out"
            )
        # A start that was interrupted before its last file left only these: it may start again.
        require_only_files(folder, {"checkpoints", "seen.parquet", _STARTED}, "run")

    @classmethod
    def started_in(cls, folder: str | Path) -> RunFolder | None:
        """The run that was started in a folder, complete or not; None where there is none."""
        folder = Path(folder)
        return cls(folder) if (folder / _CONFIG).is_file() else None

    @classmethod
    def open(cls, folder: str | Path) -> RunFolder:
        """Open a complete run.

        Raises:
            InputError: There is no run, or its training has not ended.
        """
        run = cls.started_in(folder)
        if run is None:
            require_kind(Path(folder), "run")
            raise InputError(f"{folder}: holds no {_CONFIG}; give a folder that cxr train made")
        if not run.is_complete:
            kept = max(run.checkpoints.glob("best-*.safetensors"), default=None)
            start = "" if kept is None else f", or start another with --set model.weights={kept}"
            raise InputError(
                f"{folder}: this training has not ended (no {_RUN}); run the same cxr train "
                f"again to go on{start}"
            )
        return run

    @property
    def is_complete(self) -> bool:
        """Whether the training ended and the weights are in place."""
        return (self.folder / _RUN).is_file()

    @property
    def checkpoints(self) -> Path:
        """Folder of what a resumed training needs."""
        return self.folder / "checkpoints"

    @property
    def last_checkpoint(self) -> Path:
        """State at the end of the last whole epoch."""
        return self.checkpoints / "last.ckpt"

    def best_weights(self, epoch: int) -> Path:
        """Weights of an epoch that was the best so far."""
        return self.checkpoints / f"best-{epoch:04d}.safetensors"

    def write_best(self, epoch: int, weights: Mapping[str, Tensor]) -> None:
        """Write the weights of an epoch that is the best so far."""
        state = {name: value.contiguous() for name, value in weights.items()}
        _write_weights(state, self.best_weights(epoch))

    @property
    def validation(self) -> Path:
        """Predictions of the validation images, and the decision chosen on them."""
        return self.folder / "validation"

    def decision_file(self, target: str) -> Path:
        """What was chosen for a target on the validation images, for single images."""
        return self.validation / "decisions" / f"{target}.json"

    @property
    def config_file(self) -> Path:
        """Where the resolved configuration lies."""
        return self.folder / _CONFIG

    @property
    def config(self) -> str:
        """The resolved configuration, TOML."""
        require_unchanged(self.config_file, "config")
        try:
            return self.config_file.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.config_file}: {error}; bring back an unchanged copy") from None

    @property
    def started(self) -> dict[str, Any]:
        """What was recorded at the start."""
        return read_json(self.folder / _STARTED, "started_run")

    @property
    def info(self) -> dict[str, Any]:
        """What was recorded at the end."""
        return read_json(self.folder / _RUN, "run")

    @property
    def seen(self) -> pd.DataFrame:
        """Every image used to fit or to select: ``image_id, patient_id, role``, `FINGERPRINTS`."""
        return read_table(self.folder / "seen.parquet", "seen")

    @property
    def synthetic(self) -> bool:
        """Whether it and what it started from learned from synthetic images alone, if known."""
        recorded = self.info if self.is_complete else self.started
        if (known := recorded.get("synthetic")) is not None:
            return bool(known)
        seen = self.seen  # of older versions' runs, all that is known
        named = seen.loc[seen["role"] == "train", "patient_id"].str.contains(SYNTHETIC_PATIENT)
        return bool(len(named)) and bool(named.all())

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write `metrics.csv`, one row per epoch."""
        write_csv(pd.DataFrame(list(rows)), self.folder / "metrics.csv", float_format="%.6g")

    def complete(self, payload: dict[str, Any]) -> None:
        """Write `run.json`, which marks the run complete; what `create` recorded is added."""
        write_json(self.folder / _RUN, "run", {**self.started, **payload})
