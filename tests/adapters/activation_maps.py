"""A classifier with activation maps in memory, beside other systems in one comparison."""

import numpy as np
import pandas as pd

from cxr_compare.evaluation.compare import compare_outputs
from cxr_compare.evaluation.inputs.read_output import read_output
from cxr_compare.evaluation.inputs.read_truth import read_truth
from cxr_compare.evaluation.output import Output
from cxr_compare.evaluation.report.result import Result


def output_with_maps(scores, maps, frame):
    """What a classifier says: scores (Series by image id) and maps ``(N, h, w)`` in their order.

    `frame` are the outer edges x1, y1, x2, y2 of the maps in px of the images.
    """
    height, width = maps.shape[1:]
    cells = np.fromiter(maps.reshape(len(scores), -1), object, len(scores))
    table = pd.DataFrame({"image_id": scores.index, "values": cells})
    table = table.assign(grid_h=height, grid_w=width, method="cam", finding="finding")
    table[["x1", "y1", "x2", "y2"]] = np.asarray(frame, float)
    return Output(scores.sort_index(), maps=table)


def compared_with_maps(systems, truth, boxes, *, policy, replicates):
    """The result of systems of which some are outputs with maps."""
    return Result.of(_comparison(systems, truth, boxes, policy, replicates))


def _comparison(systems, truth, boxes, policy, replicates):
    read = read_truth(truth, boxes=boxes)
    outputs = {
        name: value if isinstance(value, Output) else read_output(value, read, name)
        for name, value in systems.items()
    }
    return compare_outputs(outputs, read, policies=policy, n_replicates=replicates)
