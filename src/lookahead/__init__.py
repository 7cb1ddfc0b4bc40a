"""LCM-Lookahead: tune an image encoder so that a diffusion model draws a person more alike."""

import os

# How OpenMP's threads wait for each other, read when torch loads: those that spin long stop each other wherever another
# process wants a core (docs/scale.md). Every entry imports this package first; what the user has set stays.
THREADS = {"GOMP_SPINCOUNT": "1000"}
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ.update(THREADS)
if os.environ.get("RANK", "0") != "0":
    os.environ["TQDM_DISABLE"] = "1"  # of several processes the first one's bars are enough
