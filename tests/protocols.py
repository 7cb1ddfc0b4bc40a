"""Protocol files for tests: the miniature's with little of everything."""

from pathlib import Path

import yaml

from tests.modules import ROOT


def write_protocol(path: Path, portraits: str, **changes: object) -> Path:
    """Write the miniature's protocol with changes, the splits being folders in `portraits`."""
    tree = yaml.safe_load((ROOT / "protocols" / "miniature.yaml").read_text(encoding="utf-8"))
    splits = {split: f"{portraits}/{split}" for split in tree["splits"]}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(tree | {"splits": splits} | changes, sort_keys=False), encoding="utf-8")
    return path
