"""The metrics' titles, and where the evaluation's page shows them; `templates/glossary.html.j2` says what they mean."""

from __future__ import annotations

_TITLES = {
    "prompt": "prompt alignment",
    "clip_t": "CLIP-T",
    "detected": "faces found",
    "identity_select": "identity, recogniser select",
    "identity_loss": "identity, the loss's recogniser",
    "identity_detected": "identity where found",
    "identity_other": "identity to other photos",
    "diversity_faces": "diversity of faces",
    "layout": "layout kept",
}
HEADLINE = ("identity", "prompt", "clip_t", "detected")
SECTIONS = {  # those below the headline
    "Was the loss’s recogniser fooled?": ("identity", "identity_select", "identity_loss", "identity_detected"),
    "Is the photo copied, are pictures diverse?": ("identity_other", "copied", "leak", "diversity", "diversity_faces"),
    "Style, scene and layout": ("style_right", "scene_right", "layout"),
}
SCALE = {
    "same_person": "identity of another photo of the same person",
    "stranger": "identity of somebody else’s photo",
    "base_diversity": "diversity of the base model’s own pictures",
    "layout_chance": "layout kept between two of the base model’s pictures of one prompt from different noise",
}


def title(metric: str) -> str:
    """What a table calls a metric."""
    return _TITLES.get(metric, metric.replace("_", " "))
