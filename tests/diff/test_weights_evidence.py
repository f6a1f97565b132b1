import numpy as np
import pytest
import torch

from interp_unlearn.diff import (
    Changed,
    OverlapConfig,
    block_changes,
    centre_and_breadth,
    changed_tensors,
    moved_weights,
    neuron_overlap,
    overlap_evidence,
    rounding,
    weights_evidence,
)
from interp_unlearn.diff._neuron_overlap import chance, moved_neurons, read_neurons, top_neurons
from interp_unlearn.hooked import Intervention, capture, edit, steer, wrap
from interp_unlearn.probes import LivePhases, swapped
from interp_unlearn.worlds import Entity, QASet, Target, Task

from .capitals import ask, capital_model

NAMES = ["Avia", "Borland", "Cestia", "Dorn"]
WORDS = ["[PAD]", "[UNK]", "the", "capital", "of", "is", "city", *NAMES, "Rosa", "Tula", "Milo", "Peka"]
WAYS = ("the capital of {} is", "the city of {} is")


@pytest.fixture(scope="module")
def model():
    return capital_model(WORDS, layers=5, neurons=40)


@pytest.fixture(scope="module")
def task():
    entities = [Entity(n, n, "country") for n in NAMES]
    none = QASet("none", ())
    return Task(
        "test", Target(("Avia",)), 0, "country", (entities[0],), (entities[1],), (entities[2],), (entities[3],), (),
        QASet("base", ask("Avia", "Rosa", WAYS)), QASet("paraphrased", ask("Avia", "Rosa", WAYS)), none, none, none,
        QASet("neighbours", ask("Cestia", "Tula", WAYS)), (), (),
    )  # fmt: skip


def weights(model, layers, parts=("down_proj",), scale=0.1, rank=None):
    g = torch.Generator().manual_seed(0)
    out = {}
    for name, p in model.module.named_parameters():
        if any(f"layers.{i}." in name for i in layers) and any(part in name for part in parts):
            noise = torch.randn(p.shape, generator=g)
            if rank:
                noise = torch.randn(p.shape[0], rank, generator=g) @ torch.randn(rank, p.shape[1], generator=g)
            out[name] = p.detach() + scale * noise * p.detach().norm() / noise.norm()
    return out


class Plain:
    """Phases without ``edited``."""

    def __init__(self, live):
        self.any_task, self.task, self.names = live.any_task, live.task, live.names
        self.seed, self.saes = live.seed, live.saes
        self.open, self.once = live.open, live.once


class Steered(Intervention):
    kind = "test-steered"

    def applied(self, model):
        return edit(model, steer("blocks.3.hook_resid_post", torch.ones(16), 5.0))

    def facts(self):
        return {}

    def tensors(self):
        return {}

    @classmethod
    def from_parts(cls, facts, tensors):
        return cls()


def test_centre_and_breadth_by_hand():
    assert centre_and_breadth(np.array([0.0, 0.0, 0.0, 0.0, 2.0])) == (1.0, pytest.approx(0.2))
    assert centre_and_breadth(np.ones(5)) == (pytest.approx(0.5), pytest.approx(1.0))
    centre, breadth = centre_and_breadth(np.array([1.0, 0.0, 1.0]))
    assert (centre, breadth) == (pytest.approx(0.5), pytest.approx(2 / 3))
    assert np.isnan(centre_and_breadth(np.zeros(3))).all()


def test_changed_tensors_with_and_without_a_list(model, task):
    edited = weights(model, [1, 4])
    live = LivePhases(model, task, edited={**edited, "model.norm.weight": model.module.model.norm.weight.detach()})
    one, two = changed_tensors(live), changed_tensors(Plain(live))
    assert set(one.old) == set(two.old) == set(edited)
    for name in edited:
        assert torch.equal(one.new[name], two.new[name]) and torch.equal(one.new[name], edited[name])
        assert torch.equal(one.old[name], dict(model.module.named_parameters())[name])


