"""The training pictures: prompts, drawing, face check, shards and their summary."""
