"""Modules that the server of new processes imports, once for all tests of a worker.

Only its first start counts, and from one that has less each process imports PyTorch anew.
"""

MODULES = [
    "cxr_compare.data_prep.pixels",
    "cxr_compare.data_prep.audit",
    "cxr_compare.scripts.cli",
    "cxr_compare.commands.compared_systems",
    "cxr_compare.serving.predict_data",
    "cxr_compare.serving.run",
    "cxr_compare.training.train",
    "pyarrow.dataset",
]
