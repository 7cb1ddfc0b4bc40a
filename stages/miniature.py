"""Builds one part of the miniature: `python stages/miniature.py PART`."""

import os
import sys
from pathlib import Path

from lookahead.config import read_params
from lookahead.errors import InputError
from miniature.build import Builder, build_part, read_miniature


def main() -> None:
    """Build the part that the command line names."""
    # Small networks: beyond two cores little is gained, and OMP_NUM_THREADS=1 suits two parts at the same time.
    import torch  # after lookahead, which says how its threads wait

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1))))
    root, work = Path("models/miniature"), Path("state/work/miniature")
    try:
        checkpoints = read_params().of("miniature").checkpoints
        build_part(sys.argv[1], Builder(root, work, read_miniature(root / "params.yaml"), checkpoints))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
