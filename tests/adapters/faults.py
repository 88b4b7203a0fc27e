"""21 named faults of this program, a few changed lines each, and a pytest plugin that applies one.

``CXR_FAULT=NAME pytest -p tests.adapters.faults ...`` changes the source of a module while it is
imported, whoever imports it. A line that is not found once is an error. ``CXR_FAULT_REPORT`` names
a JSON file for: how often each changed function ran, and the first test that failed.
"""

import ast
import json
import os
import sys
from collections import Counter
from importlib.machinery import PathFinder, SourceFileLoader
from pathlib import Path
from typing import NamedTuple

import pytest

_HERE = "tests.adapters.faults"
_EVALUATION = "cxr_compare.evaluation"
_PRECISION = f"{_EVALUATION}.boxes.average_precision"
_ARRAYS = f"{_EVALUATION}.statistics.arrays"
_AUROC = f"{_EVALUATION}.statistics.clustered_auroc"
_COMPARE = f"{_EVALUATION}.compare"
_FROC = f"{_EVALUATION}.boxes.froc"
_MATCHING = f"{_EVALUATION}.boxes.matching"
_TRUTH = f"{_EVALUATION}.truth"
_RANKING = f"{_EVALUATION}.statistics.ranking"
_IOU = "cxr_compare.data_prep.base.boxes"


class Edit(NamedTuple):
    """A piece of the source of a module, and what stands there with the fault."""

    module: str
    old: str
    new: str


