"""Files, registries, seeds and labelled results."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from interp_unlearn._core import (
    Axis,
    ConfigError,
    Evidence,
    FileFormatError,
    Labelled,
    MissingPackageError,
    Registry,
    append_jsonl,
    config_hash,
    nearest,
    numpy_rng,
    optional_import,
    read_json,
    read_jsonl,
    read_tensors,
    write_json,
    write_tensors,
)


def test_json_is_replaced_whole(tmp_path: Path):
    file = tmp_path / "a.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert read_json(file) == {"a": 1}
    assert list(tmp_path.iterdir()) == [file]


def test_broken_json_says_so(tmp_path: Path):
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(FileFormatError, match="truncated"):
        read_json(tmp_path / "a.json")
    with pytest.raises(FileFormatError, match="does not exist"):
        read_json(tmp_path / "b.json")


def test_a_line_cut_by_a_kill_is_dropped_but_a_broken_middle_is_an_error(tmp_path: Path):
    file = tmp_path / "e.jsonl"
    append_jsonl(file, {"a": 1})
    append_jsonl(file, {"a": 2})
    with file.open("a") as handle:
        handle.write('{"a": 3')
    assert [r["a"] for r in read_jsonl(file)] == [1, 2]
    file.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(FileFormatError, match="line 2"):
        read_jsonl(file)


def test_tensors_round_trip_and_bad_files_are_refused(tmp_path: Path):
    file = tmp_path / "w.safetensors"
    weight = torch.randn(3, 4)
    write_tensors(file, {"w": weight.T})
    assert torch.equal(read_tensors(file)["w"], weight.T)
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(FileFormatError, match="not a whole safetensors file"):
        read_tensors(file)
    torch.save({"w": weight}, tmp_path / "w.pt")
    with pytest.raises(FileFormatError, match="pickle"):
        read_tensors(tmp_path / "w.pt")


def test_tensors_that_share_memory_are_written_each(tmp_path: Path):
    whole = torch.randn(4, 3)
    write_tensors(tmp_path / "w.safetensors", {"whole": whole, "rows": whole[1:3], "same": whole, "none": whole[:0]})
    back = read_tensors(tmp_path / "w.safetensors")
    assert torch.equal(back["whole"], whole) and torch.equal(back["same"], whole)
    assert torch.equal(back["rows"], whole[1:3])
    assert back["none"].shape == (0, 3)


def test_a_name_is_registered_once_and_unknown_names_show_the_nearest():
    parts: Registry[int] = Registry("objective")
    parts.register("npo")(1)
    with pytest.raises(ConfigError, match="already registered"):
        parts.register("npo")(2)
    with pytest.raises(ConfigError, match="nearest: npo"):
        parts["npoo"]
    assert list(parts) == ["npo"]


def test_seeds_depend_on_purpose_and_not_on_the_process():
    here = numpy_rng(0, "a", ["x"]).integers(0, 2**31, 4).tolist()
    assert here != numpy_rng(0, "b", ["x"]).integers(0, 2**31, 4).tolist()
    code = "from interp_unlearn._core import numpy_rng; print(numpy_rng(0, 'a', ['x']).integers(0, 2**31, 4).tolist())"
    for hash_seed in ("1", "2"):
        environment = {"PYTHONHASHSEED": hash_seed, "PATH": ""}
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment, cwd=Path.cwd()
        )
        assert out.stdout.strip() == str(here)
    assert config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})


def test_labelled_checks_its_axes_and_round_trips():
    table = Labelled(
        "x", np.arange(6.0).reshape(2, 3), (Axis("a", ("p", "q")), Axis("b", ("r", "s", "t"))), 5, "content"
    )
    assert table.at(a="q", b="s") == 4.0
    again = Labelled.from_json(table.to_json())
    assert np.array_equal(again.values, table.values)
    assert again.axes == table.axes
    with pytest.raises(ValueError, match="axes say"):
        Labelled("x", np.zeros(3), (Axis("a", ("p",)),), 1, "content")


def test_evidence_round_trips_with_its_details(tmp_path: Path):
    detail = Labelled("curve", np.array([1.0, np.nan]), (Axis("layer", ("0", "1")),), 2, "content")
    item = Evidence(
        "probe",
        "Is it?",
        0.5,
        "low",
        3,
        "content",
        "anything else",
        (0.1, 0.9),
        0.4,
        "shuffled",
        details={"curve": detail},
    )
    item.save(tmp_path / "e.json")
    again = Evidence.load(tmp_path / "e.json")
    assert (again.value, again.interval, again.control) == (0.5, (0.1, 0.9), 0.4)
    assert np.isnan(again.details["curve"].values[1])
    write_json(tmp_path / "other.json", {"kind": "labelled"})
    with pytest.raises(FileFormatError, match="not a saved evidence"):
        Evidence.load(tmp_path / "other.json")


def test_a_missing_package_is_one_sentence():
    with pytest.raises(MissingPackageError, match=r"pip install 'interp-unlearn\[sae\]'"):
        optional_import("no_such_package_at_all", "sae", "training an SAE")


def test_nearest_names():
    assert "hook_resid_post" in nearest("blocks.1.hook_resid_pos", ["blocks.1.hook_resid_post", "ln"])
    assert nearest("zzz", ["abc"]) == ""
