"""Parts of the evidence on a tiny model: rows, positions, what is kept, and what is said where something is missing."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from interp_unlearn._core import DataError
from interp_unlearn.hooked import capture
from interp_unlearn.probes import (
    PARTS,
    LivePhases,
    answer_activations,
    answer_rows,
    answer_vectors,
    lens_texts,
    parts_of,
    residual_sites,
)
from interp_unlearn.worlds import Entity, Prompt, QASet, Target, Task, Template

MINE = ("alignment", "lens", "similarity", "tuned_lens", "attribute", "recognition")
KNOWN = ["Japan", "France", "Gabon", "Peru", "Chad", "Mali", "Cuba", "Iran", "Oman", "Togo", "Fiji", "Laos", "Iraq"]
UNKNOWN = ["Vorl", "Kess", "Trim", "Balt", "Zand", "Quar", "Wex", "Yubo", "Hask", "Jolt", "Norv", "Prim"] + [
    f"{x}u" for x in ("Ber", "Dol", "Gam", "Kir", "Lop", "Mes")
]
ANSWERS = ["Rosa", "Tula", "Milo", "Peka"]
TRAIN = ["The capital of {} is", "In {} the capital is"]
HELD = ["They rule {} from", "{} is ruled from", "The seat of {} is in"]


def ask(name, templates, split):
    answer = ANSWERS[KNOWN.index(name) % 4]
    wrong = tuple(a for a in ANSWERS if a != answer)
    return [
        Prompt(
            t.format(name), answer, name, "capital", f"{split}{i}", (t.index("{"), t.index("{") + len(name)), (), wrong
        )
        for i, t in enumerate(templates)
    ]


def entities(names, invented=False):
    return tuple(Entity(n, n, "country", invented) for n in names)


def make_task(targets=1):
    target, ref, held = KNOWN[:targets], KNOWN[targets : targets + 5], KNOWN[targets + 5 :]
    mention = ["People speak of {name}", "Who went to {name} then?", "A text about {name}, again"]
    split = [Template(f"m{i}", "", "country", t, "heldout" if i else "train") for i, t in enumerate(mention)]
    empty = QASet("none", (), "none here")
    return Task(
        world="test",
        target=Target(tuple(target)),
        seed=0,
        type="country",
        target_entities=entities(target),
        known_ref=entities(ref),
        known_eval=entities(held),
        unknown_ref=entities(UNKNOWN[:9], True),
        unknown_eval=entities(UNKNOWN[9:], True),
        forget_train=QASet("base", tuple(p for n in target for p in ask(n, TRAIN, "train"))),
        forget_heldout=QASet("paraphrased", tuple(p for n in target for p in ask(n, HELD, "held"))),
        multi_hop=empty,
        same_answer=empty,
        retain_train=QASet("retain", tuple(p for n in ref for p in ask(n, TRAIN, "train"))),
        neighbours=QASet("neighbours", tuple(p for n in held for p in ask(n, HELD, "held"))),
        mention_train=tuple(split[:1]),
        mention_heldout=tuple(split[1:]),
        text_train=tuple(f"the old {a} runs past the {b} field" for a in "abcdefgh" for b in ("long", "cold", "red")),
    )


@pytest.fixture(scope="module")
def phases():
    from .conftest import make_model

    model = make_model()
    generator = torch.Generator().manual_seed(0)
    edited = {
        name: p.detach() + 0.3 * p.detach().std() * torch.randn(p.shape, generator=generator)
        for name, p in model.layer_parameters([1])
        if p.dim() == 2
    }
    return LivePhases(model, make_task(), edited=edited)


@pytest.fixture(scope="module")
def found(phases):
    return {name: PARTS[name].look(phases, lambda *_: None) for name in MINE}


# -- rows -----------------------------------------------------------------------------------------------------------


def test_everybody_is_asked_the_targets_questions():
    rows = answer_rows(make_task())
    by_group = {g: [r for r in rows if r.group == g] for g in ("target", "known_ref", "known_eval", "unknown_eval")}
    assert len(by_group["target"]) == 5
    assert len(by_group["known_eval"]) == 7 * 5  # asked in train templates too
    assert {r.template for r in rows} == {"train0", "train1", "held0", "held1", "held2"}
    peru = next(r for r in rows if r.entity == "Peru" and r.template == "held1")
    assert peru.text == "Peru is ruled from" and peru.answer == "Peka"
    assert all(r.text[slice(*r.name_span)] == r.entity for r in rows)
    assert all(r.answer == "" for r in by_group["unknown_eval"])
    assert len(answer_rows(make_task(), templates=1)) == len(rows) * 2 / 5
    with pytest.raises(DataError, match="asks nothing"):
        answer_rows(replace(make_task(), forget_train=QASet("base", ()), forget_heldout=QASet("p", ())))


def test_rows_are_read_where_the_answer_begins_or_at_the_name(phases):
    model, task = phases.model, phases.task
    site = residual_sites(model)[1]
    for position in ("prompt", "name"):
        acts = answer_activations(model, task, [site], position, batch_size=7)
        assert acts[site].shape == (len(acts.labels["entity"]), 1, 32)
        for row in (0, 3, 40, 90):
            text = answer_rows(task)[row].text
            end = answer_rows(task)[row].name_span[1]
            offsets = model.batch([text]).offsets[0]
            column = -1 if position == "prompt" else next(c for c, (_, e) in enumerate(offsets) if e >= end)
            alone = capture(model, text, [site], positions=column)
            torch.testing.assert_close(acts[site][row], alone[site][0], rtol=1e-5, atol=1e-5)
    assert "last token of the name" in acts.mask_policy


def test_answers_have_the_heads_vectors(phases):
    vectors = answer_vectors(phases.model, answer_rows(phases.task))
    assert set(vectors) == set(ANSWERS)
    weight = phases.model.submodule(phases.model.lm.unembed).weight
    first = phases.model.batch(["is Rosa"]).tokens[0]
    at = len(phases.model.batch(["is"]).tokens[0])
    gain = phases.model.submodule(phases.model.lm.final_norm).weight
    torch.testing.assert_close(vectors["Rosa"], (weight[first[at]] * gain).detach())


def test_a_lens_is_fitted_on_nothing_about_the_target():
    assert not any("Japan" in text for text in lens_texts(make_task()))


# -- parts ----------------------------------------------------------------------------------------------------------


def test_levels_of_the_parts():
    quick, standard = ({p.name for p in parts_of(level)} for level in ("quick", "standard"))
    assert {"alignment", "lens", "similarity"} <= quick
    assert {"tuned_lens", "attribute", "recognition"} <= standard - quick
    assert all(PARTS[name].kind == "probe" for name in MINE)


def test_every_evidence_has_a_control_or_says_why_not(found):
    for name, part in found.items():
        assert part.evidence
        for e in part.evidence:
            assert e.does_not_show and e.control_name
            assert np.isfinite(e.value) or e.reason, e.name
            assert e.control is not None or e.reason or e.config.get("no_control"), e.name
            if name != "alignment":  # it holds several probes
                assert e.name.startswith(f"{name}."), e.name
        names = [e.name for e in part.evidence]
        assert len(set(names)) == len(names)


def test_phases_are_read_once_and_by_both_parts_that_share_rows(phases, found):
    kept = [name for phase, name in phases._kept if phase == "after"]
    assert len([n for n in kept if n.startswith("asked-")]) == 1
    assert len([n for n in kept if n.startswith("mentions-")]) == 1
    before = dict(phases._kept)
    PARTS["recognition"].look(phases, lambda *_: None)
    assert phases._kept == before


def test_the_original_compared_with_itself_has_not_moved(phases):
    same = LivePhases(phases.model, phases.task)
    found = {e.name: e for e in PARTS["similarity"].look(same, lambda *_: None).evidence}
    assert found["similarity.cka/prompt"].value == pytest.approx(1)
    found = {e.name: e for e in PARTS["lens"].look(same, lambda *_: None).evidence}
    assert found["lens.first/forget"].value == found["lens.first/forget"].config["before"]
    assert found["lens.depth/forget"].value == found["lens.depth/forget"].config["before"]


def test_lens_tables_are_kept_for_pictures(found):
    assert {"lens_forget.before", "lens_forget.after", "lens_neighbours.after"} <= set(found["lens"].tables)
    assert "tuned_lens_forget.after" in found["tuned_lens"].tables


def test_the_originals_head_decodes_the_edited_model(phases):
    """An edit of the output head alone hides nothing from the lens."""
    head = f"{phases.model.lm.unembed}.weight"
    edited = {head: torch.zeros_like(dict(phases.model.module.named_parameters())[head])}
    found = PARTS["lens"].look(LivePhases(phases.model, phases.task, edited=edited), lambda *_: None)
    table = found.tables
    np.testing.assert_allclose(table["lens_forget.after"].values, table["lens_forget.before"].values)


def test_gold_is_read_and_noted(phases):
    golden = LivePhases(phases.model, phases.task, edited=phases.edited, gold=phases.model)
    for name in ("lens", "similarity", "tuned_lens"):
        values = {e.name: e for e in PARTS[name].look(golden, lambda *_: None).evidence}
        main = values[{"similarity": "similarity.cka/prompt"}.get(name, f"{name}.first/forget")]
        assert main.config["gold"] == pytest.approx(1.0 if name == "similarity" else main.config["before"])


def test_poor_tasks_give_reasons_and_no_exceptions(phases):
    nothing = replace(
        make_task(),
        forget_train=QASet("base", ()),
        forget_heldout=QASet("paraphrased", ()),
        neighbours=QASet("neighbours", ()),
        retain_train=QASet("retain", ()),
        text_train=(),
    )
    poor = LivePhases(phases.model, nothing)
    for name in ("lens", "similarity", "tuned_lens", "attribute", "recognition"):
        evidence = PARTS[name].look(poor, lambda *_: None).evidence
        assert evidence
        about_target = [e for e in evidence if e.name != "tuned_lens.kl/text"]
        assert all(np.isnan(e.value) and e.reason for e in about_target), name
