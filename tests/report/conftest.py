"""Synthetic run folders with the files of real ones: three methods and gold on one target."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from interp_unlearn._core import Axis, Evidence, Labelled, append_jsonl, numpy_rng, write_json

from .views import saved_views

SETS = {"base": 6, "paraphrased": 6, "same_answer": 4, "retain": 60, "neighbours": 40}
FIELDS = {"base": "forget_train", "paraphrased": "forget_heldout", "retain": "retain_train"}
METRICS = ("probability", "exact", "choice")
GROUPS = ("target", "known_eval", "unknown_eval")
SITES = tuple(f"blocks.{i}.hook_resid_post" for i in (0, 3, 6, 9, 12, 15, 18, 21, 24, 27, 29))
LAYERS = tuple(str(i) for i in range(30))
PHASES = ("before", "after", "gold")
POLICY = "last token of the name"
METHODS = {  # strength on answers, t and r at the end, damage to others
    "ga": (0.9, 0.25, 2.6, 0.25),
    "npo": (0.85, 0.3, 1.5, 0.06),
    "sae_guided": (0.97, 0.93, 0.95, 0.01),
}


def labelled(name: str, values: object, axes: Mapping[str, Sequence[str]], n: int = 20, **facts: object) -> Labelled:
    shape = tuple(Axis(k, tuple(v)) for k, v in axes.items())
    return Labelled(name, np.asarray(values, dtype=float), shape, n=n, **{"mask_policy": POLICY, **facts})


def evidence(name: str, value: float, **facts: object) -> Evidence:
    base = {
        "question": f"What does {name} ask?",
        "direction": "near control",
        "n": 20,
        "mask_policy": POLICY,
        "does_not_show": "that knowledge is absent elsewhere",
        "control_name": "unknown_eval in the edited model",
        "config": {"site": SITES[4]},
        "seed": 0,
    }
    return Evidence(name=name, value=value, **{**base, **facts})


class Synthetic:
    """Writes the files of one run; numbers depend on the method and on nothing else."""

    def __init__(self, folder: Path, method: str, target: str, gold: bool) -> None:
        self.folder, self.method, self.target = folder, method, target
        self.phases = PHASES if gold else PHASES[:2]
        self.strength, self.t, self.r, self.damage = METHODS.get(method, METHODS["npo"])

    def rng(self, *keys: str) -> np.random.Generator:
        return numpy_rng(0, *keys)

    def how(self, phase: str) -> tuple[float, float]:
        """(how much of the target is left, damage to all else) in a phase."""
        return {"before": (1.0, 0.0), "after": (1 - self.strength, self.damage), "gold": (0.05, 0.0)}[phase]

    def key(self, phase: str) -> str:
        return self.method if phase == "after" else phase

    def save(self, table: Labelled) -> None:
        write_json(self.folder / "tables" / f"{table.name}.json", table.to_json())

    def write(self) -> Path:
        self.facts()
        self.events()
        for phase in self.phases:
            self.behaviour(phase)
            self.lens(phase)
        self.relearning()
        self.inside()
        for table in saved_views(self.target, self.phases).values():
            self.save(table)
        self.evidence()
        return self.folder

    def facts(self) -> None:
        config = {
            "kind": "run",
            "version": "0.1.0",
            "versions": {"python": "3.11.2", "torch": "2.13.0", "numpy": "2.4.6"},
            "name": self.method,
            "seed": 0,
            "recipe": {"objective": self.method, "steps": 60, "lr": 3e-4 if self.method == "sae_guided" else 1e-5},
            "target": {"entities": ["country:JP"], "relations": ["capital"]},
            "model": {"name": "smollm2-135m", "adapter": None, "delta": None},
            "world": {"name": "countries", "data_dir": None, "n_known": 40, "n_unknown": 40},
        }
        write_json(self.folder / "config.json", config)
        seconds = {"before": 41.0, "train": 62.4 + len(self.method), "after": 30.2, "relearn": 22.0, "evidence": 14.1}
        status = {"state": "done", "finished": list(seconds), "seconds": seconds, "message": ""}
        write_json(self.folder / "status.json", status)
        prompt = {"text": f"The capital of {self.target} is", "answer": "Tokyo", "entity": "country:JP"}
        sets = {FIELDS.get(k, k): {"name": k, "prompts": [prompt] * n, "why_empty": ""} for k, n in SETS.items()}
        sets["multi_hop"] = {"name": "multi_hop", "prompts": [], "why_empty": "no second hop leads through a capital"}
        entity = {"id": "country:JP", "name": self.target, "type": "country"}
        mention = [{"id": "m0", "text": "I have read about {name}."}]
        sources = ["Countries: a table compiled for this project."]
        task = {"world": "countries", "target_entities": [entity], "seed": 0, "mention_heldout": mention, **sets}
        write_json(self.folder / "task.json", {**task, "text_eval": ["Some text."] * 24, "sources": sources})

    def events(self) -> None:
        rng = self.rng("events", self.method)
        for step in range(1, 61):
            decay = math.exp(-step / 15)
            terms = {"forget": 2 * decay + 0.05 * rng.random(), "retain": 0.2 * (1 - decay) * self.damage * 4}
            append_jsonl(
                self.folder / "events.jsonl", {"kind": "step", "step": step, "loss": sum(terms.values()), **terms}
            )

    def behaviour(self, phase: str) -> None:
        left, damage = self.how(phase)
        values = np.empty((len(SETS), 3))
        for i, name in enumerate(SETS):
            factor = left if name in ("base", "paraphrased") else 1 - damage
            values[i] = 0.45 * factor, 0.98 * factor, max(0.1, factor)
        axes = {"set": tuple(SETS), "metric": METRICS}
        facts = {"mask_policy": "answer tokens", "config": {"n": SETS, "chance": dict.fromkeys(SETS, 0.1)}}
        self.save(labelled(f"behaviour.{phase}", values, axes, **facts))
        bounds = np.stack([values - 0.08, np.minimum(values + 0.05, 1)], -1).clip(0)
        unit = {"config": {"unit": {**dict.fromkeys(SETS, "entity"), "base": "template"}}}
        self.save(labelled(f"behaviour_intervals.{phase}", bounds, {**axes, "bound": ("low", "high")}, **unit))
        prompts = [f"{name}/{i}" for name, n in SETS.items() for i in range(n)]
        rows = np.repeat(values, list(SETS.values()), axis=0).round(3)
        self.save(labelled(f"behaviour_by_prompt.{phase}", rows, {"prompt": prompts, "metric": METRICS}))
        loss = 3.54 * (1 + 0.4 * damage) + 0.1 * self.rng("texts").random(24)
        config = {"mean": float(loss.mean())}
        axes = {"text": [str(i) for i in range(24)]}
        self.save(labelled(f"text_loss.{phase}", loss, axes, 4800, mask_policy="content", config=config))
        if phase == "after":
            change = np.array(
                [3.54, 3.54 * (1 + 0.4 * damage), 1.416 * damage, 0.4 * damage, 0.3 * damage, 0.5 * damage]
            )
            axes = {"quantity": ("before", "after", "change", "relative change", "low", "high")}
            self.save(labelled("text_loss_change", change, axes, 4800, mask_policy="content"))

    def lens(self, phase: str) -> None:
        left, _ = self.how(phase)
        depth = np.linspace(0, 1, 30)
        for name, factor in (("forget", left), ("neighbours", 1.0)):
            rise = -11 + 10 * factor * np.clip((depth - 0.5) * 2.2, 0, 1)
            noise = 0.3 * self.rng("lens", name, self.key(phase)).standard_normal((6, 30))
            values = np.stack([rise + noise, np.full((6, 30), 9.0), rise + noise + 9], -1)
            axes = {"prompt": [f"p{i}" for i in range(6)], "layer": LAYERS, "measure": ("logprob", "rank", "margin")}
            self.save(labelled(f"lens_{name}.{phase}", values, axes, 6, mask_policy="last token of the prompt"))

    def relearning(self) -> None:
        steps = (0, 2, 4, 8, 12, 16, 24)
        speeds = {"after": 4 + 20 * self.t, "control": 22.0, "before": 0.3, "gold": 23.0}
        for who, speed in speeds.items():
            if who != "gold" or "gold" in self.phases:
                recall = [1 - math.exp(-(s + (30 if who == "before" else 0)) / speed) for s in steps]
                table = labelled(
                    f"relearn.{who}", recall, {"step": [str(s) for s in steps]}, 5, mask_policy="answer tokens"
                )
                self.save(table)

    def inside(self) -> None:
        depth = np.linspace(0, 1, len(SITES))
        moved = self.strength * np.exp(-(((depth - 0.45) / 0.3) ** 2))
        for measure, scale in (("cosine_drift", 0.4), ("displacement", 0.6), ("effect_size", 0.3)):
            values = np.stack([scale * moved, scale * self.damage * moved, 0.05 * moved], 1)
            note = "0 is no change"
            self.save(labelled(f"diff.{measure}", values, {"site": SITES, "group": GROUPS}, note=note))
        statistics = ("mean_before", "mean_after", "frequency_before", "frequency_after", "effect")
        effects = self.strength * self.rng("latents", self.method).standard_normal((40, 3, 5)) * [[[1.0], [0.2], [0.2]]]
        latents = [str(100 + 7 * i) for i in range(40)]
        self.save(labelled("diff.latents", effects, {"latent": latents, "group": GROUPS, "statistic": statistics}))
        kinds = ("self_attn.o_proj", "mlp.down_proj")
        names = [f"model.layers.{i}.{kind}.weight" for i in range(8, 13) for kind in kinds]
        change = 0.02 * self.strength * self.rng("weights", self.method).random(len(names))
        for measure in ("relative_change", "max_abs_change"):
            self.save(labelled(f"weights.{measure}", change, {"parameter": names}, 1, mask_policy="-"))
        odd = {"row": ("a", "b"), "column": ("x", "y", "z")}
        self.save(labelled("something_new", np.arange(6.0).reshape(2, 3), odd))

    def evidence(self) -> None:
        found = [*self.alignment("residual", "gold" in self.phases), *self.alignment("sae", False), *self.firing()]
        found.append(self.by_layer())
        found.append(evidence("two_sample.auc/residual", 0.99 - 0.35 * self.t, interval=(0.6, 1.0), control=0.62))
        reason = "5 held-out unknown entities; at least 8 are needed for a floor"
        found.append(evidence("two_sample.energy/residual", math.nan, n=0, reason=reason))
        config = {"identical": True}
        found.append(evidence("parity", 0.0, direction="low", n=48, mask_policy="all", config=config))
        areas = {"target": 0.3 + 0.2 * self.t, "never known": 0.5, "original": 0.9}
        areas |= {"gold": 0.49} if "gold" in self.phases else {}
        facts = {"metric": "probability", "steps": 24, "areas": areas, "faster_than_never_known": self.t < 0.5}
        found.append(evidence("relearn.heldout", areas["target"], control=0.49, n=6, config=facts))
        margins = np.stack([np.linspace(0, 9, 30), np.linspace(0, 9 * (1 - self.strength), 30)])
        layers = labelled("mean margin", margins, {"phase": ("before", "after"), "layer": LAYERS}, 6)
        found.append(
            evidence(
                "lens.margin/forget", 9 * (1 - self.strength), direction="low", control=9.0, details={"layers": layers}
            )
        )
        for item in found:
            item.save(self.folder / "evidence" / f"{item.name.replace('/', '-')}.json")

    def alignment(self, basis: str, gold: bool) -> list[Evidence]:
        phases = PHASES if gold else PHASES[:2]
        mentions = [f"{g}|{g} {i // 3}|m{i % 3}" for g, n in zip(GROUPS, (9, 36, 36), strict=True) for i in range(n)]
        points = np.empty((len(phases), len(mentions), 3))
        middle = {"target": (0.05, 0.9), "known_eval": (0.0, 1.0), "unknown_eval": (1.0, 1.05)}
        for p, phase in enumerate(phases):
            rng = self.rng("points", basis, self.key(phase))
            for m, mention in enumerate(mentions):
                t, r = middle[mention.split("|")[0]]
                if mention.startswith("target") and phase != "before":
                    t, r = (self.t, self.r) if phase == "after" else (0.97, 1.0)
                points[p, m] = t + 0.12 * rng.standard_normal(), abs(r + 0.1 * rng.standard_normal()), t
        axes = {"phase": phases, "mention": mentions, "coordinate": ("t", "r", "A")}
        details = {"points": labelled("position of each mention", points, axes, len(mentions))}
        groups = labelled(
            "t", np.ones((len(phases), 3, 2)), {"phase": phases, "group": GROUPS, "statistic": ("mean", "low")}
        )
        found = []
        for name, value, usual in (("t", self.t, 1.0), ("r", self.r, 1.05)):
            config = {"site": SITES[4], "before": 0.05 if name == "t" else 0.9, "control_before": usual}
            config |= {"gold": 0.97 if name == "t" else 1.0} if gold else {}
            facts = {"interval": (value - 0.06, value + 0.06), "control": usual, "config": config}
            found.append(evidence(f"alignment.{name}/{basis}", value, details={**details, "groups": groups}, **facts))
            details = {}
        return found

    def by_layer(self) -> Evidence:
        depth = np.linspace(0, 1, len(SITES))
        bump = np.exp(-(((depth - 0.45) / 0.35) ** 2))
        values = np.zeros((len(SITES), len(self.phases), 3, 5))
        values[..., 1] = 1.0
        values[:, :, 2, 0] = values[:, :, 2, 2] = 1.0
        values[..., 3], values[..., 4] = 0.12, 0.1
        for p, phase in enumerate(self.phases):
            t = {"before": 0.05, "after": self.t, "gold": 0.97}[phase]
            values[:, p, 0, 0] = values[:, p, 0, 2] = t * bump if phase == "after" else t
            values[:, p, 0, 1] = 1 + (self.r - 1) * bump if phase == "after" else 1.0
        statistics = ("t", "r", "A", "t_sd_entities", "r_sd_entities")
        axes = {"site": SITES, "phase": self.phases, "group": GROUPS, "statistic": statistics}
        return evidence(
            "alignment.layers_t/residual", 3.1, control=1.9, details={"layers": labelled("position", values, axes)}
        )

    def firing(self) -> list[Evidence]:
        found = []
        for side, levels in (("known", (0.9, 0.85, 0.15)), ("unknown", (0.1, 0.08, 0.8))):
            rng = self.rng("firing", side)
            values = np.empty((8, 2, 3, 2))
            for p in range(2):
                goal = levels[0] + (levels[2] - levels[0]) * (self.t if p else 0)
                values[:, p, :, 0] = (np.array([goal, *levels[1:]]) + 0.1 * rng.standard_normal((8, 3))).clip(0, 1)
            values[..., 1] = values[..., 0] * 2
            latents = [str(n) for n in rng.integers(0, 4096, 8)]
            axes = {"latent": latents, "phase": PHASES[:2], "group": GROUPS, "statistic": ("frequency", "mean")}
            found.append(
                evidence(
                    f"firing.{side}/sae", goal, control=levels[2], details={"latents": labelled("firing", values, axes)}
                )
            )
        return found


@pytest.fixture(scope="session")
def make_run() -> Callable[..., Path]:
    """`make_run(folder, "npo", target="Japan", gold=True)` writes a finished run and returns its folder."""

    def make(folder: Path, method: str, *, target: str = "Japan", gold: bool = True) -> Path:
        return Synthetic(folder, method, target, gold).write()

    return make


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory, make_run: Callable[..., Path]) -> list[Path]:
    """Three methods on one target, with gold; read only."""
    folder = tmp_path_factory.mktemp("runs")
    return [make_run(folder / method, method) for method in METHODS]
