"""The algebra of GU on small vectors: hand-computed examples and invariants."""

import itertools
import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interp_unlearn._core import ConfigError, FileFormatError
from interp_unlearn.unlearn import TRANSFORMS
from interp_unlearn.unlearn.transforms._cone import independent, multipliers
from interp_unlearn.unlearn.transforms._covectors import Covectors, products
from interp_unlearn.unlearn.transforms.gu import GU, GUOptions, split

SHAPES = {"a": (7, 5), "b": (11,), "c": (1, 3, 2)}


def t(*values):
    return torch.tensor(values, dtype=torch.float32)


def gu(covectors, **options):
    """A GU that holds the given retain gradients (oldest first), without a model."""
    made = GU(GUOptions(**options))
    made.covectors = Covectors(covectors[0], made.options.rank)
    made._warned, made.last = False, {}
    for g in covectors:
        made.covectors.push(g)
    return made


def drawn(seed, n=1, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return [{k: torch.randn(s, generator=g) * scale for k, s in SHAPES.items()} for _ in range(n)]


def metric(seed):
    g = torch.Generator().manual_seed(seed)
    return {k: torch.rand(s, generator=g) * 3 + 0.2 for k, s in SHAPES.items()}


def ones(like):
    return {k: torch.ones_like(v) for k, v in like.items()}


def zeros(like):
    return {k: torch.zeros_like(v) for k, v in like.items()}


def dot(x, y):
    return sum(float((x[k].double() * y[k].double()).sum()) for k in x)


def norm(x):
    return dot(x, x) ** 0.5


def times(x, y):
    return {k: x[k] * y[k] for k in x}


def test_one_projection_over_all_parameters_not_one_for_each():
    forget, retain = {"a": t(2.0), "b": t(1.0)}, {"a": t(1.0), "b": t(3.0)}
    out = gu([retain]).project(forget, zeros(forget), ones(forget))
    torch.testing.assert_close(out, {"a": t(1.5), "b": t(-0.5)})


def test_metric_by_hand():
    forget, retain, h = {"w": t(2, 1)}, {"w": t(1, 3)}, t(1, 4)
    out = gu([retain]).project(forget, zeros(forget), {"w": 1 / h})["w"]
    torch.testing.assert_close(out, t(1.1538462, -1.5384615))
    step = out / h
    torch.testing.assert_close(step, t(1.1538462, -0.3846154))
    assert float(step @ retain["w"]) == pytest.approx(0, abs=1e-6)
    # Projecting without the metric and dividing by h afterwards, as an optimiser would, is not safe.
    euclidean = gu([retain]).project(forget, zeros(forget), ones(forget))["w"]
    assert float((euclidean / h) @ retain["w"]) == pytest.approx(1.125)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 8))
def test_projected_gradients_are_orthogonal_to_every_covector_and_still_descend(seed, m):
    retain, (forget,), inverse = drawn(seed, m), drawn(seed + 1), metric(seed + 2)
    made = gu(retain)
    out = made.project(forget, zeros(forget), inverse)
    step = times(out, inverse)
    for g in retain:
        assert abs(dot(g, step)) <= 1e-6 * norm(g) * norm(step)
    again = made.project(out, zeros(forget), inverse)
    assert norm({k: again[k] - out[k] for k in out}) <= 1e-6 * norm(out)
    length = products(out, out, inverse)
    assert dot(forget, step) == pytest.approx(length, rel=1e-4)
    assert length >= 0
    # The nearest safe direction: any other direction without retain component descends less, per length.
    (other,) = drawn(seed + 3)
    other = made.project(other, zeros(forget), inverse)
    assert dot(forget, times(other, inverse)) <= (length * products(other, other, inverse)) ** 0.5 * (1 + 1e-5)