def test_an_edited_buffer_is_a_changed_tensor_and_counters_are_none(task):
    from torch import nn

    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    model = wrap(net.eval())
    edited = {"1.running_mean": torch.ones(4), "1.num_batches_tracked": torch.tensor(3)}
    live = LivePhases(model, task, edited=edited)
    for found in (changed_tensors(live), changed_tensors(Plain(live))):
        assert set(found.old) == set(found.new) == {"1.running_mean"}
        assert torch.equal(found.new["1.running_mean"], torch.ones(4)) and not found.old["1.running_mean"].any()
        assert "1.running_var" in found.square_norms and "1.num_batches_tracked" not in found.square_norms


def test_a_late_edit_and_an_even_one(model, task):
    late = {e.name: e for e in weights_evidence(LivePhases(model, task, edited=weights(model, [4]))).evidence}
    even = {e.name: e for e in weights_evidence(LivePhases(model, task, edited=weights(model, range(5)))).evidence}
    assert late["weights.depth/all"].value == 1 and late["weights.breadth/all"].value == pytest.approx(0.2)
    assert even["weights.depth/all"].value == pytest.approx(0.5, abs=0.03)
    assert even["weights.breadth/all"].value > 0.95
    assert late["weights.moved/all"].value == pytest.approx(0.1, rel=1e-3)
    assert 0.002 < late["weights.moved/all"].control < 0.02  # 8 bits
    assert late["weights.depth/all"].config["share_in_last_third"] == 1
    for e in late.values():
        assert e.control is not None and e.does_not_show


def test_rank_tells_adapters(model, task):
    parts = ("down_proj", "q_proj")
    low = weights_evidence(LivePhases(model, task, edited=weights(model, [2], parts, rank=1))).evidence[-1]
    full = weights_evidence(LivePhases(model, task, edited=weights(model, [2], parts))).evidence[-1]
    assert low.value == pytest.approx(1 / 16, rel=0.01)
    assert full.value == pytest.approx(full.control, rel=0.1) and full.control > 0.7


def test_nothing_moved_is_said_and_interventions_are_seen(model, task):
    same = weights_evidence(LivePhases(model, task)).evidence
    assert same[0].value == 0 and same[0].config["nothing_moved"] and "same answers" in same[0].config["said"]
    assert all(np.isnan(e.value) and "nothing moved" in e.reason for e in same[1:])
    running = weights_evidence(LivePhases(model, task, intervention=Steered())).evidence
    assert "intervention" in running[1].reason and running[0].config["answers_differ_by"] > 0


def test_broken_weights_and_weights_outside_blocks(model, task):
    broken = weights_evidence(
        LivePhases(model, task, edited={k: v * float("nan") for k, v in weights(model, [1]).items()})
    )
    assert all("broken" in e.reason for e in broken.evidence)
    head = {"lm_head.weight": model.module.lm_head.weight.detach() * 1.1}
    found = weights_evidence(LivePhases(model, task, edited=head)).evidence
    assert found[0].config["outside_blocks"]["lm_head.weight"] == pytest.approx(0.1, rel=1e-3)
    assert "no block moved" in found[1].reason and "lm_head.weight" in found[1].reason


def test_a_module_that_is_no_language_model(task):
    plain = wrap(torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)))
    old = {n: p.detach().clone() for n, p in plain.module.named_parameters()}
    changed = Changed(
        {"1.weight": old["1.weight"]},
        {"1.weight": old["1.weight"] * 2},
        {n: float(v.norm()) ** 2 for n, v in old.items()},
    )
    change, outside = block_changes(plain, changed)
    np.testing.assert_allclose(change, [0, 0, 1, 0], atol=1e-6)
    assert not outside


def test_rounding_to_8_bits():
    rows = torch.tensor([[127.0, 1.0, -3.0], [0.5, 0.0, -0.5]])
    assert rounding({"w": rows}) == pytest.approx(0, abs=1e-6)
    assert rounding({"w": torch.randn(64, 64, generator=torch.Generator().manual_seed(0))}) > 0.003


