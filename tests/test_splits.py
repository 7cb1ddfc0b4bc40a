"""Nobody is in two splits, and only what reports results or leaves them out looks at the people of the test."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import yaml

from lookahead.config import read_params, read_protocol
from lookahead.dataset.prompts import read_prompts
from miniature.build import read_miniature
from miniature.data import PORTRAITS_SEED, SPLITS
from miniature.vocabulary import FIRST, IDENTITY_SIZE, LAST, draw_identities, name_identity
from tests.modules import ROOT

PROTOCOLS = sorted((ROOT / "protocols").glob("*.yaml"))
REPORTING = {"evaluate"}  # studies are contrasted on the people of `validation`
BUILDING = {"portraits", "card"}  # the factory's
LEAVING_OUT = {"generate"}  # drops whoever looks like them, which tells the training nothing but who is not there
FAR = 1.0  # two people drawn at random differ by 4.2 in the mean; each trait lies in [-1, 1]


def splits_of(protocol: Path) -> dict[str, Path]:
    return {name: ROOT / folder for name, folder in read_protocol(protocol).splits.model_dump().items()}


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda path: path.stem)
def test_the_splits_are_three_folders(protocol: Path) -> None:
    folders = list(splits_of(protocol).values())
    assert len(set(folders)) == 3 and not any(one in other.parents for one in folders for other in folders)


def test_no_photo_is_in_two_splits() -> None:
    seen: dict[str, str] = {}
    for split, folder in splits_of(ROOT / "protocols" / "miniature.yaml").items():
        photos = sorted(folder.rglob("*.jpg"))
        assert photos
        for photo in photos:
            digest = hashlib.sha256(photo.read_bytes()).hexdigest()
            assert seen.setdefault(digest, split) == split, photo


def people_of_splits() -> torch.Tensor:
    """Everybody as `miniature.data` draws them: folders are only numbered, so a name proves nothing."""
    people = read_miniature(ROOT / "models" / "miniature" / "params.yaml").people
    counts = [people[split] for split in SPLITS]
    drawn = [draw_identities(n, torch.Generator().manual_seed(PORTRAITS_SEED + i)) for i, n in enumerate(counts)]
    folders = splits_of(ROOT / "protocols" / "miniature.yaml")
    assert [len(list(folders[name].iterdir())) for name in SPLITS] == counts
    return torch.cat(drawn)


def test_nobody_is_in_two_splits() -> None:
    people = people_of_splits()
    apart = torch.cdist(people, people) + torch.eye(len(people)) * IDENTITY_SIZE
    assert apart.min() > FAR


def test_no_invented_name_is_somebody_of_a_split() -> None:
    """Neither those that `generate` can draw nor those that the miniature's parts learnt from: all pairs of names."""
    pairs = torch.cartesian_prod(torch.arange(len(FIRST)), torch.arange(len(LAST)))
    invented = name_identity(pairs[:, 0], pairs[:, 1])
    assert torch.cdist(people_of_splits(), invented).min() > FAR
    bank = read_prompts(ROOT / read_protocol(ROOT / "protocols" / "miniature.yaml").prompts).people
    assert {tuple(bank.name(c).split()) for c in bank.combinations()} <= {(f, s) for f in FIRST for s in LAST}


def pipelines() -> list[tuple[str, dict[str, object]]]:
    """Every stage of every dvc.yaml by its name; two pipelines may use the same one."""
    files = [ROOT / "dvc.yaml", *sorted(ROOT.glob("studies/*/dvc.yaml")), ROOT / "models" / "miniature" / "dvc.yaml"]
    return [each for file in files for each in yaml.safe_load(file.read_text(encoding="utf-8"))["stages"].items()]


def test_only_what_reports_or_leaves_out_depends_on_the_people_of_the_test() -> None:
    """`generate` compares faces with those of every split: a check that left the test out could not keep it clean."""
    whole = ("models/${world}", "/portraits", "/portraits/test")
    readers = {n for n, stage in pipelines() if any(str(dep).endswith(whole) for dep in stage["deps"])}  # type: ignore[attr-defined]
    assert readers - BUILDING == REPORTING | LEAVING_OUT


def test_parameters_name_no_split_of_the_test() -> None:
    text = (ROOT / "params.yaml").read_text(encoding="utf-8")
    assert "portraits/test" not in text and "split: test" not in text
    searches = read_params(ROOT / "params.yaml").studies.search.values()
    assert {(s.split, s.confirm.split) for s in searches} == {("search", "validation")}
    cells = read_params(ROOT / "params.yaml").studies.cells.values()
    assert {study.split for study in cells} == {"validation"}


def test_no_script_or_module_names_the_folder() -> None:
    """They get the portraits from a protocol."""
    for path in [*(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        assert "portraits/test" not in path.read_text(encoding="utf-8"), path