def test_a_history_wider_than_a_chunk_and_a_tiny_metric_stay_orthogonal():
    g = torch.Generator().manual_seed(0)
    shape = (300, 301)
    retain = [{"w": torch.randn(shape, generator=g)} for _ in range(5)]
    base = torch.randn(shape, generator=g)
    retain += [{"w": retain[0]["w"] + 3e-3 * base}]  # nearly dependent, but above the tolerance
    forget = {"w": torch.randn(shape, generator=g) + 2 * retain[0]["w"]}
    inverse = {"w": 1 / (10 ** torch.empty(shape).uniform_(-4, 0, generator=g))}
    out = gu(retain).project(forget, zeros(forget), inverse)
    step = times(out, inverse)
    for r in retain:
        assert abs(dot(r, step)) <= 1e-6 * norm(r) * norm(step)


def test_the_oldest_covector_leaves_first():
    many = drawn(0, 5)
    made = gu(many, rank=3)
    assert len(made.covectors) == 3
    for index, g in enumerate(reversed(many[2:])):
        kept = made.covectors.covector(index)
        for name in SHAPES:
            torch.testing.assert_close(kept[name], (g[name] / norm(g)).flatten())
    gram, b = made.covectors.products(ones(many[0]), [many[4]])
    torch.testing.assert_close(gram.diagonal(), torch.ones(3, dtype=torch.float64))
    assert float(b[0, 0]) == pytest.approx(norm(many[4]), rel=1e-6)


def test_state_of_the_history_is_exact():
    many = drawn(0, 7)
    one, two = gu(many[:5], rank=3), gu([many[6]], rank=3)
    two.load_state(one.state())
    for made in (one, two):
        made.covectors.push(many[5])
    assert one.covectors.order == two.covectors.order
    assert all(torch.equal(v, two.state()[k]) for k, v in one.state().items())
    with pytest.raises(FileFormatError, match="covectors"):
        two.load_state({})
    with pytest.raises(FileFormatError, match="covectors of b"):
        two.load_state({k: v for k, v in one.state().items() if k != "rows/b"})


