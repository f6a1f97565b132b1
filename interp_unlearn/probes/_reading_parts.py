"""The probes of this room as parts of the evidence: what each asks of the phases of a run, and keeps of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib import import_module

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from interp_unlearn._core import DataError, Evidence, Labelled, config_hash
from interp_unlearn.hooked import Activations, HookedModel
from interp_unlearn.probes._answer_rows import (
    POSITIONS,
    AnswerRow,
    answer_rows,
    answer_vectors,
    read_rows,
    rows_as_activations,
)
from interp_unlearn.probes._attribute import Scoring, attribute_probe
from interp_unlearn.probes._attribute_evidence import missing_attribute
from interp_unlearn.probes._catalogue_reading import READING, evidence, missing
from interp_unlearn.probes._depth import LensName, depth_evidence
from interp_unlearn.probes._lens import POLICY, LensStates, lens_evidence, lens_states, read_lens
from interp_unlearn.probes._mentions import read_mentions
from interp_unlearn.probes._parts import Found, Part, Progress, register_part
from interp_unlearn.probes._phases import AFTER, BEFORE, GOLD, Measured, Phases
from interp_unlearn.probes._recognition import KINDS as RECOGNITION
from interp_unlearn.probes._recognition import recognition_probe
from interp_unlearn.probes._run import run_probes
from interp_unlearn.probes._similarity import KINDS as SIMILARITY
from interp_unlearn.probes._similarity import similarity
from interp_unlearn.probes._tuned_lens import TunedLens, TunedLensConfig, fit_tuned_lens, lens_layers
from interp_unlearn.worlds import Entity, Prompt, Task

MAX_SITES = 8  # residual sites read besides the last one, evenly spaced
MAX_LENS_LAYERS = 2 * MAX_SITES  # so that those of the tuned lens are among them
TARGET_PROMPTS, NEIGHBOUR_PROMPTS = 40, 24
DEEP = 8  # models of more blocks are asked about fewer entities, since each costs a pass through all of them
SIMILAR_ENTITIES = 8
SCORINGS: tuple[Scoring, ...] = ("answer", "class")
LENS_CONFIG = TunedLensConfig(max_layers=MAX_SITES)
MENTION_TEMPLATES = 4  # of deep models


def _sites(model_layers: int, extra: Sequence[str] = ()) -> list[str]:
    """Residual sites in order of depth; the given sites are among them."""
    names = {f"blocks.{i}.hook_resid_post" for i in lens_layers(model_layers, MAX_SITES)} | set(extra)
    return sorted(names, key=lambda n: (int(n.split(".")[1]) if n.startswith("blocks.") else -1, n))


def _key(name: str, *settings: object) -> str:
    """The name under which a phase keeps a measurement: it changes with every setting and text behind it."""
    return f"{name}-{config_hash(list(settings))}"


def _layers_of(phases: Phases) -> int:
    return int(phases.once(BEFORE, "layers", lambda model: {"n": torch.tensor(model.lm.n_layers)})["n"])


def _thinned(task: Task, n_layers: int, *, known: int, unknown: int) -> Task:
    """The task with at most so many entities of each known, unknown and target group, if the model is deep."""
    if n_layers <= DEEP:
        return task
    return replace(
        task,
        target_entities=task.target_entities[:known],
        known_ref=task.known_ref[:known],
        known_eval=task.known_eval[:known],
        unknown_ref=task.unknown_ref[:unknown],
        unknown_eval=task.unknown_eval[:unknown],
    )


# -- alignment ------------------------------------------------------------------------------------------------------


def _look_alignment(phases: Phases, progress: Progress) -> Found:
    """`run_probes` on mention activations of every phase."""
    saes = phases.saes
    n_layers = _layers_of(phases)
    site = saes["main"].site if "main" in saes else f"blocks.{max(1, round(0.4 * n_layers))}.hook_resid_post"
    sites = _sites(n_layers, [site, *(sae.site for sae in saes.values())])
    task = _thinned(phases.task, n_layers, known=12, unknown=12)
    if n_layers > DEEP:
        task = replace(task, mention_heldout=task.mention_heldout[:MENTION_TEMPLATES])
    acts: dict[str, Activations] = {}
    for phase in phases.names:
        progress(f"reading mentions ({phase})", 0, 0)
        acts[phase] = read_mentions(phases, phase, task, sites)
    progress("probing mentions", 0, 0)
    found = run_probes(
        acts[BEFORE],
        acts[AFTER],
        site=site,
        sae=saes.get("main"),
        second_sae=saes.get("second"),
        gold=acts.get(GOLD),
        seed=phases.seed,
    )
    return Found(tuple(found))


# -- lenses ---------------------------------------------------------------------------------------------------------


def _some(prompts: Sequence[Prompt], count: int) -> tuple[Prompt, ...]:
    """At most ``count`` prompts, evenly spaced."""
    if len(prompts) <= count:
        return tuple(prompts)
    return tuple(prompts[i] for i in sorted({round(j * (len(prompts) - 1) / (count - 1)) for j in range(count)}))


def _lens_sets(task: Task) -> dict[str, tuple[Prompt, ...]]:
    """The questions that are read: the target's (held-out templates, where there are any) and the neighbours'."""
    target = task.forget_heldout.prompts or task.forget_train.prompts
    sets = {"forget": _some(target, TARGET_PROMPTS), "neighbours": _some(task.neighbours.prompts, NEIGHBOUR_PROMPTS)}
    return {name: prompts for name, prompts in sets.items() if prompts}


def _lens_tables(
    phases: Phases, progress: Progress, layers: Sequence[int], lenses: Mapping[str, TunedLens] | None = None
) -> dict[str, dict[str, Labelled]]:
    """Tables by question set and phase. The original's head decodes before and after; gold is decoded by its own."""
    sets = _lens_sets(phases.task)
    keys = {name: _key(f"lens-{name}", list(layers), [p.full for p in prompts]) for name, prompts in sets.items()}
    states: dict[tuple[str, str], LensStates] = {}
    for phase in phases.names:
        progress(f"reading prompts ({phase})", 0, 0)
        for name, prompts in sets.items():

            def read(model: HookedModel, prompts: tuple[Prompt, ...] = prompts) -> Measured:
                return lens_states(model, prompts, layers=layers).tensors()

            states[name, phase] = LensStates.from_tensors(phases.once(phase, keys[name], read))
    tables: dict[str, dict[str, Labelled]] = {name: {} for name in sets}
    for head in (BEFORE, GOLD):
        if head not in phases.names:
            continue
        progress("decoding", 0, 0)
        with phases.open(head) as model:
            for name, prompts in sets.items():
                for phase in (BEFORE, AFTER) if head == BEFORE else (GOLD,):
                    lens = None if lenses is None else lenses[head]
                    tables[name][phase] = read_lens(model, states[name, phase], prompts, lens)
    return tables


