"""`LatentClamp`: set chosen SAE latents to fixed values while a model runs, at once or behind a gate.

With z the latents of a token, J the chosen ones and h the activation at the SAE's site::

    h' = dec(z') + (h - dec(z)) = h + (z' - z)_J W_dec[J]        the SAE's own error stays in place

``each`` changes the chosen latents that fire (Farrell et al., arXiv 2410.19278); ``all`` changes all of them at tokens
where any fires (DSG, arXiv 2504.08192). With a gate a sequence is edited only if the share of its tokens at which any
chosen latent fires exceeds it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from interp_unlearn._core import ConfigError
from interp_unlearn.hooked import INTERVENTIONS, Edit, HookedModel, Intervention, PassView, edit, whole_sequences
from interp_unlearn.latents._sae import SAE

WEIGHTS = ("W_enc", "b_enc", "W_dec", "b_dec", "threshold")
SETTINGS = ("kind", "site", "k", "input_scale", "apply_b_dec_to_input", "name")
Where = Literal["each", "all"]


def firing_share(fires: Bool[Tensor, "batch pos n"], counted: Bool[Tensor, "batch pos"]) -> Float[Tensor, " batch"]:
    """rho: share of each row's counted tokens at which any latent fires (0 without counted tokens)."""
    hits = (fires.any(-1) & counted).sum(1)
    return hits / counted.sum(1).clamp(min=1)


def clamped(
    sae: SAE,
    h: Float[Tensor, "batch pos d"],
    latents: Int[Tensor, " n"],
    values: Float[Tensor, " n"],
    counted: Bool[Tensor, "batch pos"],
    *,
    where: Where = "each",
    gate: float | None = None,
) -> Float[Tensor, "batch pos d"]:
    """Activations with the chosen latents set to ``values`` where they fire; all others exactly as they were.

    Args:
        sae: Gives latents and decoder directions.
        h: Activations at its site.
        latents: Chosen latents.
        values: What each is set to, in the units of z.
        counted: Tokens that may be changed, and that the gate counts.
        where: See the module's docstring.
        gate: Rows whose `firing_share` is not above this are left alone; None edits every row.
    """
    z = sae.encode(h)[..., latents]
    fires = z > 0
    on = fires & counted[..., None]
    if where == "all":
        on = on.any(-1, keepdim=True).expand_as(fires)
    if gate is not None:
        on = on & (firing_share(fires, counted) > gate)[:, None, None]
    change = torch.where(on, values - z, 0.0) @ sae.W_dec[latents] / sae.input_scale
    return torch.where(on.any(-1, keepdim=True), h + change.to(h.dtype), h)


@dataclass(frozen=True, eq=False)
class LatentClamp(Intervention):
    """Clamped latents of one SAE.

    Attributes:
        sae: The SAE; it is saved with the intervention.
        latents: Chosen latents, (n,).
        values: What each is set to, (n,).
        where: Change the chosen latents that fire (``each``), or all of them where any fires (``all``).
        gate: Least firing share of a sequence, exclusive; None edits every sequence.
        skip_first: Leave the first token of each sequence alone, whose activation is massive in most models.
    """

    kind: ClassVar[str] = "latent_clamp"

    sae: SAE
    latents: Int[Tensor, " n"]
    values: Float[Tensor, " n"]
    where: Where = "each"
    gate: float | None = None
    skip_first: bool = True

    def __post_init__(self) -> None:
        if self.latents.numel() == 0 or self.latents.shape != self.values.shape:
            raise ConfigError("a latent clamp needs at least one latent, and one value for each")
        if int(self.latents.min()) < 0 or int(self.latents.max()) >= self.sae.d_sae:
            raise ConfigError(f"a latent clamp names latents outside 0…{self.sae.d_sae - 1}")

    def counted(self, view: PassView, special: Int[Tensor, " s"]) -> Bool[Tensor, "batch pos"]:
        """Tokens that may be changed: no padding, no special token and, by default, not the first token."""
        counted = view.attended & (view.nth > 0) if self.skip_first else view.attended
        return counted if view.tokens is None else counted & ~torch.isin(view.tokens, special.to(view.tokens.device))

    @contextmanager
    def applied(self, model: HookedModel) -> Iterator[HookedModel]:
        """Clamp in every forward pass; behind a gate, key–value caches are off.

        Raises:
            ConfigError, SiteError: If the SAE does not fit the model.
        """
        self.sae.check_fits(model)
        ids = model.tokenizer.all_special_ids if model.tokenizer is not None else []
        special = torch.tensor(list(ids), dtype=torch.long)

        def change(h: Tensor, view: PassView) -> Tensor:
            sae = self.sae.to(h.device)
            latents, values = self.latents.to(h.device), self.values.to(h.device)
            return clamped(sae, h, latents, values, self.counted(view, special), where=self.where, gate=self.gate)

        whole = nullcontext() if self.gate is None else whole_sequences(model)
        with whole, edit(model, Edit(self.sae.site, change, "latent clamp", sees_tokens=True)):
            yield model

    def facts(self) -> dict[str, Any]:
        """SAE settings and how the clamp works."""
        sae = {name: getattr(self.sae, name) for name in SETTINGS}
        return {"sae": sae, "where": self.where, "gate": self.gate, "skip_first": self.skip_first}

    def tensors(self) -> dict[str, Tensor]:
        """Chosen latents, their values, and the SAE's weights."""
        weights = {f"sae.{n}": getattr(self.sae, n) for n in WEIGHTS if getattr(self.sae, n) is not None}
        return {"latents": self.latents, "values": self.values, **weights}

    @classmethod
    def from_parts(cls, facts: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> LatentClamp:
        """Rebuild SAE and clamp, bit for bit."""
        weights = {n: tensors[f"sae.{n}"] for n in WEIGHTS[:4]}
        sae = SAE(**weights, **facts["sae"], threshold=tensors.get("sae.threshold"))
        return cls(sae, tensors["latents"], tensors["values"], facts["where"], facts["gate"], facts["skip_first"])


INTERVENTIONS.register(LatentClamp.kind)(LatentClamp)
