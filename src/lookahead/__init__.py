"""LCM-Lookahead: tune an image encoder so that a diffusion model draws a person more alike."""

import os

# How OpenMP's threads wait for each other, read when torch loads: those that spin long stop each other wherever another
# process wants a core (docs/scale.md). Every entry imports this package first; what the user has set stays.
THREADS = {"GOMP_SPINCOUNT": "1000"}
if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ.update(THREADS)
# Another program's variables: a list of threads is one for each level of nesting, and a launch sets all of its own.
_threads = os.environ.pop("OMP_NUM_THREADS", "").split(",")[0].strip()
if _threads.isdecimal() and int(_threads):
    os.environ["OMP_NUM_THREADS"] = _threads
LAUNCH = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_PORT")
if not all(os.environ.get(name, "").isdecimal() for name in LAUNCH):
    for name in LAUNCH:
        os.environ.pop(name, None)
if os.environ.get("RANK", "0") != "0":
    os.environ["TQDM_DISABLE"] = "1"  # of several processes the first one's bars are enough
