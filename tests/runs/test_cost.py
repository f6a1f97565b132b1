import platform
import subprocess
import sys
import time

import pytest

from interp_unlearn.runs import RunFolder
from interp_unlearn.runs._cost import Cost, measured

IN_A_FRESH_PROCESS = """
import numpy as np
from interp_unlearn.runs._cost import measured

kept = np.ones(10_000_000)  # 80 MB
with measured() as large:
    held = np.ones(25_000_000)  # 200 MB
    del held
with measured() as small:
    pass
print(large.peak_mb, small.peak_mb)
"""


def test_memory_counts_what_was_held_and_not_what_came_before() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS], capture_output=True, text=True, check=True)
    large, small = done.stdout.split()
    if large == "None":
        pytest.skip("this system does not let a process reset its high-water mark")
    assert 195 < float(large) < 220
    assert float(small) < 10


IN_A_WARM_PROCESS = """
import torch
from interp_unlearn.runs._cost import measured

def work():
    small = [torch.ones(20_000) for _ in range(2_000)]  # 160 MB in blocks that glibc keeps when they are freed
    between = torch.ones(20_000)
    del small
    return between

held = work()
with measured() as again:
    held = work()
print(again.peak_mb)
"""


def test_what_was_freed_before_counts_anew() -> None:
    done = subprocess.run([sys.executable, "-c", IN_A_WARM_PROCESS], capture_output=True, text=True, check=True)
    peak = done.stdout.strip()
    if peak == "None" or platform.libc_ver()[0] != "glibc":
        pytest.skip("this system does not let a process reset its high-water mark, or has another C library")
    assert 140 < float(peak) < 190


def test_a_finished_part_keeps_what_it_cost(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.finish_part("train", Cost(1.5, 2.5, 12.5))
    folder.finish_part("after", Cost(2.0, 3.0))
    assert folder.status()["peak_mb"] == {"train": 12.5}
    assert folder.status()["seconds"] == {"train": 1.5, "after": 2.0}
    assert folder.status()["cpu_seconds"] == {"train": 2.5, "after": 3.0}


def test_processor_time_is_that_of_the_block() -> None:
    begin = time.process_time()
    with measured() as cost:
        sum(i * i for i in range(2_000_000))
    spent = time.process_time() - begin
    assert 0 < cost.cpu_seconds <= spent
    assert cost.seconds > 0
