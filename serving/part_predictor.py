"""A data set predicted part by part in worker processes, each of which loads the model once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from data_prep.contracts.addresses import twin_root
from data_prep.contracts.engines import Engine
from data_prep.contracts.errors import InputError
from data_prep.contracts.mirror import bring_named
from data_prep.store.pixel_store import PixelStore
from data_prep.store.pixel_writer import INFO_NAME
from data_prep.store.predictions import Part, joined_parts

if TYPE_CHECKING:
    import pandas as pd

    from classification.saliency import MapMethod
    from data_prep.augment.views import View
    from serving.exported.exported_model import ExportedModel
    from serving.trained_model import Precision, TrainedModel


@dataclass(frozen=True)
class _Folder:
    """A folder that the command has at hand; another machine brings what lies in a store."""

    path: Path
    machine: str

    def here(self) -> Path:
        return self.path if self.machine == _machine() else bring_named(self.path)


def _machine() -> str:
    """What tells a machine, and a cache on it, from another."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{os.uname().nodename} {boot.read_text() if boot.is_file() else ''} {twin_root()}"


@dataclass(frozen=True)
class _Opening:
    """How a worker opens the model that the command opened; hashable."""

    folder: _Folder
    backend: str
    precision: Precision | str
    views: tuple[View, ...] = ()
    maps: MapMethod = "cam"
    names: tuple[tuple[str, str], ...] | None = None


@dataclass(frozen=True)
class _Images:
    """Some images of a part: their ids, and ``image_id, width, height`` of the originals, px."""

    ids: pd.Index
    sizes: pd.DataFrame


@dataclass(frozen=True)
class _PartPredictor:
    """Predicts the images of one part: a pure function of them."""

    model: _Opening
    store: _Folder
    batch_size: int
    many: bool

    def __call__(self, images: _Images) -> Part:
        store = _open_store(self.store)
        if self.model.backend == "torch":
            batches = _open_trained(self.model).predict(
                store, images.ids, images.sizes, self.batch_size
            )
        else:
            batches = _open_exported(self.model).predict(
                store, images.ids, images.sizes, self.batch_size, many=self.many
            )
        return joined_parts(list(batches))


@lru_cache(maxsize=1)
def _open_store(folder: _Folder) -> PixelStore:
    path = folder.here()
    if folder.path != path and not (path / INFO_NAME).is_file():
        raise InputError(
            f"{path}: is not in the store yet, where other machines look for it; predict this data "
            "set once without --engine, or prepare it at this size"
        )
    return PixelStore.open(path)


@lru_cache(maxsize=1)
def _open_trained(how: _Opening) -> TrainedModel:
    from serving.trained_model import TrainedModel

    precision: Literal["fp32", "bf16"] = "bf16" if how.precision == "bf16" else "fp32"
    model = TrainedModel.open(
        how.folder.here(), precision=precision, views=how.views, maps=how.maps
    )
    return model if how.names is None else model.with_names(dict(how.names))


@lru_cache(maxsize=1)
def _open_exported(how: _Opening) -> ExportedModel:
    from serving.exported.exported_model import ExportedModel

    model = ExportedModel.open(how.folder.here())
    return model if how.names is None else model.with_names(dict(how.names))


def predict_parts(
    engine: Engine,
    model: TrainedModel | ExportedModel,
    store: PixelStore,
    image_ids: pd.Index,
    sizes: pd.DataFrame,
    batch_size: int,
    part_size: int,
) -> Iterator[Part]:
    """Predict images as the model itself does, in the processes of an engine.

    Batches hold the same images as those of ``model.predict``, so that tables are equal to it byte
    for byte.

    Args:
        engine: Where.
        model: What predicts; on processors.
        store: Pixels.
        image_ids: Which images, in which order.
        sizes: ``image_id, width, height`` of the originals, px.
        batch_size: Images at a time.
        part_size: Images that a worker predicts before it answers, at least; whole batches.

    Yields:
        One part for about so many images.

    Raises:
        InputError: A worker could not open model or store, or ended whenever it tried a part.
    """
    predictor = _PartPredictor(
        _opening(model),
        _Folder(store.folder, _machine()),
        batch_size,
        many=len(image_ids) > batch_size,
    )
    step = -(-part_size // batch_size) * batch_size
    ordered = sizes.set_index("image_id").reindex(image_ids).rename_axis("image_id")

    def parts() -> Iterator[_Images]:
        for start in range(0, len(image_ids), step):
            of_part = ordered.iloc[start : start + step].reset_index()
            yield _Images(image_ids[start : start + step], of_part)

    return engine.map_rows(predictor, parts(), lost=_lost, reads=[model.folder, store.folder])


def _opening(model: TrainedModel | ExportedModel) -> _Opening:
    names: Mapping[str, str] | None = model.names
    return _Opening(
        _Folder(model.folder, _machine()),
        model.backend,
        model.precision,
        getattr(model, "views", ()),
        cast("MapMethod", model.maps),
        None if names is None else tuple(names.items()),
    )


def _lost(images: _Images) -> Part:
    raise InputError(
        f"the process that predicts images '{images.ids[0]}' to '{images.ids[-1]}' ended whenever "
        "it was tried, for want of memory perhaps; run the same command again to go on"
    )
