"""Everything of an evaluation that decides the scores of pictures, and nothing else: the cache's keys name it."""
