"""The steps of a run on a language model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from interp_unlearn._core import ConfigError, Evidence, Labelled, read_json
from interp_unlearn.hooked import HookedModel
from interp_unlearn.runs._config import RunConfig
from interp_unlearn.runs._edited_checks import (
    check_alike,
    check_gold,
    check_not_collapsed,
    check_tokenizers,
    check_unknown,
)
from interp_unlearn.runs._flow import Flow, register_flow
from interp_unlearn.runs._folder import RunFolder
from interp_unlearn.runs._language_measure import (
    can_relearn,
    change_tables,
    measure_evidence,
    measure_glance,
    measure_phase,
    measure_relearning,
    parity_evidence,
)
from interp_unlearn.runs._language_open import open_language, open_original, tinyworld_config
from interp_unlearn.runs._workbench import Progress, Workbench
from interp_unlearn.unlearn import Recipe, default_recipe
from interp_unlearn.worlds import task_from_json
from interp_unlearn.zoo import open_model, tinyworld_model


class LanguageFlow(Flow):
    """Language models: questions are asked, and rows are mentions of names."""

    modality = "language"

    def open(self, config: RunConfig, progress: Progress) -> Workbench:
        """Open model, world, task and SAEs."""
        return open_language(config, progress)

    def reopen(self, config: RunConfig, out: RunFolder, progress: Progress) -> Workbench:
        """Open model, world and SAEs, with the questions that the run saved."""
        return open_language(config, progress, task_from_json(read_json(out.path / "task.json")))

    def open_named(self, config: RunConfig, name: str, bench: Workbench | None, progress: Progress) -> HookedModel:
        """A folder, zoo name, hub id or GGUF file; an adapter is laid over the original (without named sites)."""
        if bench is not None:
            return open_model(name, tokenizer=bench.model.tokenizer)
        folder = Path(name).expanduser()
        if (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file():
            original = open_original(config, progress)
            return open_model(original.module, tokenizer=original.tokenizer, adapter=folder, language=False)
        return open_model(name, language=False)

    def sizes(self, model: HookedModel) -> dict[str, Any]:
        """Architecture, layers, width and vocabulary; None for what the model does not say."""
        config: Any = getattr(model.module, "config", None)
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        find: Any = getattr(model.module, "get_output_embeddings", lambda: None)
        head = find()
        return {
            "kind": getattr(config, "model_type", type(model.module).__name__),
            "layers": getattr(text, "num_hidden_layers", None),
            "width": getattr(text, "hidden_size", None),
            "vocabulary": None if head is None else int(head.weight.shape[0]),
        }

    def check_data(self, bench: Workbench) -> None:
        """Refuse too few unknown entities."""
        check_unknown(bench.task)

    def check_fits(self, bench: Workbench, sizes: Mapping[str, Any], tokenizer: Any, who: str) -> None:
        """Refuse another architecture, vocabulary or tokenizer."""
        check_alike(self.sizes(bench.model), sizes, who)
        check_tokenizers(bench.model.tokenizer, tokenizer, who)

    def check_answers(self, bench: Workbench) -> None:
        """Refuse logits that are NaN, or the same for every prompt."""
        check_not_collapsed(bench.model, bench.task)

    def check_gold(self, bench: Workbench, gold: HookedModel) -> None:
        """Refuse a gold model that answers questions about the target."""
        check_gold(bench.model, gold, bench.task)

    def recipe(self, config: RunConfig, bench: Workbench, given: Mapping[str, Any]) -> Recipe:
        """Searched defaults for the model's size; representation objectives read the layer of the SAE."""
        rest = dict(given)
        layer = int(bench.site.split(".")[1])
        return default_recipe(str(rest.pop("objective")), bench.model, layer=layer, overrides=rest)

    def parity(self, bench: Workbench) -> Evidence:
        """Bare against hooked logits on questions of the task."""
        return parity_evidence(bench)

    def measure(self, config: RunConfig, out: RunFolder, bench: Workbench, phase: str, progress: Progress) -> None:
        """Behaviour, text loss, lens and mention activations."""
        measure_phase(config, out, bench, phase, progress)

    def look(self, bench: Workbench) -> dict[str, float]:
        """Exact match and probability of the target's held-out questions and of neighbours."""
        return measure_glance(bench)

    def relearn(self, config: RunConfig, bench: Workbench, who: str, progress: Progress) -> list[Labelled]:
        """Relearning of the target's questions; the control are unknown entities."""
        return measure_relearning(config, bench, who, progress) if can_relearn(config, bench) else []

    def changes(self, config: RunConfig, out: RunFolder) -> list[Labelled]:
        """Changes of behaviour and of the loss on general text."""
        return change_tables(config, out)

    def evidence(self, config: RunConfig, out: RunFolder, bench: Workbench, progress: Progress) -> list[Evidence]:
        """Alignment, two-sample tests, latents, lens and relearning."""
        return measure_evidence(config, out, bench, progress)

    def makes_gold(self, config: RunConfig, bench: Workbench) -> bool:
        """Only the training set of TinyWorld is ours."""
        world = bench.world
        return bench.model.source.get("model") == "tinyworld" and world is not None and world.name == "tinyworld"

    def retrain(self, config: RunConfig, bench: Workbench, progress: Progress) -> HookedModel:
        """TinyWorld's model without the target.

        Raises:
            ConfigError: For a model whose training set is not ours.
        """
        if not self.makes_gold(config, bench):
            raise ConfigError(f"{bench.model.name} cannot be retrained here; name a gold model (model.gold)")
        return tinyworld_model(tinyworld_config(config), bench.task.target, progress)


register_flow(LanguageFlow())
