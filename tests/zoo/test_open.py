"""`open_model`: every kind of source opens the same weights, and every likely damage is one clear sentence."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp_unlearn import open_model
from interp_unlearn._core import FileFormatError, ModelError
from interp_unlearn.zoo import list_models, tinyworld_tokenizer

TEXT = "the home of Badafe is"


def test_a_folder_gives_the_same_logits_as_its_module(folder, llama):
    opened = open_model(folder)
    own = open_model(llama, tokenizer=tinyworld_tokenizer())
    assert torch.equal(opened(TEXT), own(TEXT))
    assert opened.name == "model"
    assert opened.source == {"kind": "path", "model": str(folder), "dtype": "float32"}
    assert not opened.module.training


def test_a_folder_may_be_given_as_text_and_in_another_dtype(folder):
    opened = open_model(str(folder), dtype="bfloat16")
    assert opened.dtype == torch.bfloat16
    assert opened.source["dtype"] == "bfloat16"


def test_a_module_is_shared_and_keeps_its_mode(llama):
    llama.train()
    opened = open_model(llama)
    assert opened.module is llama
    assert llama.training
    assert opened.tokenizer is None


def test_tinyworld_takes_every_option_of_any_other_model(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("interp_unlearn.zoo._open.tinyworld_folder", lambda: folder)
    plain = open_model("tinyworld")
    assert (plain.name, plain.source["model"], plain.source["kind"]) == ("tinyworld", "tinyworld", "zoo")
    assert set(plain.source) == {"kind", "model", "config", "exclude"}
    save_file({"model.norm.weight": torch.zeros(16)}, tmp_path / "delta.safetensors")
    edited = open_model("tinyworld", delta=tmp_path / "delta.safetensors", dtype="bfloat16", language=False)
    assert not edited.tensors()["model.norm.weight"].any()
    assert edited.dtype == torch.bfloat16 and not edited.is_language_model
    assert edited.source["dtype"] == "bfloat16" and len(edited.source["delta_sha256"]) == 64
    with pytest.raises(ModelError):
        open_model("tinyworld", adapter=tmp_path / "none")


@pytest.mark.parametrize(("x", "says"), [(3, "not int"), (None, "not NoneType"), ("", "not an empty name")])
def test_what_is_no_model_at_all(x, says):
    plain = open_model
    while hasattr(plain, "__wrapped__"):  # as users call it, without the suite's check of annotations
        plain = plain.__wrapped__
    with pytest.raises(ModelError, match=says):
        plain(x)


def test_a_plain_module_opens_by_paths():
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU())
    opened = open_model(module)
    assert not opened.is_language_model
    assert opened(torch.ones(2, 3)).shape == (2, 4)


def test_every_tokenizer_has_a_padding_token(llama):
    tokenizer = tinyworld_tokenizer()
    tokenizer.pad_token = None
    assert tokenizer.pad_token_id is None
    assert open_model(llama, tokenizer=tokenizer).tokenizer.pad_token_id is not None


def test_a_slow_tokenizer_is_refused(llama):
    with pytest.raises(ModelError, match="fast tokenizer"):
        open_model(llama, tokenizer=object())


def test_a_folder_without_tokenizer_opens_for_ids(tmp_path, llama):
    llama.save_pretrained(tmp_path / "bare")
    opened = open_model(tmp_path / "bare")
    assert opened.tokenizer is None
    assert opened(torch.tensor([[1, 2, 3]])).shape[:2] == (1, 3)


# -- bad input ------------------------------------------------------------------------------------------------------


def test_an_unknown_name_shows_the_nearest():
    with pytest.raises(ModelError, match=r"unknown model 'smolm2-135'; nearest: smollm2-135m"):
        open_model("smolm2-135")


@pytest.mark.parametrize("x", ["./nowhere", "/no/where", "~/nowhere-at-all", "model.gguf"])
def test_a_path_that_does_not_exist(x):
    with pytest.raises(ModelError, match="does not exist"):
        open_model(x)


def test_a_path_object_is_never_taken_for_a_hub_id():
    with pytest.raises(ModelError, match="does not exist"):
        open_model(Path("someone/some-model"))


def test_a_hub_id_without_network_is_one_sentence(monkeypatch):
    with pytest.raises(ModelError, match=r"someone/no-such-model could not be fetched.*no such folder\?") as caught:
        open_model("someone/no-such-model")
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(folder):
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(ModelError, match=r"pickled weights only \(pytorch_model.bin\).*refused"):
        open_model(folder)


def test_truncated_weights(folder):
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(FileFormatError, match=r"model.safetensors is truncated"):
        open_model(folder)


def test_foreign_weights(folder):
    (folder / "model.safetensors").write_bytes(b"not a tensor file at all")
    with pytest.raises(FileFormatError, match="not a safetensors file"):
        open_model(folder)


def test_a_missing_shard(folder):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": "model-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(FileFormatError, match=r"lacks model-00002.safetensors"):
        open_model(folder)


def test_missing_tensors_are_not_made_up(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.1.mlp.down_proj.weight"]
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 tensors.*layers.1.mlp.down_proj"):
        open_model(folder)


def test_a_folder_that_is_no_model(tmp_path):
    with pytest.raises(ModelError, match=r"no config.json"):
        open_model(tmp_path)


def test_an_adapter_folder_is_not_a_model(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="holds an adapter only"):
        open_model(tmp_path)


def test_a_file_that_is_no_gguf(tmp_path):
    file = tmp_path / "weights.gguf"
    file.write_bytes(b"nonsense")
    with pytest.raises(FileFormatError, match="not a GGUF file"):
        open_model(file)
    other = tmp_path / "weights.txt"
    other.write_text("")
    with pytest.raises(ModelError, match=r"not a \.gguf"):
        open_model(other)


def test_an_unknown_dtype(folder):
    with pytest.raises(ModelError, match="dtype 'int8' is not known"):
        open_model(folder, dtype="int8")


# -- edits over a base ----------------------------------------------------------------------------------------------


def test_a_delta_replaces_tensors_exactly(folder, tmp_path, tiny_llama):
    edited = tiny_llama(seed=5)
    changed = {n: t for n, t in edited.state_dict().items() if "layers.1.mlp" in n}
    save_file(changed, tmp_path / "delta.safetensors")
    opened = open_model(folder, delta=tmp_path / "delta.safetensors")
    base = load_file(folder / "model.safetensors")
    for name, tensor in opened.module.state_dict().items():
        expected = changed.get(name, base[name])
        assert torch.equal(tensor, expected), name
    assert opened.source["delta"] == str(tmp_path / "delta.safetensors")
    assert len(opened.source["delta_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "shape", "said"),
    [
        (
            "model.layers.1.mlp.down_proj.weigth",
            (16, 32),
            r"does not have; nearest: model.layers.1.mlp.down_proj.weight",
        ),
        ("model.layers.1.mlp.down_proj.weight", (16, 33), r"shape \(16, 33\), but the base has \(16, 32\)"),
    ],
)
def test_a_delta_of_another_model_changes_nothing(llama, tmp_path, name, shape, said):
    before = {n: t.clone() for n, t in llama.state_dict().items()}
    save_file({"model.norm.weight": torch.zeros(16), name: torch.zeros(shape)}, tmp_path / "delta.safetensors")
    with pytest.raises(ModelError, match=said):
        open_model(llama, delta=tmp_path / "delta.safetensors")
    assert all(torch.equal(t, before[n]) for n, t in llama.state_dict().items())


def test_a_truncated_or_pickled_delta(llama, tmp_path):
    save_file({"model.norm.weight": torch.zeros(16)}, tmp_path / "delta.safetensors")
    whole = (tmp_path / "delta.safetensors").read_bytes()
    (tmp_path / "delta.safetensors").write_bytes(whole[:-4])
    with pytest.raises(FileFormatError, match="not a whole safetensors file"):
        open_model(llama, delta=tmp_path / "delta.safetensors")
    (tmp_path / "delta.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(FileFormatError, match="pickle"):
        open_model(llama, delta=tmp_path / "delta.pt")


def test_an_adapter_is_merged(tmp_path, folder, tiny_llama):
    peft = pytest.importorskip("peft")
    torch.manual_seed(3)
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)
    trained = peft.get_peft_model(tiny_llama(), config)
    trained.save_pretrained(tmp_path / "adapter")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = trained.eval()(input_ids=ids).logits
        opened = open_model(folder, adapter=tmp_path / "adapter")
        assert torch.allclose(opened(ids), expected, atol=1e-5)
        assert not torch.allclose(open_model(folder)(ids), expected, atol=1e-3)
    assert "blocks.1.hook_resid_post" in opened.sites


def test_an_adapter_for_another_base(tmp_path, folder, tiny_llama):
    peft = pytest.importorskip("peft")
    deep = peft.get_peft_model(tiny_llama(layers=3), peft.LoraConfig(r=2, target_modules=["q_proj"]))
    deep.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="for another base"):
        open_model(folder, adapter=tmp_path / "adapter")


def test_an_adapter_folder_is_checked(tmp_path, folder):
    with pytest.raises(ModelError, match=r"no adapter_config.json"):
        open_model(folder, adapter=tmp_path)
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.bin").write_bytes(b"\x80")
    with pytest.raises(ModelError, match="pickled adapter"):
        open_model(folder, adapter=tmp_path)


# -- the zoo --------------------------------------------------------------------------------------------------------


def test_the_list_tells_what_is_ready(cache):
    rows = {row["name"]: row for row in list_models()}
    assert {"smollm2-135m", "smollm2-135m-hub", "gemma-3-270m", "tinyworld"} <= set(rows)
    assert not rows["smollm2-135m"]["ready"]
    assert not rows["tinyworld"]["ready"]
    assert rows["smollm2-135m"]["licence"] == "Apache-2.0"
    assert all(row["summary"] and row["source"] for row in rows.values())


@pytest.mark.model
def test_the_default_model_opens_and_knows_a_capital():
    model = open_model("smollm2-135m")
    assert model.lm.n_layers == 30
    assert model.lm.d_model == 576
    assert len(model.source["weights_sha256"]) == 64
    assert model.generate("The capital of Japan is", max_new_tokens=1) == [" Tokyo"]
