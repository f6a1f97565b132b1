from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interp_unlearn.unlearn import SAMPLERS, Item, Pools


def sampler(name, n, m, batch=3, retain_batch=4, seed=0, kinds=("answer",), **options):
    made = SAMPLERS[name](SAMPLERS[name].Options(**options))
    near = [{"neighbour": "direct", "target": "A"}, {"neighbour": "general"}]
    retain = tuple(Item(kind=kinds[i % len(kinds)], **near[i % 2]) for i in range(m))
    pools = Pools(tuple(Item("A") for _ in range(n)), retain)
    made.prepare(pools, batch_size=batch, retain_batch_size=retain_batch, seed=seed)
    return made


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_draw_depends_on_seed_and_step_only(name):
    one, two = sampler(name, 7, 11, 3, 3), sampler(name, 7, 11, 3, 3)
    forward = [one.draw(s) for s in range(20)]
    backward = [two.draw(s) for s in reversed(range(20))][::-1]
    assert forward == backward


@given(n=st.integers(1, 9), m=st.integers(0, 9), batch=st.integers(1, 6), seed=st.integers(0, 99))
def test_paired_visits_every_item_once_an_epoch(n, m, batch, seed):
    made = sampler("paired", n, m, batch, batch, seed)
    size = min(batch, n)
    drawn = [i for step in range(n) for i in made.draw(step).forget]
    assert all(count == size for count in Counter(drawn).values())
    assert set(drawn) == set(range(n))
    assert len(made.draw(0).retain) == min(batch, m)


def test_paired_by_kind_shares_the_batch_evenly():
    made = sampler("paired", 4, 30, 2, 4, kinds=("known", "unknown", "text"), by_kind=True)
    counts = Counter(i % 3 for step in range(30) for i in made.draw(step).retain)
    assert counts == {0: 40, 1: 40, 2: 40}
    each = Counter(i for step in range(30) for i in made.draw(step).retain)
    assert set(each.values()) == {4}


def test_sequential_follows_the_file():
    made = sampler("sequential", 3, 10, batch=2, retain_batch=2)
    assert [made.draw(s).forget for s in range(3)] == [(0, 1), (2, 0), (1, 2)]
    assert [made.draw(s).retain for s in range(3)] == [(0, 1), (2, 0), (1, 2)]
    whole = sampler("sequential", 3, 10, batch=2, retain_batch=2, whole_retain=True)
    assert [i for s in range(5) for i in whole.draw(s).retain] == list(range(10))


def test_seeds_differ():
    assert sampler("paired", 30, 30, 30).draw(0) != sampler("paired", 30, 30, 30, seed=1).draw(0)
