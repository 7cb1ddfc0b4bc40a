"""The scores of every picture by recognisers, CLIP, colours and layout: the columns of the long table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from lookahead.artifacts import code_digest, digest, digest_paths
from lookahead.config import Checkpoints, FacePacks
from lookahead.errors import InputError
from lookahead.evaluation.pictures import Asked, Plan, Shot
from lookahead.evaluation.samplers import checkpoint_digest
from lookahead.portraits import Person, Pixels, open_picture, read_photo
from lookahead.world import Scorer, device, open_faces, open_scorer, quiet_alignment

Array = NDArray[np.float64]
Embeddings = dict[str, Array]  # unit vectors by pack
Encoder = Callable[[Tensor], Tensor]
Row = dict[str, int | float | str]
PACKS = ("report", "select", "loss")
TEXTS = 500  # embedded at once
CELLS = 16  # a side of the grid that a picture's luminance and colours are averaged on
CODE = ("evaluation/scores.py", "portraits.py", "world")  # what can change a score


class FaceReader:
    """Finds the largest face with pack `report` and embeds that same crop with the recogniser of every pack."""

    def __init__(self, packs: FacePacks) -> None:
        opened = {name: open_faces(getattr(packs, name), packs.detection_size) for name in PACKS}
        self._finder = opened["report"]
        self._recognisers = {name: faces.models["recognition"] for name, faces in opened.items()}

    def read(self, pixels: Pixels) -> Embeddings | None:
        """Unit embeddings by pack of the largest face in a picture, uint8 (H, W, 3), RGB; None if there is no face."""
        bgr = np.ascontiguousarray(pixels[:, :, ::-1])
        with quiet_alignment():
            faces = self._finder.get(bgr, max_num=1, det_metric="max")  # "max" takes the largest box
            if not faces:
                return None
            found = {name: recogniser.get(bgr, faces[0]) for name, recogniser in self._recognisers.items()}
        return {name: _unit(embedding.astype(np.float64)) for name, embedding in found.items()}


def _unit(vector: Array) -> Array:
    return vector / max(float(np.linalg.norm(vector)), 1e-12)


def read_references(reader: FaceReader, people: Sequence[Person]) -> list[Embeddings]:
    """The embeddings of everybody's reference photo."""
    found = {person.reference: reader.read(read_photo(person.reference)) for person in people}
    if lost := [str(path) for path, face in found.items() if face is None]:
        raise InputError(f"no face is found in the reference photo {', '.join(lost)}: replace it, or remove the person")
    return [face for face in found.values() if face is not None]


def read_others(reader: FaceReader, people: Sequence[Person]) -> list[list[Embeddings]]:
    """The embeddings of everybody's other photos; those without a face are left out."""
    return [[e for path in person.others if (e := reader.read(read_photo(path)))] for person in people]


def similarity(one: Embeddings, other: Embeddings, pack: str) -> float:
    """The cosine of two faces by the recogniser of a pack."""
    return float(one[pack] @ other[pack])


def layout(picture: Image.Image) -> Array:
    """Where a picture is light and dark: its luminance on a coarse grid less the mean, a unit vector (CELLS²,).

    The product of two such vectors is the structure term of SSIM over the whole picture (Wang et al. 2004, Eq. 10),
    which neither brightness nor contrast changes. An even picture gives zeros.
    """
    values = _coarse(picture.convert("L"))
    return _unit(values - values.mean())


def colours(picture: Image.Image) -> Array:
    """Which colours a picture has where: a unit vector (CELLS² · 3,) of its coarse grid about mid-grey."""
    return _unit(_coarse(picture.convert("RGB")) - 127.5)


def _coarse(picture: Image.Image) -> Array:
    return np.asarray(picture.resize((CELLS, CELLS), Image.Resampling.BOX), np.float64).reshape(-1)


def leaking(reference: Image.Image, others: Sequence[Image.Image]) -> Array:
    """What is particular to the reference's colours: its own less the mean of the person's other photos, (CELLS² · 3,).

    The product with a picture's `colours` is its leak. Hair and skin are alike in all photos of a person, clothes and
    background are not: above 0, those of the reference are in the picture. NaN where there is no other photo.
    """
    if not others:
        return np.full(CELLS * CELLS * 3, np.nan)
    return np.subtract(colours(reference), np.mean([colours(other) for other in others], axis=0))


@dataclass(frozen=True)
class Texts:
    """Unit text embeddings: of every prompt (N, D), in the plan's order, and of every word (K, D), by kind.

    A word's embedding is the mean over all prompts that name it (prompt ensembling, CLIP section 3.1.4).
    """

    prompts: Tensor
    words: dict[str, Tensor]


@torch.no_grad()
def embed_texts(scorer: Scorer, texts: Sequence[str]) -> Tensor:
    """Unit embeddings (N, D) of texts, on the CPU."""
    encode = cast(Encoder, scorer.model.encode_text)
    parts = scorer.tokenizer(list(texts)).split(TEXTS)
    return torch.cat([F.normalize(encode(tokens.to(device())).float(), dim=-1).cpu() for tokens in parts])


