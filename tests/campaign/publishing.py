"""Publishes a folder again and again over an earlier one, as stages do: `python publishing.py OUT`, for kills."""

import json
import sys
from pathlib import Path

from lookahead.artifacts import publish, recover, workspace

FILES, VERSIONS = 12, 60


def whole(out: Path) -> bool:
    """Whether a folder holds all files of one version."""
    files = sorted(out.rglob("*.json"))
    return len(files) == FILES and len({json.loads(file.read_bytes()) for file in files}) == 1


if __name__ == "__main__":
    out = Path(sys.argv[1])
    for version in range(VERSIONS):
        work = workspace("campaign", "key")
        recover(work, out)
        for number in range(FILES):
            file = work / str(number % 3) / f"{number}.json"
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(version))
        publish(work, out)
