"""Growth is measured with rows that the commands take for real ones."""

import pytest

from benchmarks.scale_growth import Grown, MadeUp, slopes, table_options, write_source
from cxr_compare.data_prep.assemble.prepare import prepare
from cxr_compare.data_prep.assemble.prepare_options import PrepareOptions
from cxr_compare.data_prep.store.dataset import DataSet
from cxr_compare.data_prep.work.local_engine import LocalEngine

pytestmark = pytest.mark.release


def test_made_up_rows_give_a_whole_data_set_without_copies(tmp_path):
    write_source(tmp_path / "source", 90)
    engine = MadeUp(LocalEngine(1))
    options = PrepareOptions(
        "table", table_options(tmp_path / "source"), sizes=(32,), engine=engine
    )
    prepare(tmp_path / "source", tmp_path / "data", options)
    dataset = DataSet.open(tmp_path / "data")
    assert len(dataset.images) == 90
    assert dataset.images["patient_id"].nunique() < 40
    assert dataset.images["file_sha256"].is_unique
    assert (tmp_path / "data" / "pixels").is_dir()


def test_slopes_leave_out_small_sets_and_single_sizes():
    def rows(command: str, *counts: int) -> list[Grown]:
        return [Grown(command, "ray", n, n**1.2 + 5 * (n < 10_000), 0, 0, "") for n in counts]

    fitted = slopes([*rows("prepare", 1000, 10_000, 100_000), *rows("predict", 1000, 10_000)])
    assert fitted == {("prepare", "ray"): pytest.approx(1.2)}
