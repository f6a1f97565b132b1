"""What a run on a language model measures, phase by phase; each function returns or saves labelled results."""

from __future__ import annotations

from dataclasses import replace

from interp_unlearn._core import Evidence, Labelled
from interp_unlearn.attacks import RelearnConfig, relearn, relearn_evidence
from interp_unlearn.diff import compare_activations, compare_latents
from interp_unlearn.hooked import HookedModel
from interp_unlearn.metrics import (
    PromptScores,
    behaviour_by_prompt,
    behaviour_change,
    behaviour_intervals,
    text_loss,
    text_loss_change,
)
from interp_unlearn.probes import lens_evidence, logit_lens, mention_activations, run_probes
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._separation import NAME as SEPARATION
from interp_unlearn.runs._separation import selected_latents, separation_table
from interp_unlearn.runs._workbench import Progress, Workbench


def _named(table: Labelled, name: str) -> Labelled:
    return replace(table, name=name)


def parity_evidence(bench: Workbench) -> Evidence:
    """Do hooks change what the model computes? Bare against hooked logits on questions of the task."""
    prompts = [p.text for p in (*bench.task.forget_train.prompts, *bench.task.neighbours.prompts)[:4]]
    report = bench.model.parity(prompts)
    return Evidence(
        name="parity",
        question="Are the logits of the hooked model those of the bare one?",
        value=report.max_abs_diff,
        direction="low",
        n=report.n_tokens,
        mask_policy="all",
        does_not_show="that the model's file is what its author published",
        control=0.0,
        control_name="bit-identical",
        config={"identical": report.identical, "sites_hooked": report.sites_hooked},
    )


def measure_phase(config: RunConfig, out: RunFolder, bench: Workbench, phase: str, progress: Progress) -> None:
    """Behaviour, text loss, lens and mention activations of the model as it is now, saved under ``phase``."""
    model, task = bench.model, bench.task
    progress(f"measuring behaviour ({phase})", 0, 0)
    scores = behaviour_by_prompt(model, task)
    out.save_tables(
        [
            _named(scores.table, f"behaviour_by_prompt.{phase}"),
            _named(scores.summary(), f"behaviour.{phase}"),
            _named(behaviour_intervals(scores, seed=config.seed), f"behaviour_intervals.{phase}"),
        ]
    )
    if task.text_eval:
        progress(f"measuring text loss ({phase})", 0, 0)
        out.save_tables([_named(text_loss(model, task.text_eval), f"text_loss.{phase}")])
    progress(f"capturing mentions ({phase})", 0, 0)
    acts = mention_activations(model, task, bench.sites(config.evidence.layer_stride))
    out.save_activations(phase, acts)
    main = bench.saes.get("main")
    if phase == "before" and main is not None:
        progress("choosing the latents that mark known and unknown entities", 0, 0)
        out.save_tables([separation_table(bench, main, acts, config.seed)])
    if config.evidence.lens:
        progress(f"reading the logit lens ({phase})", 0, 0)
        out.save_tables(_lens_tables(model, bench, phase))


def _lens_tables(model: HookedModel, bench: Workbench, phase: str) -> list[Labelled]:
    sets = {"forget": bench.task.forget_heldout.prompts, "neighbours": bench.task.neighbours.prompts[:24]}
    return [_named(logit_lens(model, prompts), f"lens_{name}.{phase}") for name, prompts in sets.items() if prompts]


def measure_glance(bench: Workbench) -> dict[str, float]:
    """Exact match and mean probability of the target's held-out questions (else its others) and of neighbours."""
    task = bench.task
    target = task.forget_heldout if task.forget_heldout.prompts else task.forget_train
    names = [s.name for s in (target, task.neighbours) if s.prompts]
    summary = behaviour_by_prompt(bench.model, task, sets=names).summary()
    return {f"{s}.{m}": float(summary.at(set=s, metric=m)) for s in names for m in ("exact", "probability")}


def change_tables(config: RunConfig, out: RunFolder) -> list[Labelled]:
    """Paired before–after changes of behaviour and text loss, from saved tables."""
    tables = []
    scores = {phase: out.table(f"behaviour_by_prompt.{phase}") for phase in ("before", "after")}
    if scores["before"] is not None and scores["after"] is not None:
        pair = PromptScores(scores["before"]), PromptScores(scores["after"])
        tables.append(_named(behaviour_change(*pair, seed=config.seed), "behaviour_change"))
    loss = {phase: out.table(f"text_loss.{phase}") for phase in ("before", "after")}
    if loss["before"] is not None and loss["after"] is not None:
        tables.append(_named(text_loss_change(loss["before"], loss["after"], seed=config.seed), "text_loss_change"))
    return tables


def can_relearn(config: RunConfig, bench: Workbench) -> bool:
    """Whether relearning is wanted, and there are questions to teach and others to test it with."""
    return config.evidence.relearn and bool(bench.task.forget_train.prompts and bench.task.forget_heldout.prompts)


def measure_relearning(config: RunConfig, bench: Workbench, who: str, progress: Progress) -> list[Labelled]:
    """Relearning curve of the model as it is now; for the edited one also the curves of facts that were never known.

    The control teaches unknown entities that no recipe has seen, since a recipe may have moved those it saw.
    """
    progress(f"relearning attack ({who})", 0, 0)
    controls = RelearnConfig.controls if who == "after" else 0
    settings = RelearnConfig(seed=config.seed, controls=controls, control_entities="unknown_eval")
    curve = relearn(bench.model, bench.task, settings)
    tables = [_named(curve.target, f"relearn.{who}")]
    if curve.control is not None:
        tables.append(_named(curve.control, "relearn.control"))
    return tables


def measure_evidence(config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> list[Evidence]:
    """Evidence from saved activations and tables, and the diff tables, before against after (and gold)."""
    progress("probing what moved", 0, 0)
    before, after = out.activations("before"), out.activations("after")
    gold = out.activations("gold") if (out.path / "activations" / "gold").exists() else None
    main, second = bench.saes.get("main"), bench.saes.get("second")
    separation = out.table(SEPARATION)
    found = run_probes(
        before,
        after,
        site=bench.site,
        sae=main,
        second_sae=second,
        selected=selected_latents(separation) if separation is not None else None,
        gold=gold,
        seed=config.seed,
    )
    out.save_tables(compare_activations(before, after))
    if main is not None:
        out.save_tables(compare_latents(before, after, main.site, main))
    for name in ("forget", "neighbours"):
        tables = [out.table(f"lens_{name}.{phase}") for phase in ("before", "after", "gold")]
        if tables[0] is not None and tables[1] is not None:
            found.append(lens_evidence(tables[0], tables[1], where=name, gold=tables[2], seed=config.seed))
    curves = {who: out.table(f"relearn.{who}") for who in ("after", "control", "before", "gold")}
    if curves["after"] is not None and curves["control"] is not None:
        found.append(
            relearn_evidence(curves["after"], curves["control"], curves["before"], curves["gold"], seed=config.seed)
        )
    return found