def test_degenerate_gradients_stay_finite():
    (forget,) = drawn(0)
    zero = zeros(forget)
    made = gu([zero])
    assert len(made.covectors) == 0
    made = gu(drawn(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out = made.project(zero, zero, ones(forget))
    assert norm(out) == 0
    held = zeros(forget)  # everything is held still
    assert norm(made.project(forget, zero, held)) == 0
    made = gu([{k: 0.3 * v for k, v in forget.items()}])
    with pytest.warns(UserWarning, match="left nothing of the forget gradient"):
        out = made.project(forget, zero, ones(forget))
    assert norm(out) == 0
    assert made.last["entanglement"] == 1


def test_a_repeated_covector_changes_nothing():
    (g,), (forget,) = drawn(1), drawn(2)
    once = gu([g]).project(forget, zeros(g), ones(g))
    twice = gu([g, {k: 2 * v for k, v in g.items()}, g]).project(forget, zeros(g), ones(g))
    torch.testing.assert_close(once, twice)


def test_independent_covectors_by_hand():
    gram = torch.tensor([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 2.0]])
    assert independent(gram.double(), 1e-3) == [0, 3]


def test_held_coordinates_do_not_move_and_the_rest_is_safe():
    (forget,), retain, inverse = drawn(0), drawn(1, 3), metric(2)
    held = {k: torch.arange(v.numel()).reshape(v.shape) % 3 == 0 for k, v in forget.items()}
    inverse = {k: w * ~held[k] for k, w in inverse.items()}
    out = gu(retain).project(forget, zeros(forget), inverse)
    assert all(bool((out[k][held[k]] == 0).all()) for k in out)
    step = times(out, inverse)
    for g in retain:
        assert abs(dot(g, step)) <= 1e-6 * norm(g) * norm(step)


def test_joint_step_lowers_the_retain_loss_by_its_own_gradient_alone():
    (forget,), (retain,), inverse = drawn(0), drawn(1), metric(2)
    past = drawn(3, 2)
    made = gu([*past, retain])
    safe = made.project(forget, zeros(forget), inverse)
    joint = made.project(forget, retain, inverse)
    torch.testing.assert_close(joint, {k: safe[k] + retain[k] for k in safe}, rtol=1e-4, atol=1e-5)
    change = -dot(retain, times(joint, inverse))
    assert change == pytest.approx(-products(retain, retain, inverse), rel=1e-5)
    drop = gu([*past, retain], retain_step="drop").project(forget, retain, inverse)
    torch.testing.assert_close(drop, safe)
    (outside,) = drawn(9)
    full = gu([*past, retain], retain_step="full").project(forget, outside, inverse)
    torch.testing.assert_close(full, {k: safe[k] + outside[k] for k in safe}, rtol=1e-4, atol=1e-5)
    part = made.project(forget, outside, inverse)
    inside = {k: part[k] - safe[k] for k in safe}
    assert products(inside, inside, inverse) < products(outside, outside, inverse)


def test_sign_awareness_by_hand():
    forget, keeps, drops = {"w": t(2, 1)}, {"w": t(1, 0)}, {"w": t(-1, 0)}
    run = lambda retain, **o: gu([retain], sign_aware=True, **o).project(forget, zeros(forget), ones(forget))["w"]  # noqa: E731
    torch.testing.assert_close(run(keeps), t(0.5, 1))  # 2 capped at kappa = 0.5 times the length of (0, 1)
    torch.testing.assert_close(run(keeps, kappa=9.0), t(2, 1))
    torch.testing.assert_close(run(drops, kappa=9.0), t(0, 1))
    torch.testing.assert_close(run(keeps, kappa=9.0, tau=5.0), t(0, 1))


@settings(max_examples=10)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 6))
def test_sign_awareness_never_raises_the_current_retain_loss(seed, m):
    retain, (forget,), inverse = drawn(seed, m), drawn(seed + 1), metric(seed + 2)
    out = gu(retain, sign_aware=True).project(forget, zeros(forget), inverse)
    step = times(out, inverse)
    assert -dot(retain[-1], step) <= 1e-6 * norm(retain[-1]) * norm(step)


# -- cone ------------------------------------------------------------------------------------------------------------


def test_cone_with_one_covector_by_hand():
    retain, inverse = {"w": t(1, 3)}, {"w": 1 / t(1, 4)}
    made = gu([retain], mode="cone")
    step = {"w": t(0.2, 0.1)}
    assert made.into_cone(step, inverse)
    torch.testing.assert_close(step["w"], t(0.0461538, -0.0153846))
    assert float(step["w"] @ retain["w"]) == pytest.approx(0, abs=1e-7)
    step = {"w": t(-0.2, -0.1)}
    assert not made.into_cone(step, inverse)
    assert torch.equal(step["w"], t(-0.2, -0.1))


def enumerated(gram, b):
    """Multipliers by trying every active set: slow, and obviously right."""
    best, found = None, torch.zeros_like(b)
    for size in range(len(b) + 1):
        for active in map(list, itertools.combinations(range(len(b)), size)):
            lam = torch.zeros_like(b)
            if active:
                lam[active] = torch.linalg.lstsq(gram[active][:, active], b[active, None]).solution[:, 0]
            if bool((lam >= -1e-12).all()) and bool((b - gram @ lam <= 1e-9).all()):
                value = float(lam @ gram @ lam / 2)
                if best is None or value < best:
                    best, found = value, lam
    return found


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 6), repeat=st.booleans())
def test_multipliers_are_those_of_every_active_set_tried(seed, m, repeat):
    g = torch.Generator().manual_seed(seed)
    columns = torch.randn(9, m, generator=g, dtype=torch.float64)
    step = torch.randn(9, generator=g, dtype=torch.float64)
    if repeat:
        columns = torch.cat([columns, columns[:, :1], torch.zeros(9, 1, dtype=torch.float64)], 1)
    lam = multipliers(columns.T @ columns, columns.T @ step)
    plain = columns[:, :m]
    expected = step - plain @ enumerated(plain.T @ plain, plain.T @ step)
    torch.testing.assert_close(step - columns @ lam, expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=12)
