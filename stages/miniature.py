"""Builds one part of the miniature: `python stages/miniature.py PART`, a frozen stage of its own for each."""

import os
import sys
from pathlib import Path

import torch

from lookahead.config import read_params
from lookahead.errors import InputError
from miniature.build import build_part


def main() -> None:
    """Build the part that the command line names."""
    # Small networks: beyond two cores little is gained, and OMP_NUM_THREADS=1 suits two parts side by side.
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", min(2, os.cpu_count() or 1))))
    try:
        build_part(
            sys.argv[1], Path("models/miniature"), Path("state/work/miniature"), read_params(), lambda _, __: None
        )
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
