"""A page to try the encoder with: portraits and prompts in, pictures and their scores out, on this machine only."""
