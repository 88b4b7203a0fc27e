"""A data set predicted part by part in worker processes, each of which loads the model once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from data_prep.contracts.errors import InputError
from data_prep.store.pixel_store import INFO_NAME, PixelStore
from data_prep.store.predictions import Part, joined_parts
from data_prep.work.local_copies import local_folder
from data_prep.work.object_store import address_of
from data_prep.work.pool import Engine

if TYPE_CHECKING:
    import pandas as pd

    from classification.saliency import MapMethod
    from data_prep.augment.views import View
    from serving.exported.exported_model import ExportedModel
    from serving.trained_model import Precision, TrainedModel


@dataclass(frozen=True)
class _Opening:
    """How a worker opens the model that the command opened; hashable."""

    folder: Path
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
    store: Path
    batch_size: int
    many: bool

    def __call__(self, images: _Images) -> Part:
        store, model = _open_store(self.store), _open_model(self.model)
        options = {} if self.model.backend == "torch" else {"many": self.many}
        return joined_parts(
            list(model.predict(store, images.ids, images.sizes, self.batch_size, **options))
        )


def _here(folder: Path) -> Path:
    """A folder of the command's machine on this one, which fetches what lies in a store."""
    return local_folder(address_of(folder) or folder)


@lru_cache(maxsize=1)
def _open_store(folder: Path) -> PixelStore:
    path = _here(folder)
    if path != folder and not (path / INFO_NAME).is_file():
        raise InputError(
            f"{path}: is not in the store yet, where other machines look for it; predict this data "
            "set once without --engine, or prepare it at this size"
        )
    return PixelStore.open(path)


@lru_cache(maxsize=1)
def _open_model(how: _Opening) -> TrainedModel | ExportedModel:
    model: TrainedModel | ExportedModel
    if how.backend == "torch":
        from serving.trained_model import TrainedModel

        precision: Literal["fp32", "bf16"] = "bf16" if how.precision == "bf16" else "fp32"
        model = TrainedModel.open(
            _here(how.folder), precision=precision, views=how.views, maps=how.maps
        )
    else:
        from serving.exported.exported_model import ExportedModel

        model = ExportedModel.open(_here(how.folder))
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
    opening = _Opening(
        model.folder,
        model.backend,
        model.precision,
        getattr(model, "views", ()),
        cast("MapMethod", model.maps),
        None if model.names is None else tuple(model.names.items()),
    )
    predictor = _PartPredictor(opening, store.folder, batch_size, len(image_ids) > batch_size)
    step = -(-part_size // batch_size) * batch_size
    ordered = sizes.set_index("image_id").reindex(image_ids).rename_axis("image_id")

    def parts() -> Iterator[_Images]:
        for start in range(0, len(image_ids), step):
            of_part = ordered.iloc[start : start + step].reset_index()
            yield _Images(image_ids[start : start + step], of_part)

    return engine.map_rows(predictor, parts(), on_crash=_refuse, reads=[model.folder, store.folder])


def _refuse(images: _Images) -> Part:
    raise InputError(
        f"the process that predicts images '{images.ids[0]}' to '{images.ids[-1]}' ended whenever "
        "it was tried, for want of memory perhaps; run the same command again to go on"
    )
