"""Streamed statistics: any split, any order, any merge gives what one pass over everything gives."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from interp_unlearn._core import DataError, FileFormatError, SiteError, read_tensors, write_tensors
from interp_unlearn.hooked import (
    Covariance,
    FiringRate,
    Mean,
    Quantile,
    Statistic,
    Tally,
    TopK,
    Variance,
    capture,
    tally,
    unpack_ids,
    wrap,
)

from .conftest import make_tokenizer, random_batch, shared_model

MAKERS = {
    "mean": Mean,
    "variance": Variance,
    "covariance": Covariance,
    "firing": lambda: FiringRate(0.5),
    "quantile": lambda: Quantile(0.02),
    "top": lambda: TopK(3),
}
EXACT = {"quantile", "top"}

numbers = st.floats(-1e4, 1e4, width=32) | st.sampled_from([0.0, 0.5, 1.0, -1.0])
tables = st.integers(1, 4).flatmap(
    lambda d: hnp.arrays(np.float32, st.tuples(st.integers(1, 40), st.just(d)), elements=numbers)
)


def same(a: Statistic, b: Statistic, exact: bool) -> None:
    first, second = a.state_dict(), b.state_dict()
    assert set(first) == set(second)
    for name, value in first.items():
        if exact or not value.is_floating_point():
            assert torch.equal(value, second[name]), name
        else:
            scale = max(1.0, float(value.abs().max())) if value.numel() else 1.0
            torch.testing.assert_close(second[name], value, rtol=1e-9, atol=1e-9 * scale * scale)


@pytest.mark.parametrize("name", sorted(MAKERS))
@settings(max_examples=25)
@given(table=tables, cuts=st.lists(st.integers(0, 40), max_size=4), seed=st.integers(0, 9))
def test_split_merge_and_order(name, table, cuts, seed):
    make, rows = MAKERS[name], torch.from_numpy(table.copy())
    ids = torch.arange(len(rows)) * 7
    whole = make().add(rows, ids)
    edges = [0, *sorted(min(c, len(rows)) for c in cuts), len(rows)]
    parts = list(pairwise(edges))

    streamed = make()
    for a, b in parts:
        streamed.add(rows[a:b], ids[a:b])
    same(whole, streamed, name in EXACT)

    merged = make()
    for index in np.random.default_rng(seed).permutation(len(parts)):
        a, b = parts[index]
        merged.merge(make().add(rows[a:b], ids[a:b]))
    same(whole, merged, name in EXACT)

    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    same(whole, make().add(rows[order], ids[order]), name in EXACT)


@settings(max_examples=40)
@given(tables)
def test_values_equal_numpy(table):
    rows, wide = torch.from_numpy(table.copy()), table.astype(np.float64)
    assert np.allclose(Mean().add(rows).mean, wide.mean(0))
    variance = Variance().add(rows)
    covariance = Covariance().add(rows)
    if len(wide) > 1:
        assert np.allclose(variance.variance, wide.var(0, ddof=1))
        assert np.allclose(covariance.covariance, np.atleast_2d(np.cov(wide, rowvar=False)), atol=1e-6)
        assert np.allclose(variance.std**2, variance.variance)
    else:
        assert variance.variance.isnan().all() and covariance.covariance.isnan().all()
    assert np.allclose(variance.mean, wide.mean(0)) and np.allclose(covariance.mean, wide.mean(0))
    firing = FiringRate(0.5).add(rows)
    assert np.allclose(firing.rate, (wide > 0.5).mean(0))
    assert firing.count.tolist() == (wide > 0.5).sum(0).tolist()
    for j in range(wide.shape[1]):
        fired = wide[:, j][wide[:, j] > 0.5]
        assert float(firing.mean_when_firing[j]) == pytest.approx(fired.mean() if len(fired) else 0.0)


@settings(max_examples=40)
@given(tables, st.floats(0, 1), st.sampled_from([0.005, 0.02, 0.1]))
def test_quantiles_are_within_their_stated_error(table, q, alpha):
    sketch = Quantile(alpha, smallest=1e-3, largest=2e4).add(torch.from_numpy(table.copy()))
    ordered = np.sort(table.astype(np.float64), axis=0)
    true = ordered[int(np.floor(q * (len(table) - 1)))]
    error = (sketch.quantile(q) - torch.from_numpy(true)).abs().numpy()
    assert (error <= alpha * np.abs(true) * (1 + 1e-9) + 1e-3).all()
    assert np.array_equal(sketch.quantile(0.0), ordered[0]) and np.array_equal(sketch.quantile(1.0), ordered[-1])
    assert np.array_equal(sketch.low, ordered[0]) and np.array_equal(sketch.high, ordered[-1])
    assert torch.equal(sketch.median, sketch.quantile(0.5))


def test_quantiles_of_many_rows():
    rows = torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 50.0, 3e4])
    sketch = Quantile()
    for chunk in rows.split(999):
        sketch.add(chunk)
    for q in (0.01, 0.25, 0.5, 0.9, 0.999):
        true = torch.quantile(rows.double(), q, dim=0, interpolation="lower")
        assert ((sketch.quantile(q) - true).abs() <= 0.01 * true.abs() + 1e-4).all()


@settings(max_examples=40)
@given(tables, st.integers(1, 6))
def test_top_k_equals_sorting_everything(table, k):
    top = TopK(k)
    for start in range(0, len(table), 7):
        top.add(torch.from_numpy(table[start : start + 7].copy()))
    for j in range(table.shape[1]):
        want = sorted(range(len(table)), key=lambda i: (-table[i, j], i))[:k]
        assert top.ids[:, j].tolist() == want
        assert top.values[:, j].tolist() == [float(table[i, j]) for i in want]


@pytest.mark.parametrize("name", sorted(MAKERS))
def test_round_trip_through_a_file(name, tmp_path):
    make = MAKERS[name]
    rows = torch.randn(50, 4)
    half = make().add(rows[:20])
    write_tensors(tmp_path / "s.safetensors", half.state_dict())
    back = make().load_state_dict(read_tensors(tmp_path / "s.safetensors"))
    same(half, back, True)
    same(half.add(rows[20:]), back.add(rows[20:]), True)
    empty = make().load_state_dict(make().state_dict())
    assert empty.n == 0 and empty.d is None
    same(make().add(rows), empty.add(rows), True)
    same(half, make().merge(half), True)
    same(half, half.merge(make()), True)


def test_integers_and_half_precision_are_widened():
    assert Mean().add(torch.full((3, 2), 60000.0, dtype=torch.float16)).mean.dtype == torch.float64
    mean = Mean()
    for _ in range(1000):
        mean.add(torch.full((100, 1), 0.1, dtype=torch.float64))
    assert float(mean.mean) == pytest.approx(0.1, abs=1e-14) and mean.n == 100_000


def test_huge_offsets_do_not_cancel():
    rows = torch.randn(1000, 2, dtype=torch.float64) + 1e8
    variance = Variance()
    for chunk in rows.split(10):
        variance.add(chunk)
    torch.testing.assert_close(variance.variance, rows.var(0), rtol=1e-6, atol=1e-6)


def test_statistics_refuse_nonsense():
    for make in MAKERS.values():
        name = make().kind
        with pytest.raises(DataError, match="no rows"):
            {
                "mean": lambda s: s.mean,
                "variance": lambda s: s.variance,
                "covariance": lambda s: s.covariance,
                "firing_rate": lambda s: s.rate,
                "quantile": lambda s: s.median,
                "top_k": lambda s: s.values,
            }[name](make())
        with pytest.raises(DataError, match="NaN"):
            make().add(torch.tensor([[float("nan")]]))
        with pytest.raises(DataError, match="features"):
            make().add(torch.zeros(1, 2)).add(torch.zeros(1, 3))
        with pytest.raises(DataError, match="features"):
            make().add(torch.zeros(1, 2)).merge(make().add(torch.zeros(1, 3)))
        with pytest.raises(DataError, match="not the state"):
            make().load_state_dict({"weights": torch.zeros(1)})
        assert make().add(torch.zeros(0, 5)).d is None
    with pytest.raises(DataError, match="lacks mean"):
        Mean().load_state_dict({"n": torch.tensor(3)})
    with pytest.raises(DataError, match="same settings"):
        FiringRate(0.1).merge(FiringRate(0.2))
    with pytest.raises(DataError, match="same settings"):
        Quantile(0.1).load_state_dict(Quantile(0.2).state_dict())
    with pytest.raises(DataError, match="between 0 and 1"):
        Quantile().add(torch.zeros(1, 1)).quantile(50.0)
    with pytest.raises(DataError, match="relative_error"):
        Quantile(2.0)
    with pytest.raises(DataError, match="at least 1"):
        TopK(0)


def test_tally_streams_over_texts(tmp_path):
    model = wrap(shared_model("llama").module, make_tokenizer(), name="tiny")
    texts = ["The capital of Japan is Tokyo.", "Marie Curie", "Paris is in France and", "Who was"]
    sites = ["blocks.0.attn.hook_z", "blocks.1.hook_resid_post"]
    stats = {"mean": Mean, "var": Variance, "top": lambda: TopK(2)}
    result = tally(model, [texts[:2], texts[2:]], sites, stats)
    assert result.mask_policy == "inner" and result.n_sequences == 4 and result.model == "tiny"
    whole = capture(model, texts, sites, mask_policy="inner")
    for site in sites:
        rows = whole.flat(site).double()
        assert result[site]["mean"].n == len(rows)
        torch.testing.assert_close(result[site]["mean"].mean, rows.mean(0), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(result[site]["var"].variance, rows.var(0), rtol=1e-4, atol=1e-5)
    top = result[sites[1]]["top"]
    sequence, position = unpack_ids(top.ids)
    for k in range(2):
        for j in range(32):
            value = whole[sites[1]][sequence[k, j], position[k, j], j]
            assert float(value) == pytest.approx(float(top.values[k, j]), abs=1e-5)
            assert position[k, j] > 0  # "inner" leaves the first token out

    result.save(tmp_path / "t.safetensors")
    back = Tally.load(tmp_path / "t.safetensors")
    assert back.mask_policy == "inner" and back.n_sequences == 4 and set(back.stats) == set(sites)
    for site in sites:
        for name in stats:
            same(result[site][name], back[site][name], True)

    parts = [tally(model, [t], sites, {"mean": Mean, "var": Variance}) for t in (texts[:1], texts[1:])]
    joined = parts[0].merge(parts[1])
    assert joined.n_sequences == 4 and parts[0].n_sequences == 1
    torch.testing.assert_close(joined[sites[0]]["mean"].mean, result[sites[0]]["mean"].mean, rtol=1e-5, atol=1e-6)
    last = tally(model, [texts], sites, {"mean": Mean}, positions=-1, mask_policy="content")
    want = capture(model, texts, sites, positions=-1).flat(sites[0]).double().mean(0)
    torch.testing.assert_close(last[sites[0]]["mean"].mean, want, rtol=1e-5, atol=1e-6)


def test_tally_of_a_plain_module():
    net = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Unflatten(1, (2, 1, 1, 2)))
    model = wrap(net)
    batches = [torch.randn(5, 3), torch.randn(2, 3)]
    result = tally(model, batches, ["1.output"], {"fires": FiringRate, "top": lambda: TopK(1)})
    rows = torch.cat([net[1](net[0](b)) for b in batches])
    torch.testing.assert_close(result["1.output"]["fires"].rate, (rows > 0).double().mean(0))
    assert torch.equal(result["1.output"]["top"].ids[0], rows.argmax(0)) or bool((rows.amax(0) == 0).any())
    assert result.mask_policy == "-" and result.n_sequences == 7
    with pytest.raises(DataError, match="pool or flatten"):
        tally(model, batches, ["2.output"], {"mean": Mean})


def test_tally_errors(tmp_path):
    model = shared_model("llama")
    site = "blocks.0.hook_resid_post"
    with pytest.raises(DataError, match="at least one statistic"):
        tally(model, [random_batch([3])], [site], {})
    with pytest.raises(SiteError, match="nearest"):
        tally(model, [random_batch([3])], ["blocks.0.hook_residpost"], {"mean": Mean})
    result = tally(model, [random_batch([3])], [site], {"mean": Mean}, progress=True)
    with pytest.raises(SiteError, match="was not tallied"):
        result["blocks.1.hook_resid_post"]
    with pytest.raises(DataError, match="same sites"):
        result.merge(tally(model, [random_batch([3])], [site], {"mean": Mean}, mask_policy="all"))
    with pytest.raises(DataError, match="different statistics"):
        result.merge(tally(model, [random_batch([3])], [site], {"var": Variance}))
    write_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)})
    with pytest.raises(FileFormatError, match="not a saved tally"):
        Tally.load(tmp_path / "x.safetensors")
    odd = Tally({site: {"mean": Mean().add(torch.zeros(1, 1))}}, 1, "all", "m")
    odd.stats[site]["mean"].kind = "median of means"  # type: ignore[misc]
    odd.save(tmp_path / "odd.safetensors")
    with pytest.raises(FileFormatError, match="unknown statistic"):
        Tally.load(tmp_path / "odd.safetensors")
