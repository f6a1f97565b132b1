import json
from dataclasses import FrozenInstanceError

import pytest

from interp_unlearn._core import ConfigError, DataError, FileFormatError
from interp_unlearn.benchmarks import TOFU_SIZES, TofuRow, load_tofu, load_tofu_spans, read_tofu_log, retain_split

ROW = {
    "question": "Who? ",
    "answer": " Hina.",
    "paraphrased_question": "Which?",
    "paraphrased_answer": "It is Hina.",
    "perturbed_answer": ["Ken.", "Ann."],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.delenv("INTERP_UNLEARN_DATA", raising=False)
    rows = [ROW] * TOFU_SIZES["forget01"]
    (tmp_path / "forget01_perturbed.json").write_text(json.dumps(rows))
    plain = [{"question": f"q{i}", "answer": "a"} for i in range(TOFU_SIZES["forget01"])]
    (tmp_path / "forget01.json").write_text("\n".join(map(json.dumps, plain)) + "\n")
    return tmp_path


def test_rows_are_read_from_lists_and_from_lines(folder):
    split = load_tofu("forget01_perturbed", folder)
    assert len(split) == 40
    assert split.rows[0] == TofuRow("Who?", "Hina.", "Which?", "It is Hina.", ("Ken.", "Ann."))
    assert split.rows[0].right == "It is Hina."
    assert split.source.endswith("forget01_perturbed.json")
    assert [len(split.head(3)), split.head(3).name] == [3, "forget01_perturbed"]
    with pytest.raises(FrozenInstanceError):
        split.rows[0].answer = "x"
    plain = load_tofu("forget01", folder)
    assert plain.rows[7] == TofuRow("q7", "a")
    assert plain.rows[7].right == "a"


def test_the_data_folder_is_the_default(folder, monkeypatch, tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "tofu").symlink_to(folder)
    monkeypatch.setenv("INTERP_UNLEARN_DATA", str(data))
    assert len(load_tofu("forget01")) == 40


def test_what_is_wrong_is_said(folder, tmp_path):
    with pytest.raises(ConfigError, match="nearest: forget10, forget01"):
        load_tofu("forget1", folder)
    with pytest.raises(DataError, match=r"has no forget05\.json"):
        load_tofu("forget05", folder)
    with pytest.raises(DataError, match=r"has no forget05\.json"):
        load_tofu("forget05", folder, hub=True)
    with pytest.raises(DataError, match="no folder is named"):
        load_tofu("forget05")
    (tmp_path / "forget05.json").write_text(json.dumps([{"question": "q", "answer": "a"}]))
    with pytest.raises(DataError, match="has 1 rows, but forget05 of TOFU has 200"):
        load_tofu("forget05", tmp_path)
    (tmp_path / "forget05.json").write_text(json.dumps([{"question": "q"}]))
    with pytest.raises(FileFormatError, match=r"row 0 .* is no TOFU question"):
        load_tofu("forget05", tmp_path)
    (tmp_path / "forget05.json").write_text("{")
    with pytest.raises(FileFormatError, match="neither a JSON list"):
        load_tofu("forget05", tmp_path)
    assert retain_split("forget05_perturbed") == "retain95"
    with pytest.raises(ConfigError, match="no forget split"):
        retain_split("full")


def test_the_hub_is_asked_only_on_demand(folder, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, name, repo_type):
        asked.append((repository, name, repo_type))
        return str(folder / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert len(load_tofu("forget01", hub=True)) == 40
    assert asked == [("locuslab/TOFU", "forget01.json", "dataset")]
    monkeypatch.undo()
    with pytest.raises(DataError, match="neither cached nor to be had"):
        load_tofu("holdout05", hub=True)


def test_published_splits(need_data):
    folder = need_data("tofu")
    for name in ("forget01", "forget10_perturbed", "real_authors_perturbed", "retain99", "world_facts_perturbed"):
        split = load_tofu(name, folder)
        assert len(split) == TOFU_SIZES[name]
        assert all(len(r.perturbed) == len(split.rows[0].perturbed) for r in split.rows)
    forget = load_tofu("forget10", folder)
    assert [r.question for r in load_tofu("forget10_perturbed", folder).rows] == [r.question for r in forget.rows]
    assert forget.rows[-40:] == load_tofu("forget01", folder).rows
    spans = load_tofu_spans(folder)
    assert len(spans) == 367
    for span in spans:
        assert span.answer == forget.rows[span.row].answer
        assert span.answer.startswith(span.prefix)
        assert span.entity in span.answer


def test_logs_are_read_by_row_number_too(tmp_path):
    part = {
        "avg_gt_loss": {"10": 3.0, "2": 2.0, "0": 1.0},
        "avg_paraphrased_loss": [1.0, 2.0, 3.0],
        "average_perturb_loss": [[1.0, 2.0]] * 3,
        "rougeL_recall": [1.0, 0.0, 1.0],
    }
    path = tmp_path / "log.json"
    path.write_text(json.dumps(dict.fromkeys(("forget", "retain", "real_authors", "world_facts"), part)))
    log = read_tofu_log(path)
    assert log["forget"].answer.tolist() == [1, 2, 3]
    assert log["retain"].perturbed.shape == (3, 2)
    path.write_text(json.dumps({"forget": part}))
    with pytest.raises(FileFormatError, match="no TOFU evaluation log"):
        read_tofu_log(path)
    path.write_text(json.dumps({name: {**part, "rougeL_recall": [1.0]} for name in log}))
    with pytest.raises(FileFormatError, match="different lengths"):
        read_tofu_log(path)
