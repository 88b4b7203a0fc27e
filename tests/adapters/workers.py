"""One function applied to many rows in processes, and drawn radiographs that they write."""

from cxr_compare.data_prep.parallel import in_thread, map_images
from cxr_compare.data_prep.pixels import DecodeTask, ImageFile, decode_one

__all__ = ["in_thread", "map_images"]
STARTS_PROCESSES = "cxr_compare.data_prep.processes"
"""The module that imports `multiprocessing`."""


def crashed(row):
    """The result of a row that ends its process."""
    return -1


def decoded(paths, workers, on_crash):
    """Decode files as `cxr prepare` does: id, error and squares of 32 px as bytes, in order."""
    tasks = [DecodeTask(path.stem, ImageFile(path), (32,)) for path in paths]
    rows = map_images(decode_one, tasks, workers, on_crash=on_crash, together=3)
    return [
        (row.image_id, row.error, {k: v.tobytes() for k, v in row.squares.items()}) for row in rows
    ]
