"""Which folder `cxr compare` writes into."""

import pandas as pd
import pytest

from data_prep.contracts.errors import InputError
from data_prep.store.dataset import DataSet
from data_prep.store.predictions import PredictionWriter
from scripts.compare import compare
from scripts.prepare import prepare


@pytest.fixture
def made(tmp_path):
    """A data set without pixels, and a system on its test images."""
    (tmp_path / "source").mkdir()
    ids = [f"i{number:02d}" for number in range(40)]
    pd.DataFrame({"image_id": ids, "patient_id": ids, "split": ["val", "test"] * 20}).to_csv(
        tmp_path / "source" / "images.csv", index=False
    )
    states = ["present" if number % 4 < 2 else "absent" for number in range(40)]
    pd.DataFrame({"image_id": ids, "finding": "opacity", "state": states}).to_csv(
        tmp_path / "source" / "labels.csv", index=False
    )
    prepare([tmp_path / "source", tmp_path / "data"], format="csv")
    content = DataSet.open(tmp_path / "data").ids["content_id"]
    info = {
        "system": "A",
        "kind": "scores",
        "inference_id": "a",
        "data_set": {"content_id": content},
    }
    with PredictionWriter(tmp_path / "a", info) as writer:
        writer.add(
            pd.DataFrame({"image_id": ids, "status": "ok", "reason": None}),
            scores=pd.DataFrame(
                {
                    "image_id": ids,
                    "finding": "opacity",
                    "score": [0.01 + number * 7 % 40 / 41 for number in range(40)],
                }
            ),
        )
    return tmp_path


def test_a_report_may_be_written_again_into_its_own_folder(made):
    for _ in range(2):
        compare([str(made / "a")], data=made / "data", out=made / "report", replicates=100)
    assert (made / "report" / "costs.csv").is_file()


def test_a_page_of_ones_own_is_refused_and_kept(made):
    (made / "report").mkdir()
    (made / "report" / "cases-smith.html").write_text("years of work")
    with pytest.raises(InputError, match=r"holds .cases-smith\.html."):
        compare([str(made / "a")], data=made / "data", out=made / "report", replicates=100)
    assert (made / "report" / "cases-smith.html").read_text() == "years of work"


def test_a_folder_with_anything_else_is_refused_and_named(made):
    (made / "report").mkdir()
    (made / "report" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match=r"holds .thesis\.tex., which no report has"):
        compare([str(made / "a")], data=made / "data", out=made / "report", replicates=100)
