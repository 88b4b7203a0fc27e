"""Bits that changed since a file was written: refused in one line, or without effect."""

from collections import Counter

import pandas as pd
import pyarrow.parquet as pq
import pytest
from torch import nn

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.tables import read_table, write_table
from cxr_compare.data_prep.dataset import DataSet
from cxr_compare.networks.model_files import save_model
from tests.scripts.small_sets import scored_images
from tests.stored_json import bind_tables
from tools.attacks import flips
from tools.attacks.forked import call_in_new_process


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return scored_images(tmp_path_factory.mktemp("flips"))


def test_flipped_bits_of_a_data_set_and_of_predictions_are_never_read_in_silence(made):
    table = flips.attack([made / "data", made / "scores"], flips=120, seed=31)
    total = sum(table.values(), Counter())
    assert (total["silent"], total["traceback"]) == (0, 0)
    assert total["refused"] > 80
    assert table["data/pixels/*.npy"]["refused"] > 0


@pytest.mark.release
def test_flipped_bits_of_runs_exports_and_reports_are_never_read_in_silence(tmp_path):
    call_in_new_process(flips.make, tmp_path)
    total = sum(flips.attack(flips.folders_of(tmp_path), flips=200, seed=31).values(), Counter())
    assert (total["silent"], total["traceback"]) == (0, 0)
    assert total["refused"] > 150


def test_damage_in_a_column_that_is_read_is_refused(tmp_path):
    path = tmp_path / "seen.parquet"
    frame = pd.DataFrame({"image_id": ["a", "b"], "patient_id": ["p", "q"], "role": "train"})
    write_table(frame, path, "seen")
    column = pq.ParquetFile(path).metadata.row_group(0).column(1)
    content = bytearray(path.read_bytes())
    content[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"seen\.parquet: "):
        read_table(path, "seen", ["patient_id"])


def test_weights_are_the_same_bytes_every_time(tmp_path):
    net = nn.Linear(3, 2)
    net.architecture = {"kind": "classifier", "name": "net", "arguments": {}}
    save_model(net, tmp_path)
    path = tmp_path / "model.safetensors"
    content = path.read_bytes()
    save_model(net, tmp_path)
    assert path.read_bytes() == content


def test_an_id_that_is_no_image_is_named_with_its_table(made, tmp_path):
    folder = made / "data"
    for name in ("findings", "splits/default"):
        schema = "split" if "/" in name else name
        path = folder / f"{name}.parquet"
        before, table = path.read_bytes(), read_table(path, schema)
        table.loc[0, "image_id"] = "stranger"
        write_table(table, path, schema)
        bind_tables(folder)
        data = DataSet.open(folder)
        with pytest.raises(InputError, match=rf"{path.name}: 1 of its ids .* 'stranger'"):
            _ = data.split() if "/" in name else data.findings
        path.write_bytes(before)
        bind_tables(folder)
