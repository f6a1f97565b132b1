"""`HookedModel`: a user's own module with named sites. It wraps; it never copies, folds or rewrites weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interp_unlearn._core import DataError, ModelError
from interp_unlearn.hooked._batch import Batch, batch_from_ids, tokenize
from interp_unlearn.hooked._sites import SiteMap

if TYPE_CHECKING:
    from interp_unlearn.hooked._parity import ParityReport


@dataclass(frozen=True)
class LanguageShape:
    """Sizes of a decoder language model.

    Attributes:
        n_layers: Number of blocks.
        d_model: Width of the residual stream.
        n_heads: Query heads per block.
        d_head: Width of one head's output (``attn.hook_z``).
        d_mlp: Neurons per block (``mlp.hook_post``).
        d_vocab: Size of the vocabulary.
        n_ctx: Longest prompt, or None if unstated.
        blocks: Module path of each block.
        embed: Module path of the token embedding.
        final_norm: Module path of the last normalisation, or None.
        unembed: Module path of the output head.
        mlp_out: Module path of each block's neuron-to-residual projection, or None where there is none.
    """

    n_layers: int
    d_model: int
    n_heads: int
    d_head: int
    d_mlp: int
    d_vocab: int
    n_ctx: int | None
    blocks: tuple[str, ...]
    embed: str
    final_norm: str | None
    unembed: str
    mlp_out: tuple[str | None, ...]


class HookedModel:
    """A module with named sites.

    Made by `open_model`. Attributes of a language model beyond `module`, `sites`, `name` live in `shape`; `shape` is None for
    every other module.

    Attributes:
        module: The user's own module, unchanged and shared.
        sites: Map from site name to `Site`.
        tokenizer: Hugging Face fast tokenizer, or None.
        name: Where the model came from, for reports.
        source: Facts for provenance (path, hub id, checksum, delta), written into run folders.
    """

    def __init__(
        self,
        module: nn.Module,
        sites: SiteMap,
        *,
        name: str,
        shape: LanguageShape | None = None,
        tokenizer: Any = None,
        source: Mapping[str, Any] | None = None,
    ) -> None:
        self.module = module
        self.sites = sites
        self.name = name
        self.shape = shape
        self.tokenizer = tokenizer
        self.source = dict(source or {})

    def __repr__(self) -> str:
        size = f"{self.shape.n_layers} layers, d_model {self.shape.d_model}" if self.shape else type(self.module).__name__
        return f"HookedModel({self.name!r}, {size}, {len(self.sites)} named sites)"

    @property
    def is_language_model(self) -> bool:
        """Whether TransformerLens names and text inputs work."""
        return self.shape is not None

    @property
    def lm(self) -> LanguageShape:
        """Sizes of the language model.

        Raises:
            ModelError: If the module is not a decoder language model.
        """
        if self.shape is None:
            raise ModelError(f"{self.name} was opened as a plain module; this needs a decoder language model")
        return self.shape

    @property
    def device(self) -> torch.device:
        """Device of the first parameter (inputs are moved there)."""
        return next((p.device for p in self.module.parameters()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first floating-point parameter."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    def submodule(self, path: str) -> nn.Module:
        """A module by its real path."""
        return self.module.get_submodule(path)

    def layer_parameters(self, layers: Sequence[int]) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of the given blocks, by their real names."""
        prefixes = tuple(f"{self.lm.blocks[i]}." for i in layers)
        for name, parameter in self.module.named_parameters():
            if name.startswith(prefixes):
                yield name, parameter

    # -- inputs ---------------------------------------------------------------------------------------------------------

    def batch(self, inputs: Any) -> Batch:
        """Make a `Batch` on the model's device from text, texts, ids, or a batch.

        Args:
            inputs: A text, a sequence of texts, a (batch, position) or (position,) tensor of ids, a list of id lists, a
                mapping with ``input_ids`` and ``attention_mask``, or a `Batch`.
        """
        if isinstance(inputs, Batch):
            return inputs.to(self.device)
        if isinstance(inputs, str) or (isinstance(inputs, Sequence) and inputs and isinstance(inputs[0], str)):
            if self.tokenizer is None:
                raise DataError("this model was opened without a tokenizer; pass token ids, or open_model(…, tokenizer=…)")
            return tokenize(self.tokenizer, inputs, max_length=self.lm.n_ctx).to(self.device)
        special = self.tokenizer.all_special_ids if self.tokenizer is not None else []
        if isinstance(inputs, Mapping):
            tokens = inputs["input_ids"]
            attended = inputs.get("attention_mask", torch.ones_like(tokens)).bool()
        elif isinstance(inputs, Tensor):
            tokens = inputs[None] if inputs.dim() == 1 else inputs
            attended = torch.ones_like(tokens, dtype=torch.bool)
        elif isinstance(inputs, Sequence) and inputs:
            rows = [list(row) for row in inputs] if not isinstance(inputs[0], int) else [list(inputs)]
            return self._checked(batch_from_ids(rows, special_ids=special)).to(self.device)
        else:
            raise DataError("give a text, a non-empty list of texts, token ids, or a Batch")
        marked = torch.isin(tokens, torch.tensor(list(special), dtype=torch.long, device=tokens.device)) & attended
        return self._checked(Batch(tokens.long(), attended, marked)).to(self.device)

    def _checked(self, batch: Batch) -> Batch:
        longest = int(batch.lengths().max())
        if self.lm.n_ctx is not None and longest > self.lm.n_ctx:
            raise DataError(f"a prompt of {longest} tokens is longer than the model's context of {self.lm.n_ctx}; shorten it")
        if int(batch.tokens.max()) >= self.lm.d_vocab or int(batch.tokens.min()) < 0:
            raise DataError(f"token ids must lie in 0…{self.lm.d_vocab - 1}; were they made by another tokenizer?")
        return batch

    # -- running --------------------------------------------------------------------------------------------------------

    @cached_property
    def _forward_names(self) -> frozenset[str]:
        return frozenset(inspect.signature(self.module.forward).parameters)

    def forward(self, inputs: Any) -> Any:
        """Run the module once: logits (batch, position, d_vocab) for a language model, else its own return value."""
        if self.shape is None:
            if isinstance(inputs, Mapping):
                return self.module(**inputs)
            return self.module(*inputs) if isinstance(inputs, tuple) else self.module(inputs)
        batch = inputs if isinstance(inputs, Batch) else self.batch(inputs)
        kwargs: dict[str, Any] = {"input_ids": batch.tokens, "attention_mask": batch.attended.long()}
        if "position_ids" in self._forward_names and batch.padded_inside_or_left():
            kwargs["position_ids"] = batch.position_ids()
        if "use_cache" in self._forward_names:
            kwargs["use_cache"] = False
        output = self.module(**kwargs)
        return output.logits if hasattr(output, "logits") else output

    def __call__(self, inputs: Any) -> Any:
        """Same as `forward`."""
        return self.forward(inputs)

    @torch.no_grad()
    def generate(self, prompts: str | Sequence[str], max_new_tokens: int = 16, **options: Any) -> list[str]:
        """Greedy continuations of ``prompts`` (text after the prompt only).

        Args:
            prompts: One text or several.
            max_new_tokens: Tokens to add at most.
            options: Passed to the module's ``generate`` (e.g. ``do_sample=True``).
        """
        if self.tokenizer is None:
            raise DataError("generation needs a tokenizer")
        batch = tokenize(self.tokenizer, prompts, padding_side="left", max_length=self.lm.n_ctx).to(self.device)
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        settings = {"do_sample": False, "pad_token_id": pad, **options}
        out = self.module.generate(
            input_ids=batch.tokens, attention_mask=batch.attended.long(), max_new_tokens=max_new_tokens, **settings
        )
        return self.tokenizer.batch_decode(out[:, batch.tokens.shape[1] :], skip_special_tokens=True)

    @torch.no_grad()
    def unembed(self, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logit lens: final norm and output head applied to residual activations."""
        if self.lm.final_norm is not None:
            hidden = self.submodule(self.lm.final_norm)(hidden)
        return self.submodule(self.lm.unembed)(hidden)

    # -- adapters over the same parameters ------------------------------------------------------------------------------

    @cached_property
    def bridge(self) -> Any:
        """TransformerLens `TransformerBridge` over the same module (attention patterns, q/k/v, scores).

        The bridge puts its hook points inside the shared module; from then on each forward costs more, so take a capture
        benchmark before touching it.
        """
        from interp_unlearn.hooked._adapters import make_bridge

        return make_bridge(self)

    @cached_property
    def nnsight(self) -> Any:
        """`nnsight` model over the same module, for tracing and remote execution."""
        from interp_unlearn.hooked._adapters import make_nnsight

        return make_nnsight(self)

    def parity(self, inputs: Any) -> ParityReport:
        """Compare logits of the bare module with logits while every site is hooked (expected: bit-identical)."""
        from interp_unlearn.hooked._parity import parity

        return parity(self, inputs)
