"""Train an SAE through sae-lens' own training classes, resumable after a kill, from any set of activations."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from interp_unlearn._core import (
    ConfigError,
    DataError,
    TrainingDivergedError,
    append_jsonl,
    config_hash,
    generator,
    optional_import,
    read_json,
    read_tensors,
    write_json,
    write_tensors,
)
from interp_unlearn.latents._format import WEIGHTS, read_sae, save_sae
from interp_unlearn.latents._sae import SAE
from interp_unlearn.latents._sparse_topk import sparse_topk_sae
from interp_unlearn.latents._train_config import SAETrainConfig

STATE = "checkpoint.safetensors"
FACTS = "checkpoint.json"
LOG = "train.jsonl"


@runtime_checkable
class ActivationSource(Protocol):
    """Rows of activations that can be walked through in a seeded order; `hooked.ActivationStore` is one."""

    def __len__(self) -> int:
        """Number of rows."""
        ...

    def iter_batches(
        self, size: int, *, seed: int | None = None, start: int = 0, drop_last: bool = False
    ) -> Iterator[Tensor]:
        """Batches (n, d) of ``size`` rows, each row once, in an order that depends on ``seed`` only.

        Args:
            size: Rows per batch.
            seed: Of the order; None keeps the stored one.
            start: Leave out so many batches at the beginning.
            drop_last: Leave out a shorter last batch.
        """
        ...


class TensorSource:
    """Activations in memory, (n, d); half precision is enough."""

    def __init__(self, rows: Float[Tensor, "n d"]) -> None:
        if rows.shape[0] == 0:
            raise DataError("there are no activations to train on")
        self.rows = rows

    def __len__(self) -> int:
        return self.rows.shape[0]

    def iter_batches(
        self, size: int, *, seed: int | None = None, start: int = 0, drop_last: bool = False
    ) -> Iterator[Tensor]:
        """See `ActivationSource`."""
        n = len(self)
        order = torch.arange(n) if seed is None else torch.randperm(n, generator=generator(seed, "activation order"))
        for begin in range(start * size, n - (size - 1) * drop_last, size):
            yield self.rows[order[begin : begin + size]].float()


def _stream(source: ActivationSource, config: SAETrainConfig, skip: int, limit: float) -> Iterator[Tensor]:
    """Full batches without massive rows, pass after pass, from number ``skip`` on; the seed alone decides the order."""
    size = config.batch_size
    per_pass = len(source) // size
    if not per_pass:
        raise DataError(f"{len(source)} activations are fewer than a batch of {size}; lower batch_size or collect more")
    epoch, start = divmod(skip, per_pass)
    while True:
        for batch in source.iter_batches(size, seed=_pass_seed(config, epoch), start=start, drop_last=True):
            rows = _finite(batch.float())
            yield rows[rows.norm(dim=1) <= limit] if limit else rows
        epoch, start = epoch + 1, 0


def _pass_seed(config: SAETrainConfig, epoch: int) -> int:
    return config.seed * 1_000_003 + epoch


def _finite(rows: Tensor) -> Tensor:
    if not bool(torch.isfinite(rows).all()):
        raise DataError("the activations hold NaN or infinity; collect them again in float32 before training")
    return rows


def _sample(source: ActivationSource, config: SAETrainConfig) -> Float[Tensor, "n d"]:
    """Rows for initialisation: enough to give every latent its own."""
    parts: list[Tensor] = []
    for batch in source.iter_batches(config.batch_size, seed=_pass_seed(config, 0)):
        parts.append(_finite(batch.float()))
        if sum(len(p) for p in parts) >= max(4 * config.batch_size, 2 * config.d_sae):
            break
    if not parts:
        raise DataError("there are no activations to train on")
    return torch.cat(parts)


def _build(config: SAETrainConfig, d_in: int) -> Any:
    """An untrained sae-lens training SAE."""
    lens = optional_import("sae_lens", "sae", "training an SAE")
    common = {"d_in": d_in, "d_sae": config.d_sae}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if config.architecture == "jumprelu":
            return lens.JumpReLUTrainingSAE(
                lens.JumpReLUTrainingSAEConfig(
                    **common,
                    jumprelu_sparsity_loss_mode="quadratic",
                    target_l0=float(config.k),
                    l0_coefficient=config.l0_coefficient,
                    l0_warm_up_steps=config.steps // 4,
                    jumprelu_bandwidth=0.5,
                    jumprelu_init_threshold=0.5,
                    pre_act_loss_coefficient=3e-6,
                )
            )
        if config.architecture == "batchtopk":
            return lens.BatchTopKTrainingSAE(
                lens.BatchTopKTrainingSAEConfig(
                    **common, k=float(config.k), aux_loss_coefficient=config.aux_coefficient, decoder_init_norm=1.0
                )
            )
        top = lens.TopKTrainingSAEConfig(
            **common,
            k=config.k,
            aux_loss_coefficient=config.aux_coefficient,
            rescale_acts_by_decoder_norm=not config.sparse_step,
            decoder_init_norm=1.0,
        )
        return sparse_topk_sae(top, bf16=config.bf16) if config.sparse_step else lens.TopKTrainingSAE(top)


@torch.no_grad()
def _initialise(sae: Any, rows: Tensor, config: SAETrainConfig) -> None:
    """Unit decoder rows, partly from random activations; encoder half the transposed decoder; bias at the mean."""
    g = generator(config.seed, "sae init", config.d_sae)
    mean = rows.mean(0)
    noise = torch.randn(config.d_sae, rows.shape[1], generator=g)
    directions = (noise / noise.norm(dim=1, keepdim=True)) * (1 - config.data_init)
    picked = rows[torch.randint(len(rows), (config.d_sae,), generator=g)] - mean
    directions += config.data_init * picked / picked.norm(dim=1, keepdim=True).clamp_min(1e-8)
    directions /= directions.norm(dim=1, keepdim=True)
    sae.W_dec.data = directions.contiguous()
    sae.W_enc.data = (0.5 * directions.T).contiguous()
    sae.b_dec.data = mean.clone()


def _trainer(sae: Any, config: SAETrainConfig) -> Any:
    trainer_module = optional_import("sae_lens.training.sae_trainer", "sae", "training an SAE")
    lens_config = optional_import("sae_lens.config", "sae", "training an SAE")
    settings = lens_config.SAETrainerConfig(
        total_training_samples=config.samples,
        train_batch_size_samples=config.batch_size,
        lr=config.lr,
        lr_end=config.lr,
        dead_feature_window=config.dead_window,
        autocast=config.bf16 and not (config.architecture == "topk" and config.sparse_step),
        logger=lens_config.LoggingConfig(log_to_wandb=False),
    )
    return trainer_module.SAETrainer(settings, sae, iter(()))


def _state(trainer: Any, scale: float, limit: float) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Everything that later steps depend on."""
    tensors = {f"sae.{name}": value for name, value in trainer.sae.state_dict().items()}
    for index, parameter in enumerate(trainer.optimizer.param_groups[0]["params"]):
        for name, value in trainer.optimizer.state[parameter].items():
            tensors[f"adam.{index}.{name}"] = value
    tensors["act_freq_scores"] = trainer.act_freq_scores
    tensors["n_forward_passes_since_fired"] = trainer.n_forward_passes_since_fired
    facts = {
        "step": trainer.n_training_steps,
        "samples": trainer.n_training_samples,
        "n_frac_active_samples": trainer.n_frac_active_samples,
        "coefficients": {k: dict(v.state_dict()) for k, v in trainer.coefficient_schedulers.items()},
        "scale": scale,
        "limit": limit,
    }
    return tensors, facts