FAULTS = {
    "1 boxes off by one": [
        Edit(
            _IOU,
            "np.minimum(x2, right) - np.maximum(x1, left), 0)",
            "np.minimum(x2, right) - np.maximum(x1, left) + 1, 0)",
        ),
        Edit(
            _IOU,
            "np.minimum(y2, bottom) - np.maximum(y1, top), 0)",
            "np.minimum(y2, bottom) - np.maximum(y1, top) + 1, 0)",
        ),
        Edit(
            _IOU,
            "(x2 - x1) * (y2 - y1) + (right - left) * (bottom - top) - shared",
            "(x2 - x1 + 1) * (y2 - y1 + 1) + (right - left + 1) * (bottom - top + 1) - shared",
        ),
    ],
    "2 IoU > for >=: AP": [
        Edit(_MATCHING, "is_free = (iou >= thresholds)", "is_free = (iou > thresholds)"),
    ],
    "2 IoU > for >=: share on a crowd": [
        Edit(_MATCHING, "(pairs.on_crowd[:, None] >= thresh", "(pairs.on_crowd[:, None] > thresh"),
    ],
    "2 IoU > for >=: FROC": [
        Edit(
            _FROC,
            "hits = pairs.iou >= HIT",
            "hits = pairs.iou > HIT",
        ),
    ],
    "3 crowd rule gone": [
        Edit(_MATCHING, 'if "crowd" in truth:', "if False:"),
    ],
    "4 ignored box counted: on a crowd": [
        Edit(
            _MATCHING,
            "is_ignored = ~hit & (pairs.on_crowd[:, None] >= thresholds)",
            "is_ignored = np.zeros_like(hit)",
        ),
    ],
    "4 ignored box counted: of another image": [
        Edit(
            _MATCHING,
            "    order = order[of_image[order] >= 0]\n"
            "    image = np.asarray(of_image[order], dtype=np.int64)\n",
            "    image = np.asarray(np.maximum(of_image[order], 0), dtype=np.int64)\n",
        ),
    ],
    "5 101st box counted": [
        Edit(
            _MATCHING,
            "counted = rank < MAX_BOXES",
            "counted = rank <= MAX_BOXES",
        ),
    ],
    "6 recall points shifted": [
        Edit(
            _PRECISION,
            "_RECALL_POINTS = np.linspace(0.0, 1.0, 101)",
            "_RECALL_POINTS = np.linspace(0.0, 1.0, 101) + 1e-9",
        ),
    ],
    "6 recall points shifted: by their last bit": [
        Edit(
            _PRECISION,
            "_RECALL_POINTS = np.linspace(0.0, 1.0, 101)",
            "_RECALL_POINTS = np.arange(101) / 100",
        ),
    ],
    "7 equal scores in another order: AP with interval": [
        Edit(
            _MATCHING,
            'return np.argsort(-self.score, kind="stable")',
            'return np.argsort(self.score, kind="stable")[::-1]',
        ),
    ],
    "8 duplicates counted as hits: AP with interval": [
        Edit(
            _MATCHING,
            "is_free = (iou >= thresholds) & ~is_taken[true]",
            "is_free = iou >= thresholds",
        ),
    ],
    "9 two classes joined": [
        Edit(f"{_EVALUATION}.box_metrics", "if len(kinds) > 1:", "if False:"),
    ],
    "9 two classes joined: in a comparison": [
        Edit(
            f"{_EVALUATION}.inputs.read_output",
            "rows.table = rows.table[findings.isin(allowed).to_numpy()].reset_index(drop=True)",
            "pass",
        ),
    ],
    "10 negatives dropped": [
        Edit(
            _MATCHING,
            "    ranked = _rank_boxes(boxes, image_ids)\n",
            '    boxes = boxes[boxes["image_id"].isin(truth["image_id"])]\n'
            "    ranked = _rank_boxes(boxes, image_ids)\n",
        ),
    ],
    "11 images without a box dropped": [
        Edit(
            _MATCHING,
            "    is_crowd = np.zeros(len(truth), dtype=bool)\n",
            '    truth = truth[truth["image_id"].isin(boxes["image_id"])]\n'
            "    is_crowd = np.zeros(len(truth), dtype=bool)\n",
        ),
    ],
    "11 images without a box dropped: FROC": [
        Edit(
            _FROC,
            "np.concatenate([[0], false, [len(false_scores)]]) / hits.n_images",
            "np.concatenate([[0], false, [len(false_scores)]]) / len(np.unique(hits.box_image))",
        ),
    ],
    "12 decision > for >=": [
        Edit(
            _COMPARE,
            "system.scores >= threshold",
            "system.scores > threshold",
        ),
    ],
    "12 decision > for >=: under weights": [
        Edit(
            _RANKING,
            'np.searchsorted(self.negated, -thresholds, side="right")',
            'np.searchsorted(self.negated, -thresholds, side="left")',
        ),
    ],
    "13 ties count 0 in AUROC": [
        Edit(
            _RANKING,
            'losses + np.einsum("rp,rp->r", self.on_positive, above, dtype=np.int64)',
            "2 * losses + 0 * above.sum(axis=1)",
        ),
    ],
    "13 ties count 0 in AUROC: in a difference": [
        Edit(
            _AUROC,
            '            np.searchsorted(sorted_scores, scores, "left")\n'
            '            + np.searchsorted(sorted_scores, scores, "right")\n',
            "            2 * np.searchsorted(\n"
            "                sorted_scores,\n"
            "                scores,\n"
            '                "left" if sorted_scores is classes[0] else "right",\n'
            "            )\n",
        ),
    ],
    "14 patients ignored in the variance": [
        Edit(
            _AUROC,
            "    added = (points - value * rivals) / n_pairs\n",
            "    added = (points - value * rivals) / n_pairs\n"
            "    n_clusters = len(truth)\n"
            "    clusters = np.arange(n_clusters)\n",
        ),
    ],
    "14 patients ignored in the variance: at a threshold": [
        Edit(
            f"{_EVALUATION}.statistics.clustered_counts",
            "per_cluster(np.column_stack(outcomes), patients, n_patients)",
            "per_cluster(np.column_stack(outcomes), np.arange(len(y_true)), len(y_true))",
        ),
    ],
    "14 patients ignored in the variance: in resamples": [
        Edit(
            _TRUTH,
            "return np.searchsorted(self.names, self.owners)",
            "return np.arange(len(self.owners))",
        ),
        Edit(_TRUTH, "return len(self.names)", "return len(self.images)"),
    ],
    "15 duplicates dropped from a resample": [
        Edit(
            f"{_EVALUATION}.statistics.bootstrap",
            "yield counts.reshape(rows, self.n_clusters)",
            "yield np.minimum(counts, 1).reshape(rows, self.n_clusters)",
        ),
    ],
    "16 threshold chosen on test images": [
        Edit(_COMPARE, 'validation = truth.of("val")', "validation = test"),
    ],
    "17 choice not repeated in resamples": [
        Edit(
            f"{_EVALUATION}.replicates",
            "ranked.counts(again.get(policy, np.full(len(weights), threshold)))",
            "ranked.counts(np.full(len(weights), threshold))",
        ),
    ],
    "18 FROC by positive images": [
        Edit(
            _FROC,
            "np.concatenate([[0], false, [len(false_scores)]]) / hits.n_images",
            "np.concatenate([[0], false, [len(false_scores)]]) / len(np.unique(hits.lesion_image))",
        ),
    ],
    "18 FROC by positive images: with interval": [
        Edit(
            _FROC,
            "self._n_images = np.bincount(patients, minlength=n_clusters)",
            "sick = patients[np.unique(hits.lesion_image)]\n"
            "        self._n_images = np.bincount(sick, minlength=n_clusters)",
        ),
    ],
    "19 Holm without its maximum": [
        Edit(
            f"{_EVALUATION}.figures",
            "np.maximum.accumulate(raised)",
            "raised",
        ),
    ],
    "20 p without plus one": [
        Edit(
            f"{_EVALUATION}.figures",
            "2 * (smaller + 1) / (n_known + 1)",
            "2 * smaller / n_known",
        ),
    ],
    "21 a pair on different images": [
        Edit(
            f"{_EVALUATION}.inputs.frames",
            "        return by_id\n    if of_rows",
            "        return ids.tolist()\n    if of_rows",
        ),
    ],
    "21 a pair on different images: in a difference of two arrays": [
        Edit(_ARRAYS, "if not value.index.equals(reference.index):", "if False:"),
    ],
    "21 a pair on different images: not refused": [
        Edit(_COMPARE, "if any(map(len, lacking.values())) and not common:", "if False:"),
    ],
}
"""Changed lines by number and name of the fault; after a colon, the place that has it."""

