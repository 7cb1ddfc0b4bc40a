"""Everything of an evaluation that decides its pictures, and nothing else: the cache's keys name this folder."""
