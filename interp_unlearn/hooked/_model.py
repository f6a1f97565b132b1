"""`HookedModel`: a user's own module with named sites. It wraps; it never copies, folds or rewrites weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from interp_unlearn._core import DataError, ModelError, SiteError, nearest
from interp_unlearn.hooked._batch import Batch, tokenize
from interp_unlearn.hooked._forward import argument_names, evaluating, input_device, run_language_model
from interp_unlearn.hooked._head import finish_logits, soft_cap
from interp_unlearn.hooked._inputs import make_batch
from interp_unlearn.hooked._sites import SiteMap

if TYPE_CHECKING:
    from interp_unlearn.hooked._adapters import SharedBridge
    from interp_unlearn.hooked._parity import ParityReport


@dataclass(frozen=True)
class LanguageShape:
    """Sizes of a decoder language model.

    Attributes:
        n_layers: Number of blocks.
        d_model: Width of the residual stream.
        n_heads: Query heads per block.
        d_head: Width of one head's output (``attn.hook_z``).
        d_mlp: Neurons per block (``mlp.hook_post``), 0 where no block has them.
        d_vocab: Size of the vocabulary.
        n_ctx: Longest prompt, or None if unstated.
        blocks: Module path of each block.
        embed: Module path of the token embedding.
        final_norm: Module path of the last normalisation, or None.
        unembed: Module path of the output head.
        mlp_out: Module path of each block's neuron-to-residual projection, or None where there is none.
        logit_scale: Factor of the logits after the output head's matrix, found by arithmetic; None where logits are
            more than a norm, a matrix and a factor, so that no lens can read the head.
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
    logit_scale: float | None = 1.0


def saved_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module's state dict that are no parameters, by name."""
    own = dict(module.named_parameters(remove_duplicate=False))
    return {name: tensor for name, tensor in module.state_dict(keep_vars=True).items() if name not in own}


