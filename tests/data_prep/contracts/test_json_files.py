"""JSON files with a kind and a schema version."""

import json

import numpy as np
import pytest

from cxr_compare.data_prep.contracts.errors import InputError
from cxr_compare.data_prep.contracts.records import write_json
from tests.stored_json import stored_json


def test_json_keeps_kind_and_refuses_nan(tmp_path):
    path = tmp_path / "run.json"
    write_json(path, "run", {"n": np.int64(3)})
    assert stored_json(path)["n"] == 3
    with pytest.raises(InputError, match=r"run\.json.*'run'.*'dataset'"):
        stored_json(path)
    with pytest.raises(ValueError, match="Out of range"):
        write_json(path, "run", {"auroc": float("nan")})
    assert json.loads(path.read_text())["n"] == 3, "the refused write left the old file whole"
