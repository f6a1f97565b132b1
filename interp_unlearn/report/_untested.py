"""What was not tested: computed from what the runs did not save, and the limits that every report has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from interp_unlearn.report import plots
from interp_unlearn.report._compare import GOLD, Comparison
from interp_unlearn.report._evidence import PARITY
from interp_unlearn.report._kinds import not_run

EVIDENCE: Mapping[str, str] = {
    "alignment.t": "where the target lies between known and unknown entities",
    "alignment.layers_t": "alignment at other layers than the recipe's own",
    "alignment.separation": "whether known and unknown bystanders are still apart",
    "firing.known": "firing of known-entity latents",
    "firing.unknown": "firing of unknown-entity latents",
    "two_sample.auc": "whether a classifier tells the target from unknown entities",
    "two_sample.energy": "energy distance between target and unknown entities",
    "probe.unknown_fraction": "a linear known/unknown probe",
    "lens.margin": "whether the logit lens reads the answer at any layer",
    "sae.fvu": "whether the SAE still explains the target's activations",
    "norm.ratio": "whether activation norms jumped",
    PARITY: "parity of wrapped and bare logits",
}
"""Kinds of evidence that a full run saves, and what goes unseen without them."""

TABLES: Mapping[str, str] = {
    "behaviour.after": "answers to any question",
    "text_loss.after": "loss on general text",
    "relearn.after": "relearning of the forgotten facts",
    "weights.relative_change": "which weights changed",
    "lens_": "the logit lens by layer",
}

ATTACKS: Mapping[str, str] = {
    "stitch": "putting the original upper layers on the edited lower ones",
    "quant": "quantising the edited weights",
    "prompt": "prompts made to extract (prefixes, few-shot, other languages, role play)",
    "sampl": "sampling many answers",
    "noise": "noise on or pruning of the weights",
    "patch": "patching activations of the original into the edited model, and back",
    "mia": "membership inference",
}
"""Attacks and measures known to the field, by the beginning of the name under which a run would save them."""

TEXT_ONLY = ("firing.", "lens", "sae.", "text_loss", "stitch", "prompt", "sampl", "patch")
"""Beginnings of names above that only a language model could have."""

LIMITS: Mapping[str, tuple[str, ...]] = {
    "language": (
        "Answers were scored on the fixed prompts listed here; other wordings, languages and conversations were not "
        "asked.",
        "Activations were read at the last token of the name; knowledge read from other tokens or positions can be "
        "missed.",
    ),
    "graph": (
        "Every model was asked on this graph alone, with its features; what it says on another graph is not known.",
        "What is deleted was asked for one by one; whether it can be inferred from several others together was not.",
    ),
    "image": (
        "Every model was asked about images of this set; other backgrounds, crops and corruptions were not tried.",
        "Maps were averaged over places before they were probed; what is told by the places alone can be missed.",
    ),
}
"""By what models read."""
EVERY_LIMIT = "Evidence from activations cannot prove absence: it can only fail to find the knowledge where it looked."


def untested(comparison: Comparison) -> tuple[str, ...]:
    """One sentence for each thing that no run here tested, then the limits of every report."""
    evidence, tables = comparison.names("evidence"), comparison.names("tables")
    kinds = {name.partition("/")[0] for name in evidence}
    asked, saved, tried = (_fitting(of_kind, comparison.modality) for of_kind in (EVIDENCE, TABLES, ATTACKS))
    said = [f"Not measured: {what}." for kind, what in asked.items() if not _any(kinds, kind)]
    said += [f"Not measured: {what}." for start, what in saved.items() if not any(n.startswith(start) for n in tables)]
    said += _sets(comparison)
    missing = not_run(comparison)
    for kind, words in (("behaviour", "Not asked"), ("probe", "Not probed"), ("attack", "Not tried")):
        left = [str(facts.get("what") or name) for name, facts in missing if facts.get("kind") == kind]
        if left:
            said.append(f"{words}: {'; '.join(left)} (interp-unlearn evidence adds them, level full has all).")
    attacks = (
        []
        if missing
        else [what for start, what in tried.items() if not any(n.startswith(start) for n in (*kinds, *tables))]
    )
    if attacks:
        said.append(f"Not tried: {'; '.join(attacks)}.")
    if not any(name.endswith(f".{GOLD}") for name in tables):
        said.append(
            "There is no gold model (retrained without the target) here, so no number could be compared with it."
        )
    said += _without_value(comparison)
    said.append(
        f"One target and one seed ({comparison.seed}): nothing here says how much another target or seed would differ."
    )
    return (*said, *LIMITS.get(comparison.modality, ()), EVERY_LIMIT)


def _fitting(names: Mapping[str, str], modality: str) -> dict[str, str]:
    """What models that read this could have saved."""
    return {n: what for n, what in names.items() if modality == "language" or not n.startswith(TEXT_ONLY)}


def _any(kinds: set[str], wanted: str) -> bool:
    return any(kind == wanted or kind.startswith(f"{wanted}.") for kind in kinds)


def _sets(comparison: Comparison) -> list[str]:
    said: dict[str, None] = {}
    for run in comparison.runs.values():
        for key, saved in run.task.items():
            if isinstance(saved, Mapping) and "prompts" in saved and not saved["prompts"]:
                why = saved.get("why_empty")
                words = plots.set_words(str(saved.get("name") or key))
                said[f"Not asked: {words}" + (f" ({why})." if why else ".")] = None
    return list(said)


def _without_value(comparison: Comparison) -> list[str]:
    said = {}
    for method, run in comparison.runs.items():
        for item in run.evidence.values():
            if math.isnan(item.value):
                reason = item.reason or "no reason was saved"
                said.setdefault(f"{item.name} could not be computed: {reason}", []).append(method)
    everybody = list(comparison.methods)
    return [text + ("." if who == everybody else f" (only {', '.join(who)}).") for text, who in said.items()]
