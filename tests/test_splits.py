"""Nobody is in two splits, and only what reports results or leaves them out looks at the people of the test."""

from __future__ import annotations

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
MINIATURE = ROOT / "protocols" / "miniature.yaml"
REPORTING = {"evaluate"}  # studies are contrasted on the people of `validation`
BUILDING = {"portraits", "card"}  # the factory's
LEAVING_OUT = {"features"}  # drops whoever looks like them, which tells the training nothing but who is not there
FAR = 1.0  # two people drawn at random differ by 4.2 in the mean; each trait lies in [-1, 1]


def splits_of(protocol: Path) -> dict[str, Path]:
    return {name: ROOT / folder for name, folder in read_protocol(protocol).splits.model_dump().items()}


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda path: path.stem)
def test_the_splits_are_three_folders(protocol: Path) -> None:
    folders = list(splits_of(protocol).values())
    assert len(set(folders)) == 3 and not any(one in other.parents for one in folders for other in folders)


def test_no_photo_is_in_two_splits() -> None:
    photos = [photo.read_bytes() for folder in splits_of(MINIATURE).values() for photo in folder.rglob("*.jpg")]
    assert photos and len(set(photos)) == len(photos)


def people_of_splits() -> torch.Tensor:
    """Everybody as `miniature.data` draws them: folders are only numbered, so a name proves nothing."""
    people = read_miniature(ROOT / "models" / "miniature" / "params.yaml").people
    counts = [people[split] for split in SPLITS]
    drawn = [draw_identities(n, torch.Generator().manual_seed(PORTRAITS_SEED + i)) for i, n in enumerate(counts)]
    folders = splits_of(MINIATURE)
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
    prompts = read_prompts(ROOT / read_protocol(MINIATURE).prompts)
    names = prompts.invent(len(prompts.people.combinations()), 0)
    assert {tuple(name.split()) for name in names} <= {(f, s) for f in FIRST for s in LAST}


def test_only_what_reports_or_leaves_out_depends_on_the_people_of_the_test() -> None:
    """`features` compares faces with those of every split: a check that left the test out could not keep it clean."""
    files = [ROOT / "dvc.yaml", *ROOT.glob("studies/*/dvc.yaml"), ROOT / "models" / "miniature" / "dvc.yaml"]
    stages = [each for file in files for each in yaml.safe_load(file.read_text(encoding="utf-8"))["stages"].items()]
    whole = ("models/${world}", "/portraits", "/portraits/test")
    readers = {name for name, stage in stages if any(str(dep).endswith(whole) for dep in stage["deps"])}
    assert readers - BUILDING == REPORTING | LEAVING_OUT


def test_choices_are_made_on_other_people_than_those_of_the_test() -> None:
    """Code gets the portraits from a protocol, parameters name a split."""
    for path in [ROOT / "params.yaml", *(ROOT / "src").rglob("*.py"), *(ROOT / "stages").glob("*.py")]:
        assert "portraits/test" not in path.read_text(encoding="utf-8"), path
    studies = read_params(ROOT / "params.yaml").studies
    assert {(s.split, s.confirm.split) for s in studies.search.values()} == {("search", "validation")}
    assert {study.split for study in studies.cells.values()} == {"validation"}