def _depths(part: LensName, tables: Mapping[str, Mapping[str, Labelled]], seed: int) -> list[Evidence]:
    kinds = [kind for kind in READING if kind.startswith(f"{part}.") and not kind.endswith(".kl")]
    if "forget" not in tables:
        return [missing(k, "forget", "the task asks nothing about its target", mask_policy=POLICY) for k in kinds]
    return depth_evidence(tables["forget"], tables.get("neighbours"), part=part, seed=seed)


def _named(part: str, tables: Mapping[str, Mapping[str, Labelled]]) -> dict[str, Labelled]:
    return {f"{part}_{name}.{phase}": t for name, found in tables.items() for phase, t in found.items()}


def _look_lens(phases: Phases, progress: Progress) -> Found:
    tables = _lens_tables(phases, progress, lens_layers(_layers_of(phases), MAX_LENS_LAYERS))
    found = _depths("lens", tables, phases.seed)
    for name, table in tables.items():
        found.append(lens_evidence(table[BEFORE], table[AFTER], where=name, gold=table.get(GOLD), seed=phases.seed))
    return Found(tuple(found), _named("lens", tables))


def lens_texts(task: Task) -> tuple[str, ...]:
    """What a tuned lens is fitted on: text, mentions and facts of reference entities, and nothing about the target."""
    mentions = task.mentions((*task.known_ref, *task.unknown_ref), "train")
    return (*task.text_train, *(p.full for p in task.retain_train.prompts), *(m.text for m in mentions))


def fitted_lenses(phases: Phases, progress: Progress) -> dict[str, TunedLens]:
    """The tuned lens of every phase but the edited one, which is read by the original's; fitted the first time.

    Raises:
        DataError: If there is too little text to fit on.
    """
    texts = lens_texts(phases.task)
    key = _key("tuned-lens", asdict(LENS_CONFIG), texts)

    def fit(model: HookedModel) -> Measured:
        return fit_tuned_lens(model, texts, LENS_CONFIG, progress=progress).tensors()

    return {
        phase: TunedLens.from_tensors(phases.once(phase, key, fit), asdict(LENS_CONFIG))
        for phase in phases.names
        if phase != AFTER
    }


def _look_tuned_lens(phases: Phases, progress: Progress) -> Found:
    texts = lens_texts(phases.task)
    try:
        lenses = fitted_lenses(phases, progress)
    except DataError as error:
        kinds = [kind for kind in READING if kind.startswith("tuned_lens.")]
        return Found(tuple(missing(kind, "forget", str(error), mask_policy=POLICY) for kind in kinds))
    tables = _lens_tables(phases, progress, lens_layers(_layers_of(phases), MAX_LENS_LAYERS), lenses)
    found = _depths("tuned_lens", tables, phases.seed)
    kl = lenses[BEFORE].kl.double().numpy()
    if len(kl):
        found.append(
            evidence(
                "tuned_lens.kl",
                "text",
                float(kl[:, 2].mean()),
                n=len(texts),
                mask_policy="inner",
                control=float(kl[:, 0].mean()),
                config={"closed_form": float(kl[:, 1].mean()), "layers": list(lenses[BEFORE].layers)},
                seed=LENS_CONFIG.seed,
            )
        )
    return Found(tuple(found), _named("tuned_lens", tables))


# -- readouts -------------------------------------------------------------------------------------------------------


