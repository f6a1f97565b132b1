"""Pictures of tables that only runs on images save; nothing is shown where there are none."""

from __future__ import annotations

import math

from interp_unlearn._core import Labelled
from interp_unlearn.report import plots
from interp_unlearn.report._compare import Comparison
from interp_unlearn.report._slices import Pictures

IMAGE_TABLES = ("bias.", "class_probe.", "bias_probe.", "maps.", "cupid.partition")


def groups_of_images(comparison: Comparison) -> Pictures:
    """Aligned and conflicting images of the forgotten class apart."""
    tables = comparison.by_model("bias")
    splits = ("test", "train") if tables else ()
    figures = tuple(plots.group_bars(tables, split, methods=comparison.methods) for split in splits)
    text = (
        "Aligned images show the class in its usual setting, conflicting ones in another. A method that removes only "
        "the setting's cue lowers the first and not the second."
    )
    return Pictures("In the usual setting and out of it", text, figures, "")


def probes_of_images(comparison: Comparison) -> Pictures:
    """Class and setting at every block."""
    asked = (
        (
            "class_probe",
            "The forgotten class, read by a linear probe",
            "Forgotten: as low as gold, which is not chance.",
        ),
        (
            "bias_probe",
            "The setting, read by a linear probe",
            "Unharmed: as in the original. A fall is the shortcut's.",
        ),
    )
    found = [(comparison.by_model(stem), title, wanted) for stem, title, wanted in asked]
    figures = tuple(
        plots.probe_curves(tables, title, wanted, methods=comparison.methods)
        for tables, title, wanted in found
        if tables
    )
    return Pictures("Class and setting by block", "Probes are trained anew on each model.", figures, "")


def maps_of_images(comparison: Comparison) -> Pictures:
    """The images with a map of each model."""
    maps = comparison.by_model("maps")
    pictures = next(
        (run.tables["maps.pictures"] for run in comparison.runs.values() if "maps.pictures" in run.tables), None
    )
    if pictures is None or not maps:
        return Pictures("Maps", "", (), "")
    text = "Grad-CAM maps of a few evaluation images for the forgotten class: first-order pictures, not causes."
    return Pictures("Where the class is seen", text, (plots.picture_grid(pictures, maps),), "", "one")


def partition_sentence(table: Labelled) -> str:
    """What a table ``cupid.partition`` says of its ranking, in words."""
    checks = ((words, table.config.get(key)) for key, words in plots.CHECKS.items())
    said = [
        f"{words} {value:.2f}" if isinstance(value, float) and math.isfinite(value) else f"{words} not defined"
        for words, value in checks
    ]
    return f"sharpness over {table.n} images: {', '.join(said)}"


def partition_of_images(comparison: Comparison) -> Pictures:
    """Whether CUPID's sharpness says more than the loss."""
    tables = comparison.per_method("cupid.partition")
    said = "; ".join(f"{method}: {partition_sentence(table)}" for method, table in tables.items())
    text = f"CUPID's causal set are the images with the largest sharpness. {said}."
    figures = (plots.partition_bars(tables, methods=comparison.methods),) if tables else ()
    return Pictures("CUPID's partition", text, figures, "")
