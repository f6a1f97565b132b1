import json

import pytest
import torch
from tokenizers import processors

from interp_unlearn._core import ConfigError, DataError, TrainingDivergedError
from interp_unlearn.latents import SAETrainConfig, TensorSource, evaluate_sae, load_sae, reconstruction, train_sae
from interp_unlearn.latents._sparse_topk import sparse_topk_sae

from ..tiny_models import tiny_module, word_tokenizer
from .conftest import SITE, make_sae, sparse_rows


def recipe(**changes) -> SAETrainConfig:
    base = {
        "site": SITE, "d_sae": 96, "k": 3, "samples": 200 * 128, "batch_size": 128, "lr": 1e-2, "warmup_steps": 5,
        "checkpoint_every": 20,
    }  # fmt: skip
    return SAETrainConfig.from_dict({**base, **changes})


@pytest.mark.parametrize(
    ("architecture", "least"), [("topk", 0.93), ("batchtopk", 0.92), ("jumprelu", 0.93)]
)  # fmt: skip
def test_sparse_synthetic_data_is_explained(tmp_path, architecture: str, least: float):
    sae = train_sae(recipe(architecture=architecture), tmp_path, data=sparse_rows(4096), progress=False)
    held_out = reconstruction(sae, sparse_rows(1000, seed=1))
    assert held_out.explained_variance >= least
    assert held_out.l0 <= 4
    torch.testing.assert_close(sae.W_dec.norm(dim=1), torch.ones(96))
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cfg.json", "recipe.json", "sae_weights.safetensors", "train.jsonl",
    ]  # fmt: skip
    assert json.loads((tmp_path / "cfg.json").read_text())["metadata"]["recipe"]["d_sae"] == 96
    assert load_sae(tmp_path).site == SITE


def test_dense_and_sparse_topk_steps_agree(tmp_path):
    pytest.importorskip("sae_lens")
    import sae_lens
    from sae_lens.saes.sae import TrainStepInput

    def config():
        return sae_lens.TopKTrainingSAEConfig(
            d_in=16, d_sae=40, k=5, rescale_acts_by_decoder_norm=False, decoder_init_norm=1.0
        )

    ours, theirs = sparse_topk_sae(config()), sae_lens.TopKTrainingSAE(config())
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(64, 16)
    for dead in (torch.zeros(40, dtype=torch.bool), torch.arange(40) < 12):
        outputs = []
        for sae in (ours, theirs):
            sae.zero_grad()
            outputs.append(sae.training_forward_pass(TrainStepInput(x, {}, dead, 0, False)))
            outputs[-1].loss.backward()
        torch.testing.assert_close(outputs[0].loss, outputs[1].loss)
        torch.testing.assert_close(outputs[0].feature_acts, outputs[1].feature_acts)
        for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("architecture", ["topk", "batchtopk", "jumprelu"])
def test_a_resumed_training_equals_an_uninterrupted_one_bit_for_bit(tmp_path, architecture: str):
    config = recipe(architecture=architecture, samples=50 * 128, dead_window=5)
    rows = sparse_rows(2000)
    whole = train_sae(config, tmp_path / "a", data=rows, progress=False)
    train_sae(config, tmp_path / "b", data=rows, progress=False, stop_after=33)
    assert (tmp_path / "b/checkpoint.json").is_file()
    resumed = train_sae(config, tmp_path / "b", data=rows, progress=False)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not (tmp_path / "b/checkpoint.json").exists()
    assert torch.equal(train_sae(config, tmp_path / "b", data=rows).W_enc, whole.W_enc)  # finished: only read
    with pytest.raises(ConfigError, match="another recipe"):
        train_sae(recipe(seed=5), tmp_path / "b", data=rows, progress=False)


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path):
    rows = sparse_rows(1000)
    train_sae(recipe(), tmp_path, data=rows, progress=False, stop_after=21)
    with pytest.raises(ConfigError, match="checkpoint of another recipe"):
        train_sae(recipe(lr=0.002), tmp_path, data=rows, progress=False)


def test_massive_rows_are_left_out(tmp_path):
    rows = sparse_rows(2000)
    spoiled = rows.clone()
    spoiled[::50] *= 1000
    sae = train_sae(recipe(), tmp_path, data=spoiled, progress=False)
    found = reconstruction(sae, torch.cat([sparse_rows(500, seed=1), spoiled[:1]]))
    assert found.explained_variance > 0.93
    assert (found.n, found.massive) == (500, 1)


def test_nan_activations_are_refused(tmp_path):
    rows = sparse_rows(1000)
    rows[700] = float("nan")
    with pytest.raises(DataError, match="NaN"):
        train_sae(recipe(), tmp_path, data=rows, progress=False)


def test_a_diverging_loss_stops_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    from interp_unlearn.latents import _train

    honest = _train._stream

    def poisoned(*args):
        for step, batch in enumerate(honest(*args)):
            yield batch * float("inf") if step == 30 else batch

    monkeypatch.setattr(_train, "_stream", poisoned)
    with pytest.raises(TrainingDivergedError, match="at step 30"):
        train_sae(recipe(), tmp_path, data=sparse_rows(1000), progress=False)
    assert json.loads((tmp_path / "checkpoint.json").read_text())["step"] == 20