@given(seed=st.integers(0, 10**6), m=st.integers(1, 8), size=st.sampled_from([1e-8, 1.0, 1e4]))
def test_cone_satisfies_its_optimality_conditions(seed, m, size):
    retain, (step,), inverse = drawn(seed, m), drawn(seed + 1, scale=size), metric(seed + 2)
    made = gu(retain, mode="cone")
    ones_ = ones(step)
    gram, _ = made.covectors.products(inverse, [])
    _, b = made.covectors.products(ones_, [step], gram=False)
    lam = multipliers(gram, b[:, 0])
    before = {k: v.clone() for k, v in step.items()}
    made.into_cone(step, inverse)
    length, now = norm(before), [dot(g, step) / norm(g) for g in reversed(retain)]
    assert max(now) <= 1e-6 * length
    assert float(lam.min()) >= 0
    for multiplier, slack in zip(lam.tolist(), now, strict=True):
        assert multiplier == 0 or abs(slack) <= 1e-6 * length
    in_m = {k: 1 / v for k, v in inverse.items()}
    assert products(step, step, in_m) <= products(before, before, in_m) * (1 + 1e-6)


def test_cone_keeps_still_what_the_step_left_still():
    retain, (step,), inverse = drawn(0, 3), drawn(1), metric(2)
    for value in step.values():
        value.flatten()[::2] = 0
    moved = {k: (v != 0) for k, v in step.items()}
    gu(retain, mode="cone").into_cone(step, {k: w * moved[k] for k, w in inverse.items()})
    assert all(bool((step[k][~moved[k]] == 0).all()) for k in step)
    assert max(dot(g, step) for g in retain) <= 1e-5


def test_multipliers_of_nothing():
    assert multipliers(torch.zeros(0, 0).double(), torch.zeros(0).double()).shape == (0,)
    assert not multipliers(torch.zeros(2, 2).double(), torch.ones(2).double()).any()


# -- sides -----------------------------------------------------------------------------------------------------------


def test_split_gives_both_sides_the_factor_of_earlier_transforms():
    f, r = {"w": t(1, 2, -3, 1)}, {"w": t(1, -1, 1, -1)}
    sides = {"forget": f, "retain": r}
    forget, retain, held = split({"w": f["w"] + r["w"]}, sides)
    assert torch.equal(forget["w"], f["w"])
    assert not held["w"].any()
    forget, retain, held = split({"w": t(1, 0.5, 0, 0)}, sides)  # halved, halved, masked, nothing there to mask
    torch.testing.assert_close(forget["w"], t(0.5, 1, 0, 1))
    torch.testing.assert_close(retain["w"], t(0.5, -0.5, 0, -1))
    assert held["w"].tolist() == [False, False, True, False]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "gu.rank is 0"),
        ({"refresh_every": 0}, "gu.refresh_every is 0"),
        ({"tolerance": 1.0}, "gu.tolerance is 1.0"),
        ({"tau": -0.1}, "raise the retain loss"),
        ({"kappa": -1.0}, "gu.kappa is -1.0"),
        ({"floor": -1.0}, "gu.floor is -1.0"),
        ({"mode": "cone", "sign_aware": True}, "gu.sign_aware belongs to mode = 'null'"),
        ({"budget": 1e-4}, "gu.budget checks the step"),
        ({"mode": "cone", "budget": -1.0}, "gu.budget is -1.0"),
        ({"text_tokens": 1}, "gu.text_tokens is 1"),
    ],
)
def test_bad_options_are_refused(options, said):
    with pytest.raises(ConfigError) as caught:
        TRANSFORMS["gu"].Options(**options)
    assert said in str(caught.value)
