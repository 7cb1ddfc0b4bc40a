"""The chain needs no network: with every socket refused it ends, tracking included, and does not even try."""

from collections.abc import Callable
from pathlib import Path

from lookahead.artifacts import read_json
from tests.chain.conftest import run_script


def test_the_whole_chain_reaches_for_no_address(finished: Path, calls: list[str]) -> None:
    assert (finished / "runs" / "tiny" / "evaluate" / "report.html").is_file()
    assert calls == []


def test_tracking_reaches_for_no_address(
    repository: Path, change: Callable[[str, object], None], calls: list[str]
) -> None:
    change("tracking.enabled", True)
    assert run_script("features") == ""
    assert read_json(Path("runs/tiny/features.run.json"))["tracked"]
    assert calls == []