def embed_plan(scorer: Scorer, plan: Plan) -> Texts:
    """Embed the plan's prompts, which are all combinations of its words, the last kind varying fastest."""
    prompts = embed_texts(scorer, list(plan.prompts.values()))
    grid = prompts.reshape(*(len(some) for some in plan.words.values()), -1)
    others = [[axis for axis in range(len(plan.words)) if axis != kind] for kind in range(len(plan.words))]
    means = {kind: F.normalize(grid.mean(axes), dim=-1) for kind, axes in zip(plan.words, others, strict=True)}
    return Texts(prompts, means)


@torch.no_grad()
def embed_pictures(scorer: Scorer, pictures: list[Image.Image]) -> Tensor:
    """Unit embeddings (B, D) of pictures, on the CPU."""
    pixels = torch.stack([scorer.preprocess(picture) for picture in pictures]).to(device())
    encode = cast(Encoder, scorer.model.encode_image)
    return F.normalize(encode(pixels).float(), dim=-1).cpu()


def score(pictures: Tensor, texts: Texts, plan: Plan, asked: Sequence[Asked]) -> dict[str, Tensor]:
    """`clip_t`, and whether each kind's word is top-1 among all (`style_right`, ...), and all of them (`prompt`).

    `pictures` are unit embeddings (B, D) of pictures for which `asked` was asked. Columns of (B,) floats.
    """
    numbers = {text: number for number, text in enumerate(plan.prompts)}
    clip_t = (pictures * texts.prompts[[numbers[one] for one in asked]]).sum(1)
    rights = {
        f"{kind}_right": (pictures @ embeddings.T).argmax(1) == torch.tensor([plan.words[kind].index(w) for w in words])
        for (kind, embeddings), words in zip(texts.words.items(), zip(*asked, strict=True), strict=True)
    }
    rights["prompt"] = torch.stack(list(rights.values())).all(0)
    return {"clip_t": clip_t} | {name: right.float() for name, right in rights.items()}


@dataclass(frozen=True)
class Scorers:
    """Everything that pictures are scored by; embeddings, and what is particular to a reference, are by person."""

    faces: FaceReader
    references: list[Embeddings]
    others: list[list[Embeddings]]
    particular: list[Array]
    scorer: Scorer
    texts: Texts


def open_scorers(checkpoints: Checkpoints, people: Sequence[Person], plan: Plan) -> Scorers:
    """The recognisers and CLIP, with the faces and captions that pictures are compared to."""
    faces, scorer = FaceReader(checkpoints.faces), open_scorer(checkpoints)
    references, others = read_references(faces, people), read_others(faces, people)
    particular = [leaking(open_picture(p.reference), [open_picture(path) for path in p.others]) for p in people]
    return Scorers(faces, references, others, particular, scorer, embed_plan(scorer, plan))


def score_key(checkpoints: Checkpoints, people: Sequence[Person], plan: Plan) -> str:
    """What decides the scores of given pictures."""
    photos = digest_paths([path for person in people for path in (person.reference, *person.others)])
    counts = [len(person.others) for person in people]
    return digest(models_of(checkpoints), photos, counts, list(plan.prompts.values()), code_digest(*CODE))[:32]


def models_of(checkpoints: Checkpoints) -> dict[str, object]:
    """The models that score, by their contents."""
    packs = checkpoints.faces.model_dump(exclude={"detection_size"})
    return {
        "recognisers": {role: checkpoint_digest(pack) for role, pack in packs.items()},
        "detection_size": checkpoints.faces.detection_size,
        "scorer": [checkpoint_digest(checkpoints.scorer.model), checkpoints.scorer.pretrained],
    }


def score_shots(plan: Plan, shots: Sequence[Shot], images: list[Image.Image], scorers: Scorers) -> list[Row]:
    """One row of scores for each picture of a batch."""
    columns = score(embed_pictures(scorers.scorer, images), scorers.texts, plan, [shot.asked for shot in shots])
    rows = []
    for i, (shot, image) in enumerate(zip(shots, images, strict=True)):
        texts = {name: float(values[i]) for name, values in columns.items()}
        leak = float(colours(image) @ scorers.particular[shot.person])
        rows.append(plan.columns(shot) | texts | face_scores(image, shot.person, scorers) | {"leak": leak})
    return rows


def face_scores(image: Image.Image, person: int, scorers: Scorers) -> Row:
    """Whether a face is found, and its cosine to the person's reference by each pack: 0 without a face.

    `identity_detected` is NaN without a face. `identity_other` is the mean cosine to the person's other photos, NaN if
    there are none; `copied` is identity less this.
    """
    face = scorers.faces.read(np.asarray(image))
    own, others = scorers.references[person], scorers.others[person]
    by_pack = {pack: similarity(face, own, pack) if face else 0.0 for pack in PACKS}
    to_others = [similarity(face, other, "report") if face else 0.0 for other in others]
    to_other = float(np.mean(to_others)) if to_others else float("nan")
    return {
        "detected": float(face is not None),
        "identity": by_pack["report"],
        "identity_select": by_pack["select"],
        "identity_loss": by_pack["loss"],
        "identity_detected": by_pack["report"] if face else float("nan"),
        "identity_other": to_other,
        "copied": by_pack["report"] - to_other,
    }
