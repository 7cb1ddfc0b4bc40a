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
}
SCALE = {
    "same_person": "Cosine of the reference to another photo of the same person: what a perfect picture would reach.",
    "stranger": "Cosine of the reference to other people's references: what a picture of somebody else would reach.",
}