def test_overlap_by_hand():
    scores = np.array([[9.0, 8.0, 0.0, 0.0], [7.0, -9.0, 0.0, 0.0], [6.0, 0.0, 0.0, 0.0]])
    moved = np.array([[5.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 3.0, 2.0, 1.0]])
    config = OverlapConfig(fact_share=4 / 12, moved_share=0.25)
    assert top_neurons(scores, 4 / 12).sum() == 4
    assert moved_neurons(moved, 0.25).sum(1).tolist() == [1, 0, 1]
    result = neuron_overlap(scores, moved, config)
    assert result.n == 3 and result.covered == pytest.approx(3 / 4)
    assert result.share == pytest.approx(1 / 3)
    assert result.expected == pytest.approx((2 * 1 / 4 + 1 * 1 / 4) / 3)
    # at least one hit: 1 - P(no hit in layer 0) P(no hit in layer 2)
    assert result.p_value == pytest.approx(1 - (1 / 2) * (3 / 4))
    assert result.by_layer.at(quantity="both").tolist() == [1, 0, 0]
    assert np.isnan(neuron_overlap(scores, np.zeros((3, 4)), config).share)


def test_chance_is_that_of_random_draws():
    rng = np.random.default_rng(0)
    hits = [sum((rng.permutation(20)[:k] < m).sum() for k, m in ((5, 4), (3, 6))) for _ in range(4000)]
    for least in (1, 2, 4):
        assert chance(least, 20, [4, 6], [5, 3]) == pytest.approx(np.mean(np.asarray(hits) >= least), abs=0.03)
    assert chance(0, 20, [4], [5]) == 1


def test_moved_weights_belong_to_neurons(model):
    name, up = "model.layers.2.mlp.down_proj.weight", "model.layers.2.mlp.up_proj.weight"
    old = {n: dict(model.module.named_parameters())[n].detach() for n in (name, up)}
    new = {n: v.clone() for n, v in old.items()}
    new[name][:, 7] += 2.0
    new[up][9] += 1.0
    moved = moved_weights(model, Changed(old, new, {}))
    assert moved[2, 7] == pytest.approx(8.0) and moved[2, 9] == pytest.approx(4.0)
    assert np.count_nonzero(moved) == 2


def test_overlap_evidence_finds_an_edit_of_fact_neurons(model, task):
    from interp_unlearn.neurons import AttributionConfig, attribute

    settings = AttributionConfig(target="logprob", completeness_prompts=0)
    prompts = task.forget_heldout.prompts
    scores = attribute(model, [p.text for p in prompts], [p.answer for p in prompts], settings).scores.values.mean(0)
    top = top_neurons(scores, 0.05)
    edited = {}
    for layer in np.flatnonzero(top.any(1)):
        name = f"model.layers.{layer}.mlp.down_proj.weight"
        edited[name] = dict(model.module.named_parameters())[name].detach().clone()
        edited[name][:, top[layer]] = 0
    config = OverlapConfig(fact_share=0.05, moved_share=0.1)
    weights_, activations = overlap_evidence(LivePhases(model, task, edited=edited), config).evidence
    assert weights_.value > 0.7 and weights_.config["p_value"] < 0.01 and weights_.control < 0.2
    assert weights_.interval is not None and weights_.config["neighbour_share"] is not None
    assert np.isfinite(activations.value)
    read = read_neurons(LivePhases(model, task, edited=edited), 4)
    site = f"blocks.{model.lm.n_layers - 1}.mlp.hook_post"
    texts = [p.full for p in read.target]
    before = capture(model, texts, [site]).flat(site)
    with swapped(model, edited):
        after = capture(model, texts, [site]).flat(site)
    np.testing.assert_allclose(read.activations[-1], (after - before).abs().mean(0), atol=1e-5)
    none, still = overlap_evidence(LivePhases(model, task), config).evidence
    assert "no neuron's weights moved" in none.reason and "no neuron's activation moved" in still.reason
