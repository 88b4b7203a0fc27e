"""Features in a Parquet file: every layout gives the same features, and a wrong row is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cxr_compare.data_prep.contracts.boxes import EDGES
from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.studies.features import feature_table
from cxr_compare.studies.features.feature_table import FeatureTable
from tests.scripts.small_sets import table_set

IDS = [f"i{number:02}" for number in range(20)]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> DataSet:
    folder = tmp_path_factory.mktemp("set")
    states = {"mass": ["present", "absent"] * 10}
    return DataSet.open(table_set(folder, IDS, states, width=200, height=100))


def _values(n: int = 20, numbers: int = 6) -> np.ndarray:
    return np.arange(n * numbers, dtype=np.float32).reshape(n, numbers) / 7


def _written(folder: Path, table: dict) -> Path:
    path = folder / "features.parquet"
    pq.write_table(pa.table(table), path, row_group_size=7)
    return path


def _opened(folder: Path, dataset: DataSet, table: dict, **options) -> FeatureTable:
    return FeatureTable.open(_written(folder, table), dataset, **options)


def _features(table: FeatureTable) -> dict[str, np.ndarray]:
    """Return the features (cells, channels) of each image."""
    return {
        image_id: cells
        for rows, features in table.blocks()
        for image_id, cells in zip(rows["image_id"], features, strict=True)
    }


def _as_lists(values: np.ndarray) -> list:
    return values.tolist()


LAYOUTS = {
    "lists of float64": lambda v: {"embedding": _as_lists(v)},
    "lists of one length": lambda v: {
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(v.ravel()), v.shape[1])
    },
    "columns out of order": lambda v: {f"f{n}": v[:, n] for n in (3, 1, 5, 0, 2, 4)},
    "columns from 1": lambda v: {f"feat_{n + 1:03}": v[:, n] for n in range(6)},
    "columns of pandas": lambda v: {str(n): v[:, n] for n in range(6)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_each_image_its_features(tmp_path, dataset, layout, monkeypatch):
    monkeypatch.setattr(feature_table, "_BYTES_AT_ONCE", 150)  # three rows at once
    order = list(reversed(IDS))
    values = _values()
    features = _opened(tmp_path, dataset, {"image_id": order, **LAYOUTS[layout](values)})
    assert (features.channels, features.grid, features.has_grid) == (6, (1, 1), False)
    by_image = _features(features)
    for row, image_id in enumerate(order):
        assert by_image[image_id][0].tolist() == values[row].tolist()


def test_equal_features_have_equal_ids_and_others_do_not(tmp_path, dataset):
    ids = []
    for number, change in enumerate((0, 0, 1e-3)):
        folder = tmp_path / str(number)
        folder.mkdir()
        table = {"image_id": IDS, "v": _as_lists(_values() + np.float32(change))}
        ids.append(_opened(folder, dataset, table).pooled()[1])
    assert ids[0] == ids[1] != ids[2]


def test_cells_come_row_by_row_and_cover_the_image(tmp_path, dataset):
    cells = np.arange(20 * 2 * 3 * 4, dtype=np.float32).reshape(20, 2, 3, 4)  # h, w, channels
    table = {"image_id": IDS, "v": _as_lists(cells.reshape(20, -1)),
             "grid_h": [2] * 20, "grid_w": [3] * 20}  # fmt: skip
    features = _opened(tmp_path, dataset, table)
    assert (features.channels, features.grid) == (4, (2, 3))
    assert np.array_equal(_features(features)["i05"], cells[5].reshape(6, 4))
    assert _edges(features, "i05") == [0, 0, 200, 100]
    means, _ = features.pooled()
    np.testing.assert_allclose(means[5], cells[5].mean(axis=(0, 1)), rtol=1e-6)


def _edges(table: FeatureTable, image_id: str) -> list[float]:
    return table.index.set_index("image_id").loc[image_id, list(EDGES)].tolist()


def test_a_grid_of_a_part_of_the_image_has_its_position(tmp_path, dataset):
    table = {"image_id": IDS, "v": _as_lists(_values(numbers=8)),
             "grid_h": [2] * 20, "grid_w": [2] * 20,
             "x1": [50.0] * 20, "y1": [0.0] * 20,
             "x2": [150.0] * 20, "y2": [100.0] * 20}  # fmt: skip
    features = _opened(tmp_path, dataset, table)
    assert _edges(features, "i05") == [50, 0, 150, 100]


def test_rows_of_other_images_are_refused_or_left_out(tmp_path, dataset):
    table = {"image_id": ["other", *IDS], "v": _as_lists(_values(21))}
    with pytest.raises(InputError, match="row 0: image 'other'"):
        _opened(tmp_path, dataset, table)
    features = _opened(tmp_path, dataset, table, ignore_unknown=True)
    by_image = _features(features)
    assert list(by_image) == IDS
    assert by_image["i00"][0].tolist() == _values(21)[1].tolist()


def _changed(**columns) -> dict:
    table = {"image_id": IDS, "v": _as_lists(_values()), **columns}
    return {name: column for name, column in table.items() if column is not None}


def _frame(x1, y1, x2, y2) -> dict:
    edges = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    columns = {edge: [float(value)] * 20 for edge, value in edges.items()}
    return {"grid_h": [2] * 20, "grid_w": [3] * 20, **columns}


def _with_row(row: int, value: object) -> list:
    values = _as_lists(_values())
    values[row] = value
    return values


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (_changed(v=_with_row(11, [1.0] * 5)), "row 11 "),
        (_changed(v=_with_row(11, None)), "row 11 "),
        (_changed(v=_with_row(4, [float("nan")] + [1.0] * 5)), "row 4 "),
        (_changed(image_id=[*IDS[:19], "i03"]), "row 19 repeats image 'i03'"),
        (_changed(image_id=[*IDS[:19], None]), "row 19 "),
        ({"image_id": IDS[:19], "v": _as_lists(_values(19))}, "no features of image 'i19'"),
        (_changed(label=[0.0, 1.0] * 10), "'label'"),
        (_changed(v=None, f0=[1.0] * 20, f2=[1.0] * 20), "'f1'"),
        (_changed(v=None), "has no features"),
        (_changed(w=_as_lists(_values())), "2 columns of lists"),
        (_changed(grid_h=[4] * 20, grid_w=[1] * 20), "4 x 1"),
        (_changed(grid_h=[2] * 20), "none 'grid_w'"),
        (_changed(grid_h=[2] * 19 + [3], grid_w=[1] * 20), "row 19 .*3 x 1"),
        (_changed(image_id=None, file=IDS), "--image-column COLUMN"),
        (_changed(**_frame(0, 0, 1, 1)), "shares"),
        (_changed(**_frame(0, 0, 1e9, 1e9)), "row 0, image 'i00'.*200 x 100 px"),
    ],
)
def test_a_wrong_table_is_refused_with_its_row(tmp_path, dataset, table, message):
    with pytest.raises(InputError, match=message):
        _opened(tmp_path, dataset, table).pooled()


def test_a_file_that_is_no_parquet_is_refused(tmp_path, dataset):
    path = tmp_path / "features.parquet"
    path.write_text("image_id,f0\n")
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        FeatureTable.open(path, dataset)


def test_a_grid_and_its_position_belong_to_the_id_of_features(tmp_path, dataset):
    values = _as_lists(_values())
    tables = [
        {"v": values},
        {"v": values, "grid_h": [1] * 20, "grid_w": [2] * 20},
        {"v": values, "grid_h": [2] * 20, "grid_w": [1] * 20},
        {"v": values, "grid_h": [2] * 20, "grid_w": [1] * 20, "x1": [0.0] * 20,
         "y1": [0.0] * 20, "x2": [100.0] * 20, "y2": [100.0] * 20},
    ]  # fmt: skip
    ids = set()
    for number, table in enumerate(tables):
        (tmp_path / str(number)).mkdir()
        opened = _opened(tmp_path / str(number), dataset, {"image_id": IDS, **table})
        ids.add(opened.pooled()[1])
    assert len(ids) == len(tables)


def test_damaged_pages_are_refused_in_one_line_or_change_nothing(tmp_path, dataset):
    path = tmp_path / "features.parquet"
    table = pa.table({"image_id": IDS, "v": _as_lists(_values(numbers=64))})
    pq.write_table(table, path, write_page_checksum=True)
    whole = path.read_bytes()
    rng = np.random.default_rng(5)
    refusals = []
    for _ in range(40):
        damaged = bytearray(whole)
        start = int(rng.integers(4, len(whole) - 8))
        damaged[start : start + 4] = rng.bytes(4)
        path.write_bytes(damaged)
        try:
            by_image = _features(FeatureTable.open(path, dataset))
        except InputError as error:
            refusals.append(str(error))
        else:
            assert by_image["i03"][0].tolist() == _values(numbers=64)[3].tolist()
    assert len(refusals) > 20
    assert not any("\n" in refusal for refusal in refusals)


def test_a_small_file_that_unpacks_to_a_gigabyte_is_refused_unread(tmp_path, dataset):
    path = tmp_path / "features.parquet"
    zeros = pa.FixedSizeListArray.from_arrays(pa.array(np.zeros(20 * 200_000, np.float32)), 200_000)
    pq.write_table(pa.table({"image_id": IDS, "v": zeros}), path, compression="zstd")
    assert path.stat().st_size < 20_000
    with pytest.raises(InputError, match="would unpack"):
        FeatureTable.open(path, dataset)