class HookedModel:
    """A module with named sites.

    Made by `open_model`. Attributes of a language model beyond `module`, `sites`, `name` live in `shape`; `shape` is
    None for every other module.

    Attributes:
        module: The user's own module, unchanged and shared.
        sites: Map from site name to `Site`; lists the named sites, or without any those of every module.
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
        self._bridge: SharedBridge | None = None
        self._nnsight: tuple[tuple[int, ...], Any] | None = None

    def __repr__(self) -> str:
        size = (
            f"{self.shape.n_layers} layers, d_model {self.shape.d_model}" if self.shape else type(self.module).__name__
        )
        sites = f"{len(self.sites)} {'named sites' if self.shape else 'sites by module path'}"
        return f"HookedModel({self.name!r}, {size}, {sites})"

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
        """Where inputs are moved: the first parameter's device (the execution device, if weights are offloaded)."""
        return input_device(self.module)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the first floating-point parameter."""
        return next((p.dtype for p in self.module.parameters() if p.is_floating_point()), torch.float32)

    def submodule(self, path: str) -> nn.Module:
        """A module by its real path.

        Raises:
            SiteError: If there is none; the nearest paths are shown.
        """
        try:
            return self.module.get_submodule(path)
        except AttributeError as error:
            paths = [name for name, _ in self.module.named_modules() if name]
            raise SiteError(f"{self.name} has no module {path!r}{nearest(path, paths)}") from error

    def tensors(self) -> dict[str, Tensor]:
        """Parameters and saved buffers by real name: everything that an edit of this model can change."""
        return dict(self.module.named_parameters()) | saved_buffers(self.module)

    def layer_parameters(self, layers: Sequence[int]) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of the given blocks, by their real names.

        Raises:
            SiteError: If a layer does not exist.
        """
        n = self.lm.n_layers
        wrong = [layer for layer in layers if not -n <= layer < n]
        if wrong:
            raise SiteError(f"layer {wrong[0]} does not exist; {self.name} has layers 0…{n - 1}")
        prefixes = tuple(f"{self.lm.blocks[i]}." for i in layers)
        for name, parameter in self.module.named_parameters():
            if prefixes and name.startswith(prefixes):
                yield name, parameter

    # -- inputs ----------------------------------------------------------------------------------------------

    def batch(self, inputs: Any) -> Batch:
        """Make a checked `Batch` on the model's device.

        Args:
            inputs: A text, a sequence of texts, a (batch, position) or (position,) tensor or array of ids, a list of
                ids, a list of id lists, a mapping with ``input_ids`` and perhaps ``attention_mask``, or a `Batch`.

        Raises:
            DataError: If the inputs are of another kind, empty, longer than the context, or not ids of this model.
        """
        return make_batch(self, inputs)

    # -- running ---------------------------------------------------------------------------------------------

    @cached_property
    def _argument_names(self) -> frozenset[str]:
        return argument_names(self.module)

    def forward(self, inputs: Any) -> Any:
        """Run the module once: logits (batch, position, d_vocab) for a language model, else its own return value."""
        if self.shape is None:
            if isinstance(inputs, Mapping):
                return self.module(**inputs)
            return self.module(*inputs) if isinstance(inputs, tuple) else self.module(inputs)
        batch = inputs.to(self.device) if isinstance(inputs, Batch) else self.batch(inputs)
        return run_language_model(self.module, batch, self._argument_names)

    def forward_at(self, batch: Batch, where: Bool[Tensor, "batch pos"]) -> Float[Tensor, "n vocab"]:
        """Logits at chosen positions only, with graph; the output head runs nowhere else.

        With a large vocabulary the head is a good part of a pass, and its logits most of the memory. The head runs
        everywhere if hooks of others are on it, as these expect, or if the module flattens what it gives to the head.

        Args:
            batch: Tokens.
            where: True at the wanted positions.

        Returns:
            One row per True, row by row of the batch.
        """
        head = self.submodule(self.lm.unembed)
        batch, where = batch.to(self.device), where.to(self.device)
        if head._forward_hooks or head._forward_pre_hooks:
            return self.forward(batch)[where]
        chosen = False

        def choose(_module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
            nonlocal chosen
            chosen = bool(args) and isinstance(args[0], Tensor) and args[0].shape[:-1] == where.shape
            return (args[0][where][None], *args[1:]) if chosen else None

        with head.register_forward_pre_hook(choose):
            logits = self.forward(batch)
        return logits[0] if chosen else logits[where]

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
            raise DataError("generation needs a tokenizer; pass one to open_model(…, tokenizer=…)")
        batch = tokenize(self.tokenizer, prompts, padding_side="left", max_length=self.lm.n_ctx).to(self.device)
        longest = batch.tokens.shape[1] + max_new_tokens
        if self.lm.n_ctx is not None and longest > self.lm.n_ctx:
            raise DataError(
                f"prompt and answer need {longest} tokens, the model's context holds {self.lm.n_ctx}; ask for less"
            )
        pad = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        settings = {"do_sample": False, "pad_token_id": pad, **options}
        with evaluating(self.module):
            out = self.module.generate(  # type: ignore[operator]
                input_ids=batch.tokens, attention_mask=batch.attended.long(), max_new_tokens=max_new_tokens, **settings
            )
        return self.tokenizer.batch_decode(out[:, batch.tokens.shape[1] :], skip_special_tokens=True)

    @torch.no_grad()
    def unembed(self, hidden: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch vocab"]:
        """Logit lens: final norm, output head, its logit scale and soft cap, applied to residual activations.

        Equals the model's logits at ``hook_resid_post`` of the last block.

        Raises:
            ModelError: If the output head is more than a norm and a matrix, so that no lens can read it.
        """
        self.lens_scale()
        if self.lm.final_norm is not None:
            hidden = self.submodule(self.lm.final_norm)(hidden)
        return self.finish_logits(self.submodule(self.lm.unembed)(hidden))

    def lens_scale(self) -> float:
        """Factor between the output head's matrix and the logits, usually 1.

        Raises:
            ModelError: If the output head is more than a norm and a matrix, so that no lens can read it.
        """
        if self.lm.logit_scale is None:
            raise ModelError(
                f"the output head of {self.name} is more than a norm and a matrix, so no lens can read it; use "
                "measurements that need no lens"
            )
        return self.lm.logit_scale

    def finish_logits(self, raw: Float[Tensor, "*batch vocab"]) -> Float[Tensor, "*batch vocab"]:
        """Logits from what the output head's matrix gives: its scale and the config's soft cap."""
        return finish_logits(raw, self.lens_scale(), soft_cap(self.module))

    # -- adapters over the same parameters -------------------------------------------------------------------

    @property
    def bridge(self) -> Any:
        """TransformerLens `TransformerBridge` over the same parameters (attention patterns, q/k/v, scores).

        The bridge lives in a second tree of modules that holds this model's own parameters, so weights are neither
        copied nor folded, what is trained here is seen there, and this module stays as it is. Only where
        TransformerLens must split a joint query–key–value matrix (GPT-NeoX) does it keep copies; then a new bridge is
        made after the weights changed, without the hooks that were on the old one.
        """
        from interp_unlearn.hooked._adapters import current_bridge

        self._bridge = current_bridge(self, self._bridge)
        return self._bridge.bridge

    @property
    def nnsight(self) -> Any:
        """`nnsight` model over the same parameters, for tracing; its module paths are the module's own."""
        from interp_unlearn.hooked._adapters import make_nnsight

        identity = tuple(id(p) for p in self.module.parameters())
        if self._nnsight is None or self._nnsight[0] != identity:
            self._nnsight = (identity, make_nnsight(self))
        return self._nnsight[1]

    def shapes(self, inputs: Any) -> dict[str, tuple[int, ...]]:
        """Sites by module path in order of execution, with their shapes, from one pass over ``inputs``."""
        from interp_unlearn.hooked._shapes import shapes

        return shapes(self, inputs)

    def parity(self, inputs: Any) -> ParityReport:
        """Compare logits of the bare module with logits while every site is hooked (expected: bit-identical)."""
        from interp_unlearn.hooked._parity import parity

        return parity(self, inputs)