def test_a_source_gives_every_row_once_in_a_seeded_order():
    rows = torch.arange(10.0)[:, None]
    a, b = (torch.cat(list(TensorSource(rows).iter_batches(4, seed=s)))[:, 0].tolist() for s in (1, 2))
    assert sorted(a) == sorted(b) == list(range(10)) and a != b
    assert a == torch.cat(list(TensorSource(rows).iter_batches(3, seed=1)))[:, 0].tolist()


def test_every_row_of_a_text_begins_with_the_bos_token():
    from interp_unlearn.hooked import text_windows, wrap
    from interp_unlearn.latents import token_rows

    tokenizer = word_tokenizer("the cat sat on a mat", bos=True)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )
    model = wrap(tiny_module("llama", vocab=len(tokenizer), width=16, heads=2), tokenizer)
    text = "the cat sat on a mat " * 5
    rows = token_rows(model, [text, "", "cat"], 8)
    assert {row[0] for row in rows} == {tokenizer.bos_token_id} and {len(row) for row in rows[:4]} == {8}
    assert [list(row) for row in rows] == text_windows(model, [text, "cat"], 8)
    assert token_rows(model, [text, "cat"], 8, shortest=4) == tuple(row for row in rows if len(row) >= 4)
    with pytest.raises(DataError, match="at least 9 tokens"):
        token_rows(model, [text], 8, shortest=9)
    with pytest.raises(DataError, match="no row"):
        token_rows(model, [" "], 8)


def test_training_from_the_on_disk_store(tmp_path, tiny_model):
    from interp_unlearn.hooked import write_store
    from interp_unlearn.latents import token_rows

    texts = ["the cat sat on a mat and a big dog ran to the red house " * 8, "small blue tree and red cat " * 6] * 6
    rows = token_rows(tiny_model, texts, 16)
    store = write_store(tiny_model, rows, SITE, tmp_path / "acts", progress=False)
    config = recipe(d_sae=32, samples=20 * 64, batch_size=64, checkpoint_every=7)
    whole = train_sae(config, tmp_path / "a", data=store, progress=False)
    assert (whole.d_in, whole.d_sae) == (16, 32)
    train_sae(config, tmp_path / "b", data=store, progress=False, stop_after=15)
    assert torch.equal(train_sae(config, tmp_path / "b", data=store, progress=False).W_dec, whole.W_dec)
    with pytest.raises(ConfigError, match="were read at"):
        train_sae(recipe(site="blocks.0.hook_resid_post"), tmp_path / "c", data=store, progress=False)


def test_too_little_data_is_said(tmp_path):
    with pytest.raises(DataError, match="fewer than a batch"):
        train_sae(recipe(), tmp_path, data=sparse_rows(100), progress=False)


def test_learning_rate_warms_up_and_decays():
    config = recipe(samples=100 * 128, warmup_steps=10, decay_share=0.5, lr=0.01)
    assert config.lr_at(0) == pytest.approx(0.001)
    assert config.lr_at(30) == pytest.approx(0.01)
    assert config.lr_at(75) == pytest.approx(0.005)
    assert config.lr_at(99) == pytest.approx(0.01 * 0.02)


def test_recipes_are_read_from_toml(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text('[sae]\nsite = "blocks.1.hook_resid_post"\nd_sae = 64\nk = 8\nlr = 1e-3\ntexts = ["a/*.txt"]\n')
    config = SAETrainConfig.from_toml(path)
    assert (config.d_sae, config.k, config.texts) == (64, 8, ("a/*.txt",))
    for text, words in [
        ("d_sae = 4", "lacks 'site'"),
        ('site = "x"\nd_sea = 4', "nearest: d_sae"),
        ('site = "x"\nd_sae = "many"', "d_sae must be of type int"),
        ('site = "x"\nd_sae = 4\nk = 5', "lower k"),
        ('site = "x"\nd_sae = 4\nk=1\nlr = 3.0', "lr must lie"),
        ("site = ", "not valid TOML"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=words):
            SAETrainConfig.from_toml(path)
    with pytest.raises(ConfigError, match="does not exist"):
        SAETrainConfig.from_toml(tmp_path / "none.toml")


def test_evaluation_splices_reconstructions_into_the_model(tiny_model):
    from interp_unlearn.latents import identity_basis

    texts = ["the cat sat on a mat and a big dog ran to the red house " * 8, "small blue tree and red cat " * 6]
    perfect = evaluate_sae(identity_basis(16, SITE), tiny_model, texts, context=16, batch_size=3)
    assert perfect.explained_variance == pytest.approx(1.0, abs=1e-6)
    assert perfect.loss_sae == pytest.approx(perfect.loss, abs=1e-6)
    assert perfect.recovered == pytest.approx(1.0, abs=1e-4)
    assert perfect.loss_zero != perfect.loss and perfect.loss_mean != perfect.loss
    poor = evaluate_sae(make_sae("topk", k=1), tiny_model, texts, context=16, batch_size=3)
    assert poor.l0 <= 1 and poor.explained_variance < 1 and poor.loss_sae != poor.loss
    assert json.loads(json.dumps(poor.to_dict()))["mask_policy"] == "inner"
    assert poor.n == perfect.n and poor.n_loss == perfect.n_loss > 0
    unmeasured = evaluate_sae(make_sae(), tiny_model, texts, context=16, loss_tokens=0)
    assert unmeasured.loss != unmeasured.loss and unmeasured.n_loss == 0
