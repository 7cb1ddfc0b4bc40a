"""Drawing pictures of people from references and prompts, for training's samples, the evaluation and users."""
