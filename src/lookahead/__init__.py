"""LCM-Lookahead: tune an image encoder so that a diffusion model draws a person more alike."""
