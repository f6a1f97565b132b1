import numpy as np
import pytest

from interp_unlearn.runs import RunFolder
from interp_unlearn.runs._memory import peak_memory


def test_peak_memory_counts_what_was_held_and_not_what_came_before() -> None:
    kept = np.ones(10_000_000)  # 80 MB
    with peak_memory() as peak:
        held = np.ones(25_000_000)  # 200 MB
        del held
    if peak.mb is None:
        pytest.skip("this system does not let a process reset its high-water mark")
    assert 190 < peak.mb < 300
    with peak_memory() as small:
        pass
    assert small.mb is not None and small.mb < 50
    assert kept.size


def test_a_finished_part_keeps_its_memory(tmp_path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.finish_part("train", 1.5, 12.5)
    folder.finish_part("after", 2.0)
    assert folder.status()["peak_mb"] == {"train": 12.5}
    assert folder.status()["seconds"] == {"train": 1.5, "after": 2.0}