_REACHED: Counter[str] = Counter()


def reach(edit):
    """Count a call of a function that was changed."""
    _REACHED[edit] += 1


def _changed(source, edits, where):
    """Source with the faults, as a tree in which each changed function counts its calls."""
    counts = []
    for edit in edits:
        if source.count(edit.old) != 1:
            raise pytest.UsageError(f"{where}: {edit.old!r} stands {source.count(edit.old)} times")
        counts.append((source[: source.index(edit.old)].count("\n") + 1, edit))
    for edit in edits:
        source = source.replace(edit.old, edit.new)
    tree = ast.parse(source, where)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for line, edit in counts:
        around = [each for each in functions if each.lineno <= line <= each.end_lineno]
        body = min(around, key=lambda each: each.end_lineno - each.lineno).body if around else None
        call = f'__import__("sys").modules["{_HERE}"].reach({edit.old!r})'
        if body is None:  # a constant of the module
            tree.body.extend(ast.parse(call).body)
        else:
            body.insert(ast.get_docstring(ast.Module(body, [])) is not None, *ast.parse(call).body)
    return ast.fix_missing_locations(tree)


class _Loader(SourceFileLoader):
    def __init__(self, name, path, edits):
        super().__init__(name, path)
        self._edits = edits

    def get_code(self, fullname):
        source = self.get_data(self.path).decode()
        return compile(_changed(source, self._edits, self.path), self.path, "exec")


class _Finder:
    def __init__(self, edits):
        self._edits = {}
        for edit in edits:
            self._edits.setdefault(edit.module, []).append(edit)
            if edit.module in sys.modules:
                raise pytest.UsageError(f"{edit.module} was imported before the fault")

    def find_spec(self, name, path=None, target=None):
        """Return the module with its fault; None for all other modules."""
        if name not in self._edits:
            return None
        spec = PathFinder.find_spec(name, path, target)
        spec.loader = _Loader(name, spec.origin, self._edits[name])
        return spec


_FAILED = []


def pytest_configure():
    """Apply the fault that the environment names, if it names one."""
    name = os.environ.get("CXR_FAULT")
    if name:
        sys.meta_path.insert(0, _Finder(FAULTS[name]))


def pytest_runtest_logreport(report):
    """Keep the first test that failed, with its reason in one line."""
    if report.failed:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = (crash.message if crash else str(report.longrepr)).partition("\n")[0]
        _FAILED.append({"test": report.nodeid, "when": report.when, "reason": reason})


def pytest_sessionfinish():
    """Write what happened for the test that started this run."""
    path = os.environ.get("CXR_FAULT_REPORT")
    if path:
        edits = FAULTS.get(os.environ.get("CXR_FAULT", ""), [])
        reached = [_REACHED[edit.old] for edit in edits]
        Path(path).write_text(json.dumps({"reached": reached, "failed": _FAILED}))
