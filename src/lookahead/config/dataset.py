"""The dataset: the sections of the stages `generate`, `photos` and `features`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lookahead.config.fields import Count, Fraction, Section, Seed

Similarity = Annotated[float, Field(ge=-1.0, le=1.0)]


class Generate(Section):
    """How many invented people and pictures of them are drawn, and how consistent they must be.

    `max_second_face` is the area above which a further face counts, as a share of the largest one's.
    """

    people: Count
    photos: Annotated[int, Field(ge=2)]
    stylised: Count
    batch_size: Count
    shard_size: Count
    seed: Seed
    prompts: str
    min_photo_similarity: Similarity
    min_stylised_similarity: Similarity
    min_images: Count
    max_second_face: Fraction
    max_evaluation_similarity: Similarity
    licences: dict[str, str]


class Photos(Section):
    """Own photos: what is read, how a face is cut out (`margin` in lengths of its box), and what is kept of a person.

    `min_face_size` is in pixels, `max_aspect_ratio` that of a photo's sides; `max_second_face` as in `Generate`.
    """

    prompts: str
    shard_size: Count
    min_face_size: Count
    max_pixels: Count
    max_aspect_ratio: Annotated[float, Field(ge=1.0)]
    margin: Annotated[float, Field(ge=1.0)]
    max_second_face: Fraction
    min_photo_similarity: Similarity
    min_images: Count

    @property
    def min_stylised_similarity(self) -> float:
        """Own pictures all count as photos."""
        return self.min_photo_similarity


class Features(Section):
    """How the dataset is encoded."""

    batch_size: Count
