"""What each number of the report means, in one sentence each."""

MEANINGS = {
    "identity": "Cosine between the face drawn and the reference photo, by recogniser report, which no training and no "
    "selection uses. A picture without a face counts 0.",
    "prompt": "Share of pictures whose style and scene are both what the prompt asked for: top-1 among all styles and "
    "all scenes by CLIP. A loss of 0.02 is two pictures in a hundred.",
    "clip_t": "CLIP's cosine between the picture and its prompt.",
    "detection_rate": "Share of pictures in which a face is found.",
    "style": "Share of pictures whose style is top-1.",
    "scene": "Share of pictures whose scene is top-1.",
    "identity_select": "Identity by recogniser select, which chose the training pictures but is in no loss.",
    "identity_loss": "Identity by the recogniser inside the loss. If it rose far more than identity does, training "
    "would have learnt to please this recogniser (Goodhart's law) and not to draw the person.",
    "identity_detected": "Identity over the pictures in which a face is found; people without any are left out.",
    "identity_other": "Cosine to the person's other photos. Where it falls while identity rises, the reference photo "
    "is being copied.",
    "copied": "Identity minus identity_other: how much more a picture resembles the reference photo than the person's "
    "other photos. 0 would be the person; above it, the photo is copied.",
    "diversity": "Mean distance (1 − cosine of CLIP's image embeddings) between pictures of one person and prompt from "
    "different noise. Lower: every seed gives nearly the same picture.",
    "diversity_faces": "The same distance between the faces, by recogniser report, where they are found. Lower: the "
    "same face in every picture.",
    "layout": "Correlation of the picture's coarse luminance with that of the base model's own picture, without any "
    "adapter, from the same prompt and noise (the structure term of SSIM, Wang et al. 2004, of the low-passed "
    "pictures): how far the encoder leaves composition to the base model.",
}
SCALE = {
    "same_person": "Cosine of the reference to another photo of the same person: what a perfect picture would reach.",
    "stranger": "Cosine of the reference to other people's references: what a picture of somebody else would reach.",
    "base_diversity": "Diversity of the base model's own pictures, without any adapter.",
    "layout_chance": "Layout likeness of two of the base model's pictures of one prompt from different noise.",
}
