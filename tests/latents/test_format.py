import json
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from interp_unlearn._core import ConfigError, FileFormatError
from interp_unlearn.latents import identity_basis, list_saes, load_sae, read_sae, save_sae

from .conftest import SITE, make_sae

KINDS = ["relu", "jumprelu", "batchtopk", "topk"]


@pytest.fixture(scope="module")
def lens():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("sae_lens")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", [1.0, 0.2])
def test_saelens_reads_what_we_write(tmp_path, lens, kind: str, scale: float):
    sae = make_sae(kind, input_scale=scale)
    save_sae(sae, tmp_path)
    theirs = lens.SAE.load_from_disk(tmp_path)
    x = torch.randn(20, 16) / scale
    torch.testing.assert_close(theirs.encode(x), sae.encode(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(theirs(x), sae(x), rtol=1e-4, atol=1e-4)
    assert theirs.cfg.metadata.hook_name == SITE
    again = load_sae(tmp_path)
    torch.testing.assert_close(again.encode(x), sae.encode(x), rtol=1e-4, atol=1e-4)
    assert (again.site, again.k) == (sae.site, sae.k)


@pytest.mark.parametrize("architecture", ["standard", "topk", "jumprelu", "gated"])
def test_we_read_what_saelens_writes(tmp_path, lens, architecture: str):
    name = {"standard": "Standard", "topk": "TopK", "jumprelu": "JumpReLU", "gated": "Gated"}[architecture]
    options = {"k": 5, "rescale_acts_by_decoder_norm": True} if architecture == "topk" else {}
    config = getattr(lens, f"{name}SAEConfig")(d_in=16, d_sae=40, **options)
    config.metadata.hook_name = SITE
    theirs = getattr(lens, f"{name}SAE")(config)
    for parameter in theirs.parameters():
        parameter.data = 0.5 * torch.randn_like(parameter)
    theirs.save_model(tmp_path)
    ours = load_sae(tmp_path)
    x = torch.randn(30, 16)
    z = ours.encode(x)
    torch.testing.assert_close(ours.decode(z), theirs.decode(theirs.encode(x)).detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(z, theirs.encode(x).detach(), rtol=1e-4, atol=1e-4)
    assert 0 < int((z != 0).sum()) < z.numel()


def test_a_batchtopk_training_file_is_read_with_its_threshold(tmp_path):
    sae = make_sae("relu")
    tensors = {"W_enc": sae.W_enc, "b_enc": sae.b_enc, "W_dec": 2 * sae.W_dec, "b_dec": sae.b_dec}
    save_file({**{k: v.clone() for k, v in tensors.items()}, "topk_threshold": torch.tensor(0.7)},
              tmp_path / "sae_weights.safetensors")  # fmt: skip
    config = {"architecture": "batchtopk", "rescale_acts_by_decoder_norm": True, "metadata": {"hook_name": SITE}}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    ours = read_sae(tmp_path)
    x = torch.randn(10, 16)
    a = 2 * sae.pre_activations(x)
    torch.testing.assert_close(ours.encode(x), a * (a > 0.7))
    torch.testing.assert_close(ours.W_dec.norm(dim=1), torch.ones(48))


def test_a_release_is_fetched_through_saelens(tmp_path, lens, monkeypatch):
    save_sae(make_sae("jumprelu"), tmp_path)
    local = lens.SAE.load_from_disk(tmp_path)
    asked: list[tuple[str, str]] = []

    def fetch(release: str, sae_id: str):
        asked.append((release, sae_id))
        if sae_id == "none":
            raise ValueError("no such id")
        return local

    monkeypatch.setattr(lens.SAE, "from_pretrained", fetch)
    sae = load_sae("a-release", "layer_1")
    assert (sae.kind, sae.site, sae.name, asked) == ("jumprelu", SITE, "a-release/layer_1", [("a-release", "layer_1")])
    torch.testing.assert_close(sae.W_enc, make_sae("jumprelu").W_enc)
    with pytest.raises(ConfigError, match="could not load"):
        load_sae("a-release", "none")


def test_half_precision_files_compute_in_float32(tmp_path):
    save_sae(make_sae("topk"), tmp_path, dtype=torch.float16)
    assert load_file(tmp_path / "sae_weights.safetensors")["W_enc"].dtype == torch.float16
    assert load_sae(tmp_path).encode(torch.randn(2, 16)).dtype == torch.float32


def test_older_flat_configurations(tmp_path):
    save_sae(make_sae("relu"), tmp_path)
    old = {"d_in": 16, "d_sae": 48, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 4}, "hook_point": SITE}
    (tmp_path / "cfg.json").write_text(json.dumps(old))
    sae = load_sae(tmp_path)
    assert (sae.kind, sae.k, sae.site) == ("topk", 4, SITE)


def test_bad_folders_are_one_clear_sentence(tmp_path):
    with pytest.raises(FileFormatError, match=r"sae_weights.safetensors is missing"):
        load_sae(tmp_path)
    (tmp_path / "ae.pt").write_bytes(b"\x80\x04")
    with pytest.raises(FileFormatError, match=r"it holds ae.pt"):
        load_sae(tmp_path)
    with pytest.raises(FileFormatError, match="is a file"):
        load_sae(tmp_path / "ae.pt")
    good = tmp_path / "good"
    save_sae(make_sae("topk"), good)
    weights = good / "sae_weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(FileFormatError, match="truncated"):
        load_sae(good)
    save_file({"W_enc": torch.zeros(2, 2)}, weights)
    with pytest.raises(FileFormatError, match="lack W_dec, b_dec"):
        load_sae(good)
    weights.write_bytes(whole)
    config = json.loads((good / "cfg.json").read_text())
    for change, words in [
        ({"architecture": "transcoder"}, "'transcoder' SAE; supported"),
        ({"normalize_activations": "layer_norm"}, "normalises each input"),
        ({"reshape_activations": "hook_z"}, "flattened heads"),
    ]:
        (good / "cfg.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(ConfigError, match=words):
            load_sae(good)
    (good / "cfg.json").write_text(json.dumps({**config, "metadata": {}}))
    with pytest.raises(FileFormatError, match="names no hook point"):
        load_sae(good)


def test_unknown_names_show_what_is_shipped():
    with pytest.raises(ConfigError, match="give a shipped name"):
        load_sae("smollm2-135m/nothing-like-it")


def test_the_identity_basis_is_not_saved(tmp_path):
    with pytest.raises(ConfigError, match="SAELens cannot hold"):
        save_sae(identity_basis(4, SITE), tmp_path)


def test_shipped_saes_are_small_and_whole(lens):
    names = list_saes()
    assert len(names) >= 2
    main = load_sae("smollm2-135m")
    assert main.name in names and (main.d_in, main.site) == (576, "blocks.12.hook_resid_post")
    from interp_unlearn.latents._load import shipped_folder

    root = shipped_folder()
    assert root is not None
    for name in names:
        sae = load_sae(name)
        assert (root / name / "sae_weights.safetensors").stat().st_size <= 16e6
        assert (root / name / "README.md").is_file()
        torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(sae.d_sae), rtol=2e-3, atol=2e-3)
    theirs = lens.SAE.load_from_disk(root / main.name)
    x = 5 * torch.randn(4, 576)
    torch.testing.assert_close(theirs.encode(x), main.encode(x), rtol=1e-4, atol=1e-3)
