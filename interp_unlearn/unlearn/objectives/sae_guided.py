"""SAE-guided representation unlearning: move the target's latents to where unknown entities' latents are.

*Reconstruction.* Of the paper (Yamashita et al., arXiv 2509.15631) only the idea is public: train with an objective
in the latent space of a frozen SAE, so that the target's activation at the last token of its name cannot be told from
those of entities that the model does not know. The formulas below follow that idea; they are not the paper's, and
neither are its numbers.

With z the latents at a read position, K and U known and unknown reference entities in the same templates, means mu_K
and mu_U from the original weights, D a distance and s = D(mu_U, mu_K)::

    toward = D(z, goal) / s          away = max(0, 1 - D(z, mu_K) / s)
    R-A:  L_forget = toward + lambda away                        goal: mu_U, or the latents of one real unknown entity
    R-0:  L_forget = (D(z, goal) - lambda D(z, mu_K)) / s
    R-3:  L_forget = mean_{j in S_K} z_j / c_j + gamma mean_{j in S_U} relu(v_j - a_j)^2 / v_j^2
    R-4:  R-A with the residual stream in place of z (``basis = "residual"``)

    L = L_forget + alpha L_act + beta L_out
    L_act = mean ||z - z_0||^2 / mean ||z_0||^2 over retain reads      L_out = KL(p_0 || p) at retain answers

The forward pass ends at the SAE's site; only L_out (beta > 0) runs the whole model, on retain answers. Dictionary and
references are frozen; the only thing that moves is the trained part of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from interp_unlearn._core import DataError
from interp_unlearn.unlearn._fields import require
from interp_unlearn.unlearn._prefix import Prefix
from interp_unlearn.unlearn._protocols import OBJECTIVES, Context, Draw, Item, Objective, Part, Pools
from interp_unlearn.unlearn.objectives._distances import Distance, attract, literal, mmd, push
from interp_unlearn.unlearn.objectives._forget_targets import ForgetTargets, make_targets
from interp_unlearn.unlearn.objectives._latent_retain import LatentRetain, OutputRetain
from interp_unlearn.unlearn.objectives._reads import (
    Read,
    encode_reads,
    padded,
    reads_of,
    reference_hidden,
    shared_templates,
    with_after,
    without_first_token,
)
from interp_unlearn.unlearn.objectives._spaces import Basis, Space, check_sae, make_spaces, sites_of


@dataclass(frozen=True)
class SAEGuidedOptions:
    """Switches of the reconstruction.

    Attributes:
        loss: ``attract`` (R-A), ``push`` (R-3) or ``literal`` (R-0).
        basis: ``sae``, or its controls: the residual stream (R-4), a random dictionary or principal components.
        layers: Layers to read; empty means those of the SAEs given.
        residual_layers: Further layers whose residual stream takes part in the same loss, beside the basis.
        latents: Which coordinates D sees: all, or the union of the k best known and unknown latents (R-3 always
            selects).
        k: Latents a side when selecting.
        distance: Squared L2, cosine (with a norm term) or L1.
        target: Goal of R-A: ``mean`` (mu_U), ``sampled`` (each prompt has one fixed unknown entity in the same
            template) or ``mmd`` (two-sample loss against all unknown entities).
        pairing: For ``sampled``: one unknown entity per target entity in all templates, or another one in each prompt.
        per_template: mu_K, mu_U and s per template; otherwise pooled over templates.
        positions: Read the last token of the name only, or the tokens after it too.
        gradient: ``exact``, or ``straight_through`` so that latents that are off can be switched on.
        lambda_: Weight of ``away``.
        gamma: Weight of the unknown latents in R-3.
        alpha: Weight of L_act.
        beta: Weight of L_out.
        retain_space: Where L_act is measured: in the latents, or in the residual stream at the same sites.
        retain_positions: L_act at the name's last token, or at all tokens but the first. Text always uses all.
        text_windows: Windows of general text among the retain reads.
        text_tokens: Tokens per window.
        references: At most so many known and so many unknown entities as references.
    """

    loss: Literal["attract", "push", "literal"] = "attract"
    basis: Basis = "sae"
    layers: tuple[int, ...] = ()
    residual_layers: tuple[int, ...] = ()
    latents: Literal["all", "selected"] = "all"
    k: int = 10
    distance: Distance = "l2"
    target: Literal["mean", "sampled", "mmd"] = "mean"
    pairing: Literal["entity", "prompt"] = "prompt"
    per_template: bool = True
    positions: Literal["name", "name_and_after"] = "name"
    gradient: Literal["exact", "straight_through"] = "exact"
    lambda_: float = 0.5
    gamma: float = 1.0
    alpha: float = 1.0
    beta: float = 0.0
    retain_space: Literal["latents", "residual"] = "latents"
    retain_positions: Literal["name", "all"] = "name"
    text_windows: int = 0
    text_tokens: int = 32
    references: int = 40

    def __post_init__(self) -> None:
        for name in ("lambda_", "gamma", "alpha", "beta"):
            require(getattr(self, name) >= 0, f"options.{name} is {getattr(self, name)}; use 0 or a positive weight")
        require(self.k >= 1, f"options.k is {self.k}; use at least 1 latent a side")
        require(self.references >= 2, f"options.references is {self.references}; use at least 2 entities a side")
        require(self.text_windows >= 0, f"options.text_windows is {self.text_windows}; use 0 or a number of windows")
        require(self.text_tokens >= 2, f"options.text_tokens is {self.text_tokens}; use at least 2")
        for name in ("layers", "residual_layers"):
            layers = getattr(self, name)
            require(min((*layers, 0)) >= 0, f"options.{name} is {list(layers)}; layers count from 0")
        require(
            self.loss != "push" or not self.residual_layers,
            "options.loss = 'push' needs latents that fire, which the residual stream does not have; "
            "leave residual_layers empty",
        )
        require(
            self.loss != "literal" or self.target != "mmd",
            "options.loss = 'literal' is a difference of distances and has no 'mmd' version; use target = 'mean' or "
            "'sampled'",
        )
        require(
            not (self.loss == "push" and self.basis in ("residual", "pca")),
            f"options.loss = 'push' selects latents by how often they fire, which basis {self.basis!r} does not "
            "have; use 'attract'",
        )
        require(
            not (self.latents == "selected" and self.basis in ("residual", "pca")),
            f"options.latents = 'selected' goes by how often latents fire, which basis {self.basis!r} does not have; "
            "use 'all'",
        )


@OBJECTIVES.register("sae_guided")
class SAEGuided(Objective):
    """The SAE-guided objective and its controls."""

    Options = SAEGuidedOptions
    modalities = ("language",)
    options: SAEGuidedOptions

    @property
    def uses_retain(self) -> bool:
        """Only with a positive retain weight."""
        return self.options.alpha > 0 or self.options.beta > 0

    # -- references --------------------------------------------------------------------------------------------------

    def prepare(self, ctx: Context) -> Pools:
        """Read target, known and unknown entities with the original weights and fix every reference."""
        options, task, model = self.options, ctx.task, ctx.model
        self.model = model
        for sae in ctx.saes.values():
            check_sae(model, sae)
        basis_sites = sites_of(model, options.basis, options.layers, ctx.saes)
        residual_sites = sites_of(model, "residual", options.residual_layers, {}) if options.residual_layers else []
        self.sites = list(dict.fromkeys([*basis_sites, *residual_sites]))
        templates = shared_templates(task)
        known, unknown = task.known_ref[: options.references], task.unknown_ref[: options.references]
        if not templates or not task.target_entities:
            return Pools(())
        if len(known) < 2 or len(unknown) < 2:
            raise DataError(
                "objective 'sae_guided' needs at least 2 known and 2 unknown reference entities of type "
                f"{task.type!r}; the task has "
                f"{len(known)} and {len(unknown)}"
            )
        groups = [reads_of(model, entities, templates) for entities in (task.target_entities, known, unknown)]
        groups = without_first_token(groups)
        if options.positions == "name_and_after":
            groups = with_after(groups)
        self.target_reads, known_reads, unknown_reads = groups
        self.prefix = Prefix(model, ctx.trained, self.sites)
        self.prefix.learn(padded(model, self.target_reads[:1]))
        wanted = [*self.sites, *([self.prefix.site] if self.prefix.site else [])]
        references = reference_hidden(model, [*known_reads, *unknown_reads], wanted)
        before = reference_hidden(model, self.target_reads, wanted) if self.prefix.site else []
        self.target_starts = [values[self.prefix.site] for values in before if self.prefix.site]
        values = {site: torch.cat([r[site][1:] for r in references]) for site in self.sites}
        straight = options.gradient == "straight_through"
        self.spaces = [
            *make_spaces(basis_sites, options.basis, ctx.saes, values, seed=ctx.seed, straight_through=straight),
            *make_spaces(residual_sites, "residual", {}, values, seed=ctx.seed, straight_through=False),
        ]
        split = len(known_reads)
        self.targets: list[ForgetTargets] = [
            make_targets(
                space,
                options,
                ctx.seed,
                self.target_reads,
                (known_reads, references[:split]),
                (unknown_reads, references[split:]),
            )
            for space in self.spaces
        ]
        return Pools(
            tuple(Item(r.entity, kind="target") for r in self.target_reads),
            self._prepare_retain(ctx, [*known_reads, *unknown_reads], references, len(known_reads)),
        )

    def _prepare_retain(
        self, ctx: Context, reads: Sequence[Read], references: Sequence[dict[str, Tensor]], n_known: int
    ) -> tuple[Item, ...]:
        """Retain reads for L_act (references are reused), then retain answers for L_out; labels of both."""
        options, task = self.options, ctx.task
        self.act = LatentRetain(self.prefix, self.spaces, options.retain_space, options.retain_positions == "all")
        if options.alpha:
            for i, (read, values) in enumerate(zip(reads, references, strict=True)):
                self.act.add(read, values, "known" if i < n_known else "unknown")
            seen = {(r.entity, r.template) for r in reads}
            asked = [p for p in task.retain_train.prompts if (p.entity, p.template) not in seen]
            self.act.read(encode_reads(self.model, asked), "question")
            self.act.read_texts(task.text_train, options.text_windows, options.text_tokens)
            self.act.finish()
        self.out = OutputRetain(self.model, task) if options.beta else None
        return (*self.act.items, *(self.out.items if self.out else ()))

    def stop_levels(self) -> dict[str, float]:
        """``toward`` of held-out unknown entities: going below is over-fitting to the reference."""
        if self.options.loss != "attract":
            return {}
        return {"toward": sum(t.floor for t in self.targets) / len(self.targets)}

    # -- loss --------------------------------------------------------------------------------------------------------

    def parts(self, draw: Draw) -> Iterator[Part]:
        """L_forget up to the last site; then L_act likewise; then L_out through the whole model."""
        yield self._forget(draw.forget)
        n = len(self.act.items)
        inside, outside = [i for i in draw.retain if i < n], [i - n for i in draw.retain if i >= n]
        if self.options.alpha and inside:
            loss = self.act.loss(inside)
            yield Part("retain", self.options.alpha * loss, {"act": float(loss.detach())})
        if self.out is not None and outside:
            loss = self.out.loss(outside)
            yield Part("retain", self.options.beta * loss, {"out": float(loss.detach())})

    def _forget(self, indices: Sequence[int]) -> Part:
        reads = [self.target_reads[i] for i in indices]
        batch = padded(self.model, reads)
        starts = [self.target_starts[i] for i in indices] if self.target_starts else []
        values = self.prefix.hidden(batch, self.sites, starts)
        places = [(row, column) for row, read in enumerate(reads) for _, column in read.slots()]
        rows, columns = torch.tensor(places, device=batch.tokens.device).T
        total, terms = [], {}
        for space, targets in zip(self.spaces, self.targets, strict=True):
            h = values[space.site][rows, columns]
            loss, found = self._space_loss(space, targets, targets.slots_of(indices), h)
            total.append(loss)
            for name, value in found.items():
                terms[name] = terms.get(name, 0.0) + float(value.detach()) / len(self.spaces)
        return Part("forget", torch.stack(total).mean(), terms)

    def _space_loss(
        self, space: Space, targets: ForgetTargets, slots: list[int], h: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        options = self.options
        if options.loss == "push":
            z, a = space.codes(h), space.pre(h)
            down, up = push(z[:, targets.s_known], a[:, targets.s_unknown], targets.level_known, targets.level_unknown)
            return down + options.gamma * up, {"known_latents": down, "unknown_latents": up}
        z = targets.project(space.codes(h))
        known, unit = targets.known[slots], targets.unit[slots]
        if options.target == "mmd":
            toward = mmd(z, targets.members_at(slots), targets.bandwidth) / targets.mmd_unit
            _, away = attract(z, known, known, unit, options.distance)
            return toward + options.lambda_ * away, {"toward": toward, "away": away}
        goal = targets.goal[slots]
        if options.loss == "literal":
            loss = literal(z, goal, known, unit, options.lambda_, options.distance)
            return loss, {"difference": loss}
        toward, away = attract(z, goal, known, unit, options.distance)
        return toward + options.lambda_ * away, {"toward": toward, "away": away}
