"""Memory that was freed is reused, so that the system need not clear new pages for each image."""

import platform
import subprocess
import sys

import pytest

_ROUNDS = 50
_PROGRAM = f"""
import resource
import numpy as np
from cxr_compare.data_prep.work.freed_memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range({_ROUNDS}):
        first, second, third = (np.ones(1 << 20, np.uint8) for _ in range(3))
        del first, second, third
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = new_pages()
keep_freed_memory()
print(first, new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators keep what is freed")
def test_arrays_of_an_image_take_no_new_pages_once_memory_is_kept():
    ran = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, check=True)
    before, after = (int(count) for count in ran.stdout.split())
    pages_of_one_array = (1 << 20) // 4096
    assert before > _ROUNDS * pages_of_one_array  # each round asked the system again
    assert after < 4 * pages_of_one_array