def _asked(
    phases: Phases, rows: Sequence[AnswerRow], name: str, progress: Progress
) -> dict[str, dict[str, Activations]]:
    """Rows by position and phase."""
    sites = _sites(_layers_of(phases))
    key = _key(name, sites, [r.text for r in rows])

    def read(model: HookedModel) -> Measured:
        found = read_rows(model, rows, sites)
        return {f"{position}|{site}": value for (position, site), value in found.items()}

    out: dict[str, dict[str, Activations]] = {position: {} for position in POSITIONS}
    for phase in phases.names:
        progress(f"asking about every entity ({phase})", 0, 0)
        values = phases.once(phase, key, read)
        for position in POSITIONS:
            chosen = {site: values[f"{position}|{site}"] for site in sites}
            out[position][phase] = rows_as_activations(rows, chosen, position)
    return out


def _questions(phases: Phases) -> tuple[AnswerRow, ...]:
    """What the readouts are fitted on and applied to."""
    n_layers = _layers_of(phases)
    templates = None if n_layers <= DEEP else 2
    return answer_rows(_thinned(phases.task, n_layers, known=20, unknown=10), templates=templates)


def _look_attribute(phases: Phases, progress: Progress) -> Found:
    try:
        rows = _questions(phases)
    except DataError as error:
        return Found(tuple(missing_attribute(POSITIONS[0], str(error), POLICY)))
    acts = _asked(phases, rows, "asked", progress)
    answers = list(dict.fromkeys(r.answer for r in rows if r.answer))

    key = _key("answer-vectors", answers)

    def measure(model: HookedModel) -> Measured:
        vectors = answer_vectors(model, rows)
        return {"vectors": torch.stack([vectors[a] for a in answers])}

    def vectors_of(phase: str) -> Mapping[str, Tensor]:
        return dict(zip(answers, phases.once(phase, key, measure)["vectors"], strict=True))

    progress("fitting readouts of the answers", 0, 0)
    vectors, found = vectors_of(BEFORE), []
    gold_vectors = vectors_of(GOLD) if GOLD in phases.names else None
    with _one_thread():
        for position, by_phase in acts.items():
            for scoring in SCORINGS if position == "prompt" else SCORINGS[:1]:
                found += attribute_probe(
                    by_phase[BEFORE],
                    by_phase[AFTER],
                    vectors=vectors,
                    scoring=scoring,
                    gold=by_phase.get(GOLD),
                    gold_vectors=gold_vectors,
                    where=position if scoring == "answer" else f"{position}.class",
                    seed=phases.seed,
                )
    return Found(tuple(found))


def _look_recognition(phases: Phases, progress: Progress) -> Found:
    try:
        rows = _questions(phases)
    except DataError as error:
        return Found(tuple(missing(k, POSITIONS[0], str(error), mask_policy=POLICY) for k in RECOGNITION))
    acts = _asked(phases, rows, "asked", progress)
    progress("fitting readouts of recognition", 0, 0)
    found: list[Evidence] = []
    with _one_thread():
        for position, by_phase in acts.items():
            found += recognition_probe(
                by_phase[BEFORE], by_phase[AFTER], gold=by_phase.get(GOLD), where=position, seed=phases.seed
            )
    return Found(tuple(found))


def _look_similarity(phases: Phases, progress: Progress) -> Found:
    try:
        rows = _similar_rows(phases.task)
    except DataError as error:
        return Found(tuple(missing(k, POSITIONS[0], str(error), mask_policy=POLICY) for k in SIMILARITY))
    acts = _asked(phases, rows, "similar", progress)[POSITIONS[0]]
    with _one_thread():
        found = similarity(acts[BEFORE], acts[AFTER], gold=acts.get(GOLD), seed=phases.seed)
    return Found(tuple(found))


def _similar_rows(task: Task) -> tuple[AnswerRow, ...]:
    """The target and neighbours asked the same, a few entities of each."""

    def first(entities: Sequence[Entity]) -> set[str]:
        return {e.id for e in entities[:SIMILAR_ENTITIES]}

    chosen = {"target": first(task.target_entities), "known_eval": first(task.known_eval)}
    return tuple(r for r in answer_rows(task, templates=3) if r.entity in chosen.get(r.group, ()))


def _one_thread() -> threadpool_limits:
    """One thread: the matrices are small, and results then do not depend on the number of cores."""
    import_module("sklearn.linear_model")  # the limit only reaches libraries that are loaded
    return threadpool_limits(limits=1, user_api="blas")


register_part(
    Part("alignment", "place of the target among known and unknown entities", "probe", "quick", _look_alignment)
)
register_part(Part("lens", "logit lens: depth at which the answer is readable", "probe", "quick", _look_lens))
register_part(
    Part("similarity", "CKA and principal components, before against after", "probe", "quick", _look_similarity)
)
register_part(
    Part("tuned_lens", "tuned lens: depth at which the answer is readable", "probe", "standard", _look_tuned_lens)
)
register_part(Part("attribute", "linear readouts of the answer", "probe", "standard", _look_attribute))
register_part(Part("recognition", "linear readouts of known and unknown", "probe", "standard", _look_recognition))
