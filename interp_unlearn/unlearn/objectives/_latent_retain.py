"""The retain terms of the SAE-guided objective: activations that stay (L_act) and outputs that stay (L_out)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from interp_unlearn.hooked import HookedModel, answer_logits
from interp_unlearn.unlearn._prefix import Prefix
from interp_unlearn.unlearn._protocols import Item
from interp_unlearn.unlearn.objectives._answers import QA, encode, kl, questions
from interp_unlearn.unlearn.objectives._reads import Read, encode_texts, padded, reference_hidden
from interp_unlearn.unlearn.objectives._spaces import Space
from interp_unlearn.worlds._types import Task

MASSIVE = 5.0  # times the median norm; one such position in a thousand would otherwise drown all others
OUTPUT_ITEMS = 200  # reference logits take d_vocab floats per answer token


class LatentRetain:
    """``mean ||z - z_0||^2 / mean ||z_0||^2`` over drawn reads, averaged over spaces.

    Positions with a massive activation (norm above 5 × the median) are left out of the normaliser and measured relative
    to their own norm.

    Args:
        prefix: The model with its frozen start.
        spaces: Where the loss is measured.
        measure: In the spaces' latents, or in the residual stream at their sites.
        everywhere: At all tokens but the first; otherwise at the read's slots (text has none and always uses all).
    """

    def __init__(
        self, prefix: Prefix, spaces: Sequence[Space], measure: Literal["latents", "residual"], everywhere: bool
    ) -> None:
        self.prefix = prefix
        self.model = prefix.model
        by_site = {space.site: space for space in spaces}
        self.spaces = list(by_site.values()) if measure == "residual" else list(spaces)
        self.measure = measure
        self.everywhere = everywhere
        self.reads: list[Read] = []
        self.items: list[Item] = []
        self.references: list[list[Tensor]] = []
        self.starts: list[Tensor] = []
        self.columns: list[list[int]] = []
        self.units: list[list[Tensor]] = []

    def _codes(self, space: Space, h: Float[Tensor, "n d"]) -> Float[Tensor, "n m"]:
        return h if self.measure == "residual" else space.codes(h)

    def add(self, read: Read, values: Mapping[str, Tensor], kind: str) -> None:
        """Take a read with its original activations (all positions)."""
        if self.everywhere or read.column < 0:
            columns = padded(self.model, [read]).mask("inner")[0].nonzero()[:, 0].tolist()
        else:
            columns = [column for _, column in read.slots()]
        if not columns:
            return
        self.reads.append(read)
        self.items.append(Item(read.entity, kind=kind))
        self.columns.append(columns)
        if self.prefix.site:
            self.starts.append(values[self.prefix.site])
        self.references.append([self._codes(s, values[s.site][columns]).detach() for s in self.spaces])

    def read(self, reads: Sequence[Read], kind: str) -> None:
        """Run reads with the original weights and take them."""
        sites = [*(s.site for s in self.spaces), *([self.prefix.site] if self.prefix.site else [])]
        for read, values in zip(reads, reference_hidden(self.model, reads, sites), strict=True):
            self.add(read, values, kind)

    def read_texts(self, texts: Sequence[str], windows: int, tokens: int) -> None:
        """Take the first tokens of up to ``windows`` texts."""
        self.read(encode_texts(self.model, texts[:windows], tokens), "text")

    def finish(self) -> None:
        """Fix each position's unit: the mean squared norm, or its own where it is massive."""
        for s in range(len(self.spaces)):
            squares = [reference[s].square().sum(-1) for reference in self.references]
            flat = torch.cat(squares)
            ordinary = flat <= MASSIVE**2 * flat.median()
            mean = flat[ordinary].mean().clamp(min=1e-12)
            self.units.append([torch.where(x <= MASSIVE**2 * flat.median(), mean, x) for x in squares])

    def loss(self, indices: Sequence[int]) -> Float[Tensor, ""]:
        """L_act over the drawn reads, each position with the same weight."""
        reads = [self.reads[i] for i in indices]
        starts = [self.starts[i] for i in indices] if self.starts else []
        values = self.prefix.hidden(padded(self.model, reads), [s.site for s in self.spaces], starts)
        places = [(row, column) for row, i in enumerate(indices) for column in self.columns[i]]
        rows, columns = torch.tensor(places, device=self.model.device).T
        total = []
        for s, space in enumerate(self.spaces):
            now = self._codes(space, values[space.site][rows, columns])
            before = torch.cat([self.references[i][s] for i in indices])
            unit = torch.cat([self.units[s][i] for i in indices])
            total.append(((now - before).square().sum(-1) / unit).mean())
        return torch.stack(total).mean()


class OutputRetain:
    """``KL(p_0 || p)`` at the answer tokens of retain questions, reference log-probabilities cached.

    At most `OUTPUT_ITEMS` questions, spread evenly over the retain set.
    """

    def __init__(self, model: HookedModel, task: Task) -> None:
        self.model = model
        found = questions(task.retain_train.prompts)
        stride = max(1, -(-len(found) // OUTPUT_ITEMS))
        self.questions: list[QA] = found[::stride]
        self.items = tuple(Item(q.item.entity, q.item.relation, "output") for q in self.questions)
        self.references = [self._log_probs([q]).detach() for q in self.questions]

    def _log_probs(self, items: Sequence[QA]) -> Float[Tensor, "n vocab"]:
        return answer_logits(self.model, encode(self.model, items)).log_softmax(-1)

    def loss(self, indices: Sequence[int]) -> Float[Tensor, ""]:
        """Mean divergence per answer token, in nats."""
        now = self._log_probs([self.questions[i] for i in indices])
        before = torch.cat([self.references[i] for i in indices])
        return kl(before, now)
