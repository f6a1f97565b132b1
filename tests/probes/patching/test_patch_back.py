from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.hooked import AnswerBatch, Edit, Intervention, batch_from_ids, edit, wrap
from interp_unlearn.probes import (
    Forced,
    LivePhases,
    PatchBackConfig,
    Patcher,
    Plan,
    exchange,
    forced,
    krs_curves,
    lost_share,
    patch_back_evidence,
    patch_states,
    restored_share,
    retrieval_score,
    run_plans,
    states,
    swapped,
    trace_evidence,
    uds_evidence,
)
from interp_unlearn.probes._patching import BLOCK, row_means, site_of
from interp_unlearn.worlds import QASet

WHOLE = PatchBackConfig(places=("answer", "name"), krs_mlp="output")


@pytest.fixture
def prompts(task):
    return list(task.forget_heldout.prompts)


def test_places(model, task):
    rows = forced(model, [task.forget_heldout.prompts[0]])
    tokens = model.tokenizer.convert_ids_to_tokens(rows.encoded.batch.tokens[0].tolist())
    words = {place: [t for t, on in zip(tokens, rows.at(place)[0], strict=True) if on] for place in
             ("name", "name_end", "prompt_end", "answer")}  # fmt: skip
    assert words == {"name": ["New", "Avia"], "name_end": ["Avia"], "prompt_end": ["capital"], "answer": ["capital"]}
    assert torch.equal(rows.at("content"), rows.at("all") & (rows.encoded.batch.tokens != 2))  # all but [BOS]
    with pytest.raises(ConfigError, match="which have no control"):
        PatchBackConfig(places=("content",))
    two = forced(model, [task.forget_heldout.prompts[2]])  # Nova Tula
    assert two.at("answer").sum() == 2 and two.at("prompt_end").sum() == 1
    with pytest.raises(DataError, match="no token of the place"):
        forced(model, [replace(task.forget_heldout.prompts[0], name_span=(0, 0))]).at("name")


