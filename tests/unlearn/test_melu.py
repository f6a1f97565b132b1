"""MELU's samplers: pairing by hand, counts of the released data, equal updates."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import ConfigError, DataError
from interp_unlearn.unlearn import SAMPLERS, Item, Pools, Recipe
from interp_unlearn.unlearn.samplers import equal_updates, exposure, steps_of_epochs

PAIRED = ["balanced", "cyclic", "modular", "random"]


def pools(forget, near=(), general=0):
    """``forget``: entity of each item; ``near``: (kind, target) of each retain item; then general items."""
    retain = [Item(f"r{i}", neighbour=kind, target=target) for i, (kind, target) in enumerate(near)]
    retain += [Item(f"g{i}", neighbour="general") for i in range(general)]
    return Pools(tuple(Item(e) for e in forget), tuple(retain))


def made(name, given, batch=1, seed=0, retain_batch=None, **options):
    sampler = SAMPLERS[name](SAMPLERS[name].Options(**options))
    sampler.prepare(given, batch_size=batch, retain_batch_size=retain_batch or batch, seed=seed)
    return sampler


def epoch(sampler, steps):
    return [pair for s in range(steps) for pair in zip(sampler.draw(s).forget, sampler.draw(s).retain, strict=True)]


TOY = pools("AAB", [("direct", "A")] * 2 + [("indirect", "A")] + [("direct", "B"), ("indirect", "B")], general=1)


def test_modules_by_hand():
    """F = {A: a1 a2, B: b1}, N = {A: x1 x2 x3, B: y1 y2}, one general item."""
    sampler = made("modular", TOY, order="file")
    pairs = epoch(sampler, 6)
    assert pairs[:5] == [(0, 0), (1, 1), (0, 2), (2, 3), (2, 4)]
    assert pairs[5][1] == 5
    assert sampler.epoch_length == 6
    assert [list(m) for m in sampler.modules] == [[0, 1, 2], [3, 4], [5]]


def test_more_forget_items_than_neighbours_go_round_the_neighbours():
    assert epoch(made("modular", pools("AAA", [("direct", "A")] * 2), order="file"), 3) == [(0, 0), (1, 1), (2, 0)]


def released():
    """The sizes of the released data: 20 people, 98 forget items, 364 direct, 1144 indirect, 293 general."""
    forget = [f"p{i % 20}" for i in range(98)]
    near = [("direct", f"p{i % 20}") for i in range(364)] + [("indirect", f"p{i % 20}") for i in range(1144)]
    return pools(forget, near, 293)


def test_epoch_lengths_of_the_released_data():
    data = released()
    lengths = {name: made(name, data).epoch_length for name in (*PAIRED, "paired", "sequential")}
    assert lengths == {
        "paired": 98,
        "sequential": 98,
        "random": 98,
        "cyclic": 1801,
        "balanced": 1021,
        "modular": 1508 + 293,
    }
    assert made("cyclic", data, neighbours=("direct", "general")).epoch_length == 364 + 293
    assert made("cyclic", data, neighbours=("indirect", "general")).epoch_length == 1144 + 293


def test_cyclic_uses_every_retain_item_once_and_forget_items_evenly():
    pairs = epoch(made("cyclic", released(), batch=7), -(-1801 // 7))[:1801]
    assert sorted(r for _, r in pairs) == list(range(1801))
    assert Counter(Counter(f for f, _ in pairs).values()) == {19: 37, 18: 61}


def test_modular_pairs_by_topic_and_uses_every_retain_item_once():
    data = released()
    pairs = made("modular", data).pairs
    near = [(f, r) for f, r in pairs if data.retain[r].neighbour != "general"]
    assert all(data.forget[f].entity == data.retain[r].target for f, r in near)
    assert sorted(r for _, r in pairs) == list(range(1801))
    for target in {i.entity for i in data.forget}:
        counts = Counter(f for f, r in near if data.retain[r].target == target)
        assert max(counts.values()) - min(counts.values()) <= 1
        assert set(counts) == {i for i, item in enumerate(data.forget) if item.entity == target}


def test_balanced_has_as_many_indirect_as_direct_neighbours_of_each_target():
    near = [("direct", "A")] * 2 + [("indirect", "A")] * 5 + [("direct", "B")] * 3 + [("indirect", "B")] * 1
    data = pools("AB", near, general=4)
    used = {r for _, r in made("balanced", data).pairs}
    count = Counter((data.retain[r].neighbour, data.retain[r].target) for r in used)
    assert count == {
        ("direct", "A"): 2,
        ("indirect", "A"): 2,
        ("direct", "B"): 3,
        ("indirect", "B"): 1,
        ("general", ""): 4,
    }


def test_kinds_of_neighbours_can_be_left_out():
    data = released()
    kinds = lambda n: {data.retain[r].neighbour for _, r in made("cyclic", data, neighbours=n).pairs}  # noqa: E731
    assert kinds(("direct", "general")) == {"direct", "general"}
    assert kinds(("indirect", "general")) == {"indirect", "general"}


@pytest.mark.parametrize("name", PAIRED)
def test_the_recipes_seed_changes_the_order_alone(name):
    data = released()
    one, same, other = made(name, data), made(name, data), made(name, data, seed=1)
    assert one.pairs == same.pairs == other.pairs
    assert [one.draw(s) for s in range(9)] == [same.draw(s) for s in range(9)] != [other.draw(s) for s in range(9)]
    if name in ("balanced", "modular"):
        assert made(name, data, pair_seed=1).pairs != one.pairs


def test_general_items_meet_forget_items_by_pairs_or_evenly():
    data = pools("AAB", [("direct", "A")] * 2 + [("direct", "B")] * 198, general=3000)
    share = lambda how: (  # noqa: E731
        sum(f == 2 for f, r in made("modular", data, general_draw=how).pairs if r >= 200) / 3000
    )
    assert share("pairs") == pytest.approx(198 / 200, abs=0.02)
    assert share("items") == pytest.approx(1 / 3, abs=0.04)


@settings(max_examples=25)
@given(batch=st.integers(1, 7), seed=st.integers(0, 99), order=st.sampled_from(["file", "shuffled"]))
def test_entity_pure_batches_hold_one_module_each(batch, seed, order):
    data = pools("AABBB", [("direct", "A")] * 5 + [("indirect", "B")] * 4, general=3)
    sampler = made("modular", data, batch=batch, seed=seed, batches="entity", order=order)
    seen = Counter()
    for step in range(len(sampler.blocks)):
        draw = sampler.draw(step)
        assert len(draw.forget) == len(draw.retain) == batch
        assert len({data.retain[r].target for r in draw.retain}) == 1
        seen.update(draw.retain)
    assert set(seen) == set(range(12))
    assert sampler.epoch_length == batch * len(sampler.blocks)


def test_random_draws_a_fresh_partner_each_time():
    sampler = made("random", pools("ABC", [("direct", "A")] * 50), batch=3)
    assert all(sorted(sampler.draw(s).forget) == [0, 1, 2] for s in range(9))
    partners = Counter(r for s in range(200) for r in sampler.draw(s).retain)
    assert len(partners) == 50
    assert max(partners.values()) > min(partners.values())


@pytest.mark.parametrize("name", PAIRED)
def test_without_retain_data_forget_items_come_alone(name):
    sampler = made(name, pools("AAB"), batch=2, retain_batch=8)
    assert Counter(f for s in range(3) for f in sampler.draw(s).forget) == {0: 2, 1: 2, 2: 2}
    assert sampler.draw(0).retain == ()


@pytest.mark.parametrize("name", PAIRED)
def test_pairs_need_sides_of_one_size(name):
    with pytest.raises(ConfigError, match="set both to the same number of pairs"):
        made(name, TOY, batch=2, retain_batch=3)


def test_what_cannot_be_paired_is_refused():
    lonely = pools("AB", [("direct", "A")], general=2)
    with pytest.raises(DataError, match="but B has none in the retain set"):
        made("modular", lonely)
    skipped = made("modular", lonely, uncovered="skip")
    assert {f for f, _ in skipped.pairs} == {0}
    with pytest.raises(DataError, match="pairs each target with its neighbours"):
        made("modular", pools("A", general=2), uncovered="skip")
    with pytest.raises(DataError, match="no direct neighbour"):
        made("balanced", pools("A", [("indirect", "A")], general=2))
    with pytest.raises(DataError, match="direct neighbours, but the retain set has none"):
        made("cyclic", pools("A", [("indirect", "A")]), neighbours=("direct",))
    with pytest.raises(ConfigError, match="neighbours is empty"):
        SAMPLERS["cyclic"].Options(neighbours=())


# -- equal updates ---------------------------------------------------------------------------------------------------


def test_equal_epochs_are_not_equal_updates():
    data = released()
    steps = {
        name: steps_of_epochs(Recipe("grad_diff", sampler=name, batch_size=8, retain_batch_size=8), data, 4)
        for name in ("random", "cyclic", "modular")
    }
    assert steps == {"random": 49, "cyclic": 901, "modular": 901}


def test_strategies_are_compared_at_equal_updates_and_exposures():
    data = released()
    recipe = Recipe("grad_diff", batch_size=8, retain_batch_size=16, steps=60)
    names = ["paired", "sequential", "random", "balanced", "cyclic", "modular"]
    plans = equal_updates(recipe, data, [*names, {"name": "modular", "batches": "entity"}])
    assert [r.sampler for r, _ in plans] == [*names, "modular"]
    assert plans[-1][0].sampler_options.batches == "entity"
    assert {(e.updates, e.forget, e.retain) for _, e in plans} == {(60, 480, 480)}
    stated = {e.sampler: e for _, e in plans[:-1]}
    assert stated["sequential"].retain_distinct == 98
    assert stated["cyclic"].retain_distinct == stated["modular"].retain_distinct == 480
    assert stated["paired"].forget_most - stated["paired"].forget_least <= 1
    assert stated["paired"].epochs == pytest.approx(480 / 98)
    assert stated["cyclic"].epochs == pytest.approx(480 / 1801)


def test_small_forget_sets_bring_the_batch_down():
    data = pools("AB", [("direct", "A"), ("indirect", "B"), ("direct", "B")], general=3)
    plans = equal_updates(Recipe("grad_diff", steps=5), data, ["paired", "random", "cyclic", "modular", "balanced"])
    assert {(r.batch_size, r.retain_batch_size, e.forget) for r, e in plans} == {(2, 2, 10)}
    alone = equal_updates(Recipe("ga", steps=5), pools("AB"), ["paired", "cyclic", "modular"])
    assert {e.forget for _, e in alone} == {10}


def test_unequal_exposures_are_refused():
    short = pools("AAAB", [("direct", "A")], general=0)
    recipe = Recipe("grad_diff", steps=3, batch_size=4)
    with pytest.raises(ConfigError, match="different numbers of forget items"):
        equal_updates(recipe, short, ["paired", {"name": "modular", "uncovered": "skip"}])
    with pytest.raises(ConfigError, match="has no name"):
        equal_updates(recipe, short, [{"batches": "entity"}])


def test_exposure_counts_what_is_drawn():
    recipe = Recipe("grad_diff", sampler="sequential", steps=5, batch_size=2, retain_batch_size=1)
    e = exposure(recipe, pools("ABC", [("direct", "A")] * 4))
    assert (e.updates, e.epoch_length, e.forget, e.forget_least, e.forget_most) == (5, 3, 10, 3, 4)
    assert (e.retain, e.retain_distinct) == (5, 3)
