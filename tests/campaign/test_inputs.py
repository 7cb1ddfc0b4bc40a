"""Bad inputs through the real command line: a right result, or one message; never a traceback, nothing lost."""

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from tests.campaign import inputs
from tests.campaign.children import Done, run
from tests.campaign.conftest import FIGURES
from tests.campaign.inputs import OUT, Input
from tests.project import WORLD, files_of

pytestmark = pytest.mark.campaign
COUNTS = {"parameters": 50, "pictures": 40, "prompts": 30, "paths": 40, "environments": 20, "texts": 10, "encoders": 10}
REAL = 10  # of so many one is a real process
WATCHED = ("runs", "results", "protocols", "prompts", "photos", "params.yaml", "full", "file")
MENDS = re.compile(
    r"\b(check|choose|run|give|lower|use|set|should|expected|write|remove|add|move|replace|convert|crop|free|save|end|"
    r"needed|has to|have to|wait|upload|installs?|swap|may be|try|raise|widen|copy|correct)\b"
)
MOST = 2  # lines of a message, those of a list of faults aside


def messages(said: str) -> str:
    """The last error that a command says; typer's begin with a capital letter, argparse's with the script's name."""
    found = re.split(r"^(?=(?:\w+\.py: )?error: |Error: )", said, flags=re.MULTILINE)
    return found[-1].strip() if len(found) > 1 else ""


def fault_of(given: Input, done: Done) -> str:
    """What is wrong with how a refused command ended; nothing if it is as it should be."""
    if "Traceback" in done.said or done.code not in (1, 2):
        return "a traceback or a crash"
    message = messages(done.said)
    lines = [line for line in message.splitlines() if not line.startswith("  ")]
    if not message or len(lines) > MOST:
        return f"{len(lines)} lines of message"
    if not any(word and word in message for word in given.names):
        return f"none of {given.names} is named"
    return "" if MENDS.search(message) else "no mend"


def wrong_result(root: Path, given: Input, said: str) -> str:
    """What is wrong with a result that a command reports with exit code 0."""
    if given.words[0] == "personalize":
        out = next(word for word in given.words if word.startswith("--out=")).removeprefix("--out=")
        pictures = sorted((root / out).glob("*.png"))
        if len(pictures) < 2:
            return f"{out} holds {len(pictures)} pictures"
        prompt = given.words[1].removeprefix("--prompt=")
        for path in pictures:
            with Image.open(path) as picture:
                if np.asarray(picture).std() == 0:
                    return f"{path.name} is of one colour"
                kept = picture.text["prompt"]  # type: ignore[attr-defined]
                if kept != prompt.encode(errors="replace").decode():
                    return f"{path.name} says that its prompt is {kept!r}"
    for path in (root / "runs").rglob("metrics.json"):
        numbers = inputs.leaves(metrics := json.loads(path.read_bytes()))
        if not all(math.isfinite(metrics[name]) for name in numbers if isinstance(metrics.get(name), float)):
            return f"{path} holds a number that is not finite"
    absent = [
        path for path in re.findall(r"^[A-Z][a-z, ]+: +(runs/\S+)", said, re.MULTILINE) if not (root / path).exists()
    ]
    return f"{absent} are named, and not there" if absent else "" if said.strip() else "nothing is said"


def kept(root: Path) -> dict[str, bytes]:
    """What is earlier than the command: results, parameters, and files of people."""
    files = {f"{name}/{file}": raw for name in WATCHED for file, raw in files_of(root / name).items()}
    return files | {name: (root / name).read_bytes() for name in WATCHED if (root / name).is_file()}


def own_output(words: tuple[str, ...]) -> str:
    """Where a command writes that has ended well."""
    folders = {"import": "imported", "train": "train", "features": "features", "evaluate": "evaluate"}
    return f"runs/{WORLD}/{folders[words[0]]}" if words[0] in folders else "nowhere"


def left_behind(root: Path) -> list[str]:
    """Half-built files and folders outside of `state`."""
    hidden = [path for path in root.rglob(".*") if "state" not in path.relative_to(root).parts]
    return [path.relative_to(root).as_posix() for path in [*hidden, root / OUT] if path.exists()]


def check(given: Input, real: bool, place: Callable[[], Path], log: Path) -> str:
    """Run a command; what is wrong with how it ended."""
    root = place()
    given.prepare(root)
    before = kept(root)
    try:
        done = run(root, given.words, log, given.environment, real)
    except AssertionError as error:
        return str(error)
    after, own = kept(root), own_output(given.words) if done.code == 0 else "nowhere"
    changed = [name for name in before if not name.startswith(own) and after.get(name) != before[name]]
    fault = wrong_result(root, given, done.said) if done.code == 0 else fault_of(given, done)
    if changed or (done.code and left_behind(root)):
        fault += f" changed: {changed[:3]}, left: {left_behind(root)}"
    return fault and f"{fault}\n{given.words} {dict(given.environment)} exit code {done.code}\n{done.said[-1500:]}"


@pytest.mark.parametrize("name", inputs.FOUND)
def test_what_was_found_stays_mended(name: str, place: Callable[[], Path], log: Path) -> None:
    fault = check(inputs.FOUND[name], False, place, log)
    assert not fault, fault


@pytest.mark.parametrize("kind", COUNTS)
@pytest.mark.timeout(2400)
def test_bad_inputs_end_in_a_result_or_in_one_message(
    kind: str,
    world_of_results: Path,
    place: Callable[[], Path],
    log: Path,
    number: int,
    share: Callable[[int], int],
) -> None:
    generators: dict[str, st.SearchStrategy[Input]] = {
        "parameters": inputs.parameters(inputs.read_tree(world_of_results)),
        "pictures": inputs.pictures(),
        "prompts": inputs.prompts(),
        "paths": inputs.paths(),
        "environments": inputs.environments(),
        "texts": inputs.texts(),
        "encoders": inputs.encoders(),
    }
    faults: list[str] = []
    tried = 0

    @seed(number)
    @settings(
        max_examples=share(COUNTS[kind]),
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(generators[kind])
    def each(one: Input) -> None:
        nonlocal tried
        real = tried % REAL == REAL - 1 or (tried == 0 and share(COUNTS[kind]) < REAL)
        tried += 1
        FIGURES.update(["inputs", f"inputs of {kind}", *["inputs in real processes"] * real])
        if fault := check(one, real, place, log):
            faults.append(fault)

    each()
    assert not faults, f"{len(faults)} of {tried}:\n\n" + "\n\n".join(faults)