@pytest.mark.parametrize("shortcut", [True, False])
def test_a_pass_from_the_middle_is_a_whole_pass(model, prompts, hidden, shortcut):
    rows = forced(model, prompts)
    sites = [site_of(i, k) for i in range(4) for k in (BLOCK, "hook_mlp_out", "hook_attn_out")]
    with swapped(model, hidden):
        given = {k: v + 0.3 for k, v in states(model, rows, sites).items()}
    plans = [Plan((site,), "name_end", given, "all") for site in sites]
    patcher = Patcher(model, rows, shortcut=shortcut)
    assert patcher.shortcut == shortcut
    whole = run_plans(model, rows, plans, shortcut=False)
    torch.testing.assert_close(run_plans(model, rows, plans, shortcut=shortcut), whole, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(whole[0], whole[4])


def test_all_block_outputs_of_the_original_give_its_answer_back(model, prompts, hidden):
    original = patch_states(model, prompts, WHOLE)
    rows = forced(model, prompts)
    with swapped(model, hidden):
        back = exchange(model, prompts, original, config=WHOLE)
        errors = retrieval_score(model, prompts, original, WHOLE)
    share = restored_share(back, row_means(rows, original["logprob"]).tolist())
    kinds = back.axes[0].labels
    assert kinds == ("block", "mlp", "attention")
    # the last block alone was edited: its output and its MLP's return everything, nothing before does
    np.testing.assert_allclose(share.curves[0, 0], [0, 0, 0, 1], atol=1e-4)
    np.testing.assert_allclose(share.curves[1, 0], [0, 0, 0, 1], atol=1e-4)
    np.testing.assert_allclose(share.curves[2, 0], 0, atol=1e-4)
    np.testing.assert_allclose(share.curves[:, 1], 0, atol=1e-4)
    krs = krs_curves(errors)
    np.testing.assert_allclose(krs[0], [0, 0, 0, 1], atol=1e-4)
    np.testing.assert_allclose(krs[1], 0, atol=1e-4)


def test_an_edit_of_the_first_block_is_lost_early_and_read_late(model, prompts, moved):
    with swapped(model, moved):
        edited = patch_states(model, prompts, WHOLE)
    taken = exchange(model, prompts, edited, config=WHOLE, kinds=("block",))
    share = lost_share(taken, row_means(forced(model, prompts), edited["logprob"]).tolist())
    # later blocks are the original's: the whole answer is lost wherever all predicting tokens are replaced late enough
    assert share.curves[0, 0, -1] == pytest.approx(1, abs=1e-4)
    assert share.curves[0, :, 0].max() > 0.05
    value, span = share.mean(0, 0, forced(model, prompts).clusters, np.random.default_rng(0))
    assert span is not None and span[0] <= value <= span[1]


def test_evidence_tells_a_late_edit_from_an_early_one(phases, hidden, moved):
    config = PatchBackConfig(unknown=1, stride=2)
    late, early = (patch_back_evidence(phases(d), config) for d in (hidden, moved))
    names = [e.name for e in late.evidence]
    places = ("name", "name_end", "prompt_end")
    assert names == [f"patch_back.{k}/{p}" for k in ("restored", "lost") for p in places] + ["patch_back.krs/both"]
    by_late, by_early = ({e.name: e for e in f.evidence} for f in (late, early))
    assert by_late["patch_back.restored/name"].value == pytest.approx(0, abs=1e-3)
    assert by_late["patch_back.lost/prompt_end"].value < by_early["patch_back.lost/prompt_end"].value
    krs = by_late["patch_back.krs/both"]
    assert krs.config["best_layer"] == "3" and krs.control < krs.value
    for e in (*late.evidence, *early.evidence):
        assert e.control is not None and e.control_name and e.does_not_show and np.isfinite(e.value)
    assert set(late.tables) == {"patch_back.restored", "patch_back.lost", "patch_back.krs"}
    assert late.tables["patch_back.restored"].axes[0].labels == ("block", "mlp", "attention", "unknown")


class Blinded(Intervention):
    """The last token of the prompt leaves the second block as zeros; no weight is touched."""

    kind = "test-blinded"

    def applied(self, model):
        ids = torch.tensor(model.tokenizer.convert_tokens_to_ids(["capital", "is"]))

        def change(x, view):
            return torch.where(torch.isin(view.tokens, ids)[..., None], torch.zeros_like(x), x)

        return edit(model, Edit("blocks.1.hook_resid_post", change, sees_tokens=True))

    def facts(self):
        return {}

    def tensors(self):
        return {}

    @classmethod
    def from_parts(cls, facts, tensors):
        return cls()


def test_what_an_intervention_clears_returns_with_its_states(model, task):
    live = LivePhases(model, task, intervention=Blinded())
    config = PatchBackConfig(places=("prompt_end",))
    found = patch_back_evidence(live, config)
    for kind in ("restored", "lost"):
        table = found.tables[f"patch_back.{kind}"]
        assert table.at(kind="block", place="prompt_end", layer="1") == pytest.approx(1, abs=1e-3), kind
    early = found.tables["patch_back.restored"].at(kind="block", place="prompt_end", layer="0")
    assert early == pytest.approx(0, abs=1e-3)


def test_places_that_are_the_same_tokens_are_patched_once(model, task, hidden):
    config = PatchBackConfig(places=("name", "name_end", "prompt_end"))
    for fact, repeats in (("borland", True), ("new avia", False)):
        prompts = [p for p in task.forget_heldout.prompts if p.entity == fact]
        given = {k: v + 0.5 for k, v in patch_states(model, prompts, config).items()}
        passes = []
        out = exchange(model, prompts, given, config=config, kinds=("block",), step=partial(passes.append, 1))
        assert len(passes) == (8 if repeats else 12)
        assert np.array_equal(out.at(place="name"), out.at(place="name_end")) == repeats
        alone = exchange(model, prompts, given, config=PatchBackConfig(places=("prompt_end",)), kinds=("block",))
        np.testing.assert_allclose(out.at(place="prompt_end"), alone.at(place="prompt_end"), atol=1e-4)


def test_nothing_to_bring_back_and_a_broken_model_have_reasons(phases, noise):
    for found, why in (
        (patch_back_evidence(phases(), PatchBackConfig(max_prompts=1)), "nothing to bring back"),
        (patch_back_evidence(phases({n: v * float("nan") for n, v in noise(1.0).items()})), "broken"),
    ):
        assert len(found.evidence) == 7
        assert all(np.isnan(e.value) and why in e.reason for e in found.evidence)


def test_questions_without_a_marked_name_have_a_reason(model, task, hidden):
    bare = QASet("p", tuple(replace(p, name_span=(0, 0)) for p in task.forget_heldout.prompts))
    live = LivePhases(model, replace(task, forget_heldout=bare), edited=hidden)
    for found in (patch_back_evidence(live), trace_evidence(live), uds_evidence(live)):
        assert "marks the entity's name" in found.evidence[-1].reason


def test_states_of_other_rows_are_refused(model, prompts, task):
    given = patch_states(model, prompts, WHOLE)
    with pytest.raises(DataError, match="same rows"):
        exchange(model, list(task.neighbours.prompts), given, config=WHOLE)
    rows = forced(model, prompts)
    with pytest.raises(DataError, match="do not hold"):
        Plan((), "name", given, "answer").check(rows)


def test_default_depths_and_windows():
    config = PatchBackConfig()
    assert config.layers(30) == [1, 5, 9, 13, 17, 21, 25, 29]
    assert config.blocks(29, 30) == [25, 26, 27, 28, 29]
    assert config.layers(4) == [0, 1, 2, 3] and config.blocks(2, 4) == [2]
    assert replace(config, window=3).blocks(1, 30) == [0, 1]
    for wrong in ({"places": ("all",)}, {"places": ()}, {"unknown": 0}, {"stride": -1}, {"min_gap": 0.0}):
        with pytest.raises(ConfigError):
            PatchBackConfig(**wrong)


def test_left_padding_and_other_architectures(tokenizer):
    """Blocks that return tuples, and rows padded on the left."""
    import transformers

    config = transformers.GPT2Config(vocab_size=len(tokenizer), n_embd=16, n_layer=3, n_head=2, n_positions=32)
    torch.manual_seed(0)
    model = wrap(transformers.GPT2LMHeadModel(config).eval(), tokenizer)
    ids = [[2, 5, 6, 7, 8], [2, 9, 10]]
    out = []
    for side in ("left", "right"):
        batch = batch_from_ids(ids, padding_side=side)
        last = torch.zeros_like(batch.attended)
        last[torch.arange(2), batch.index_of(torch.tensor([[-1], [-1]]))[:, 0]] = True
        rows = Forced(AnswerBatch(batch, last), last.roll(-1, 1), ("a", "b"), ("t", "t"), ("x", "y"))
        sites = [site_of(i, BLOCK) for i in range(3)]
        given = {k: v + 0.5 for k, v in states(model, rows, sites, "name").items()}
        out.append(run_plans(model, rows, [Plan((s,), "name", given, "name") for s in sites], batch_size=1))
    torch.testing.assert_close(out[0], out[1], atol=1e-4, rtol=1e-4)
