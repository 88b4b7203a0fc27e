"""JSON files with a kind and a schema version."""

import json

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.json_files import read_json, write_json


def test_json_keeps_kind_and_refuses_nan(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, "run", {"n": np.int64(3)})
    assert read_json(path, "run")["n"] == 3
    with pytest.raises(InputError, match=r"run\.json.*'run'.*'dataset'"):
        read_json(path, "dataset")
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, "run", {"auroc": float("nan")})
    assert json.loads(path.read_text())["n"] == 3, "the refused write left the old file whole"
