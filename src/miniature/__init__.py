"""The miniature: a portrait renderer, and the training of every pretrained part of its world."""
