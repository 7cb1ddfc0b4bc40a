"""What each metric is called, what it means, and the sections of the evaluation's page that show them."""

from __future__ import annotations

TITLES = {
    "identity": "identity",
    "prompt": "prompt alignment",
    "clip_t": "CLIP-T",
    "detected": "faces found",
    "style_right": "style right",
    "scene_right": "scene right",
    "identity_select": "identity by select",
    "identity_loss": "identity by the loss's",
    "identity_detected": "identity where found",
    "identity_other": "identity to other photos",
    "copied": "copied",
    "leak": "leak",
    "diversity": "diversity",
    "diversity_faces": "diversity of faces",
    "layout": "layout kept",
}
MEANINGS = {
    "identity": "Cosine between the face drawn and the reference photo, by recogniser report, which no training and no "
    "selection uses. A picture without a face counts 0.",
    "prompt": "Share of pictures in which everything that the prompt asks for is right, by CLIP.",
    "clip_t": "CLIP's cosine between the picture and its prompt.",
    "detected": "Share of pictures in which a face is found.",
    "style_right": "Share of pictures whose style is top-1 among all styles, by CLIP.",
    "scene_right": "Share of pictures whose scene is top-1 among all scenes, by CLIP.",
    "identity_select": "Identity by recogniser select, which chose the training pictures but is in no loss.",
    "identity_loss": "Identity by the recogniser inside the loss. If it rose far more than identity does, training "
    "would have learnt to please this recogniser (Goodhart's law) and not to draw the person.",
    "identity_detected": "Identity over the pictures in which a face is found; people without any are left out.",
    "identity_other": "Cosine to the person's other photos. Where it falls while identity rises, the photo is copied.",
    "copied": "Identity minus identity to other photos. 0 would be the person; above it, the photo is copied.",
    "leak": "How much more a picture has the reference's colours than those of the person's other photos; above 0, "
    "clothes and background come along.",
    "diversity": "Mean distance (1 − cosine of CLIP's image embeddings) between pictures of one person and prompt from "
    "different noise. Lower: every seed gives nearly the same picture.",
    "diversity_faces": "The same distance between the faces, by recogniser report, where they are found.",
    "layout": "Correlation of the picture's coarse luminance with that of the base model's own picture, without any "
    "adapter, from the same prompt and noise (the structure term of SSIM, Wang et al. 2004): how far the encoder "
    "leaves composition to the base model.",
}
SCALE = {
    "same_person": "identity of another photo of the same person",
    "stranger": "identity of somebody else's photo",
    "base_diversity": "diversity of the base model's own pictures",
    "layout_chance": "layout kept between two of the base model's pictures of one prompt from different noise",
}
HEADLINE = ("identity", "prompt", "clip_t", "detected")
SECTIONS = {  # the sections below the headline and their metrics
    "Was the loss's recogniser fooled?": ("identity", "identity_select", "identity_loss", "identity_detected"),
    "Is the photo copied, are pictures diverse?": ("identity_other", "copied", "leak", "diversity", "diversity_faces"),
    "Style, scene and layout": ("style_right", "scene_right", "layout"),
}