def _restore(trainer: Any, tensors: dict[str, Tensor], facts: dict[str, Any]) -> None:
    trainer.sae.load_state_dict({k.removeprefix("sae."): v for k, v in tensors.items() if k.startswith("sae.")})
    for index, parameter in enumerate(trainer.optimizer.param_groups[0]["params"]):
        prefix = f"adam.{index}."
        trainer.optimizer.state[parameter] = {
            k.removeprefix(prefix): v.clone() for k, v in tensors.items() if k.startswith(prefix)
        }
    trainer.act_freq_scores = tensors["act_freq_scores"].clone()
    trainer.n_forward_passes_since_fired = tensors["n_forward_passes_since_fired"].clone()
    trainer.n_training_steps = facts["step"]
    trainer.n_training_samples = facts["samples"]
    trainer.n_frac_active_samples = facts["n_frac_active_samples"]
    for name, state in facts["coefficients"].items():
        trainer.coefficient_schedulers[name].load_state_dict(state)


def train_sae(
    config: SAETrainConfig,
    out_dir: str | Path,
    *,
    data: ActivationSource | Float[Tensor, "n d"],
    progress: bool = True,
    stop_after: int | None = None,
) -> SAE:
    """Train an SAE and save it in SAELens format; a second call after a kill goes on from the last checkpoint.

    sae-lens' training SAE and `SAETrainer.step` do the work: loss, AuxK, gradient clipping at 1, Adam. Inputs are
    scaled to a mean norm of √d while training; the scale is folded into the saved weights, whose decoder rows have
    norm 1.

    Args:
        config: The recipe.
        out_dir: Gets ``cfg.json``, ``sae_weights.safetensors``, ``train.jsonl`` and, until done, a checkpoint.
        data: Activations in memory (n, d), or a source such as the on-disk store.
        progress: Show a progress bar.
        stop_after: End after so many steps as if killed, leaving the checkpoint (for tests and time limits).

    Returns:
        The trained SAE, as saved. With ``stop_after`` it is the SAE as it stands and is not saved.

    Raises:
        ConfigError: If ``out_dir`` holds a checkpoint of another recipe, or the activations come from another site.
        DataError: If there are too few activations, or they hold NaN.
        TrainingDivergedError: If the loss is no longer finite; the last checkpoint is kept.
    """
    out = Path(out_dir)
    key = config_hash(config.to_dict())
    if (out / WEIGHTS).exists() and (out / "recipe.json").exists():
        if read_json(out / "recipe.json")["key"] != key:
            raise ConfigError(f"{out} holds an SAE of another recipe; choose another folder or delete it")
        return read_sae(out)
    source = TensorSource(data) if isinstance(data, Tensor) else data
    site = getattr(source, "site", config.site)
    if site != config.site:
        raise ConfigError(
            f"the activations were read at {site!r}, but the recipe wants {config.site!r}; collect them there"
        )
    facts = read_json(out / FACTS) if (out / FACTS).exists() else None
    if facts is not None and facts["key"] != key:
        raise ConfigError(f"{out} holds a checkpoint of another recipe; choose another folder or delete it")
    if facts is None:
        rows = _sample(source, config)
        norms = rows.norm(dim=1)
        limit = config.massive_factor * float(norms.median())
        rows = rows[norms <= limit] if limit else rows
        scale = rows.shape[1] ** 0.5 / float(rows.norm(dim=1).mean())
        trainer = _trainer(_build(config, rows.shape[1]), config)
        _initialise(trainer.sae, rows * scale, config)
    else:
        tensors = read_tensors(out / facts["file"])
        scale, limit = facts["scale"], facts["limit"]
        trainer = _trainer(_build(config, tensors["sae.b_dec"].shape[0]), config)
        _restore(trainer, tensors, facts)
    _run(trainer, source, config, out, key, scale, limit, progress, stop_after)
    if trainer.n_training_steps < config.steps:
        return _finished(trainer, config, scale)
    save_sae(_finished(trainer, config, scale), out)
    write_json(out / "recipe.json", {"key": key, "recipe": config.to_dict()})
    _drop_checkpoints(out)
    return read_sae(out)


