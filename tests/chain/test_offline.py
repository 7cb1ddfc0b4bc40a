"""The chain needs no network: with every socket refused it ends, tracking included, and does not even try."""

from collections.abc import Callable
from pathlib import Path

from lookahead.artifacts import read_json
from tests.chain.conftest import run_script


def test_the_chain_and_tracking_reach_for_no_address(
    project: Path, change: Callable[[str, object], None], calls: list[str]
) -> None:
    assert (project / "runs" / "tiny" / "evaluate" / "report.html").is_file()
    change("tracking.enabled", True)
    assert run_script("features") == ""
    assert read_json(Path("runs/tiny/features.run.json"))["tracked"]
    assert calls == []
