"""Optuna studies over the training's parameters: the space, trials, confirmation, report, adoption."""