def _run(
    trainer: Any, source: ActivationSource, config: SAETrainConfig, out: Path, key: str, scale: float, limit: float,
    progress: bool, stop_after: int | None,
) -> None:  # fmt: skip
    last = config.steps if stop_after is None else min(config.steps, stop_after)
    stream = _stream(source, config, trainer.n_training_steps, limit)
    bar = tqdm(total=config.steps, initial=trainer.n_training_steps, desc="Training SAE", disable=not progress)
    while trainer.n_training_steps < last:
        for group in trainer.optimizer.param_groups:
            group["lr"] = config.lr_at(trainer.n_training_steps)
        trainer.maybe_reset_sparsity()
        output = trainer.step(next(stream) * scale)
        loss = float(output.loss.detach())
        if loss != loss or loss == float("inf"):
            raise TrainingDivergedError(
                f"the SAE's loss is {loss} at step {trainer.n_training_steps}; the last checkpoint in {out} is from "
                "before that; lower lr"
            )
        trainer.n_training_steps += 1
        bar.update()
        if trainer.n_training_steps % 50 == 0 or trainer.n_training_steps == last:
            record = _progress(trainer, output, loss)
            append_jsonl(out / LOG, record)
            bar.set_postfix(ev=f"{record['explained_variance']:.3f}", l0=f"{record['l0']:.0f}", dead=record["dead"])
        if trainer.n_training_steps % config.checkpoint_every == 0 and trainer.n_training_steps < config.steps:
            _checkpoint(trainer, out, key, scale, limit)
    bar.close()


def _checkpoint(trainer: Any, out: Path, key: str, scale: float, limit: float) -> None:
    """Tensors under a new name first, then the JSON that points to them: a kill leaves the old pair or the new one."""
    tensors, facts = _state(trainer, scale, limit)
    name = f"{facts['step']:08d}.{STATE}"
    write_tensors(out / name, tensors)
    write_json(out / FACTS, {"key": key, "file": name, **facts})
    for old in out.glob(f"*.{STATE}"):
        if old.name != name:
            old.unlink()


def _drop_checkpoints(out: Path) -> None:
    (out / FACTS).unlink(missing_ok=True)
    for old in out.glob(f"*.{STATE}"):
        old.unlink()


@torch.no_grad()
def _progress(trainer: Any, output: Any, loss: float) -> dict[str, Any]:
    """What the current batch says."""
    x = output.sae_in.float()
    error = (output.sae_out.float() - x).pow(2).sum()
    return {
        "step": trainer.n_training_steps,
        "samples": trainer.n_training_samples,
        "loss": loss,
        "explained_variance": float(1 - error / (x - x.mean(0)).pow(2).sum()),
        "l0": float((output.feature_acts != 0).float().sum(-1).mean()),
        "dead": int(trainer.dead_neurons.sum()),
        "lr": trainer.optimizer.param_groups[0]["lr"],
    }


@torch.no_grad()
def _finished(trainer: Any, config: SAETrainConfig, scale: float) -> SAE:
    """The inference SAE: decoder rows of norm 1, latents and biases in the units of raw activations."""
    sae = trainer.sae
    state = {name: value.detach().clone().float() for name, value in sae.state_dict().items()}
    norms = state["W_dec"].norm(dim=1).clamp_min(1e-8)
    # Where sae-lens ranks latents by pre-activation × decoder norm, folding the norm changes nothing; the sparse step
    # keeps norms at 1 up to the last Adam step; for JumpReLU the threshold is folded too.
    w_enc, b_enc = state["W_enc"] * norms, state["b_enc"] * norms
    threshold = None
    if config.architecture == "jumprelu":
        threshold = state["threshold"].clamp_min(0) * norms / scale
    elif config.architecture == "batchtopk":
        threshold = torch.full((config.d_sae,), float(sae.topk_threshold) / scale)
    if config.architecture == "topk" and config.sparse_step:
        w_enc, b_enc = state["W_enc"], state["b_enc"]
    return SAE(
        w_enc,
        b_enc / scale,
        state["W_dec"] / norms[:, None],
        state["b_dec"] / scale,
        kind=config.architecture,
        site=config.site,
        threshold=threshold,
        k=config.k if config.architecture == "topk" else None,
        name=config.model,
        metadata={
            "model_name": config.model,
            "hook_name": config.site,
            "context_size": config.context,
            "prepend_bos": False,
            "training_samples": trainer.n_training_samples,
            "recipe": config.to_dict(),
        },
    )
