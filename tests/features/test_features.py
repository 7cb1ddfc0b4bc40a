import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torch import Tensor

from lookahead.artifacts import load_tensors, save_tensors
from lookahead.config import Checkpoints
from lookahead.dataset.shards import decode_png, list_shards, read_pictures
from lookahead.errors import InputError
from lookahead.features.encode import Encoders, encode
from lookahead.features.store import open_features
from lookahead.world import open_faces, open_image_encoder, open_pipeline
from tests.project import files_of
from tests.tiny import ENCODING, no_log


@pytest.fixture(scope="module")
def pictures(dataset: Path) -> list[np.ndarray]:
    return [decode_png(png, path) for path in list_shards(dataset) for _, png in read_pictures(path)]


def test_latents_equal_direct_encoding_in_any_order(
    tiny_world: Checkpoints, pictures: list[np.ndarray], features: Path
) -> None:
    store, vae = open_features(features), open_pipeline(tiny_world).vae
    rows = torch.tensor([11, 0, 7])
    pixels = torch.from_numpy(np.stack(pictures)[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1
    direct = vae.encode(pixels).latent_dist.mode() * vae.config.scaling_factor
    torch.testing.assert_close(store.latents(rows), direct)
    every = store.latents(torch.arange(15))
    assert torch.equal(store.latents(torch.tensor([14, 0, 6, 6, 5])), every[[14, 0, 6, 6, 5]])


def test_image_features_and_prompts_equal_what_diffusers_computes(
    tiny_world: Checkpoints, pictures: list[np.ndarray], features: Path
) -> None:
    pipe = open_pipeline(tiny_world)
    pipe.image_encoder, pipe.feature_extractor = open_image_encoder(tiny_world)
    store, row = open_features(features), torch.tensor([8])
    photo = Image.fromarray(pictures[7])
    seen, nothing = pipe.encode_image(photo, "cpu", 1, output_hidden_states=True)
    torch.testing.assert_close(store.image_features(torch.tensor([7])), seen)
    torch.testing.assert_close(store.prompts.null_image_features, nothing)
    style, scene = store.table.style[8], store.table.scene[8]
    words = {"photo": "a photo", "pencil": "a pencil drawing", "oil": "an oil painting"}
    prompt = f"{words[style]} of a person {({'studio': 'in a studio', 'snow': 'in the snow'})[scene]}"
    tokens, empty, pooled, empty_pooled = pipe.encode_prompt(prompt, device="cpu")
    for mine, diffusers in zip(store.prompt_embeds(row), (tokens, pooled), strict=True):
        torch.testing.assert_close(mine, diffusers)
    torch.testing.assert_close(store.prompts.empty_prompt_embeds, empty)
    torch.testing.assert_close(store.prompts.empty_pooled, empty_pooled)


def test_embeddings_equal_insightfaces_own(tiny_world: Checkpoints, pictures: list[np.ndarray], features: Path) -> None:
    faces = open_faces(tiny_world.faces.loss, tiny_world.faces.detection_size)
    store = open_features(features)
    for row in (0, 5, 14):
        found = faces.get(np.ascontiguousarray(pictures[row][:, :, ::-1]))[0]
        np.testing.assert_allclose(store.embeddings(torch.tensor([row]))[0], found.normed_embedding, atol=1e-5)
        np.testing.assert_allclose(store.landmarks(torch.tensor([row]))[0], found.kps, atol=1e-4)


def test_photos_alone_have_image_features(tiny_world: Checkpoints, pictures: list[np.ndarray], features: Path) -> None:
    store = open_features(features)
    photos = torch.nonzero(store.table.photo).squeeze(1)
    assert photos.tolist() == [0, 1, 2, 5, 6, 7, 10, 11, 12]
    direct = Encoders(tiny_world).images([pictures[row] for row in photos.tolist()])
    assert _close(store.image_features(photos), direct)
    assert torch.equal(store.image_features(photos.flip(0)), store.image_features(photos).flip(0))
    with pytest.raises(AssertionError):
        store.image_features(torch.tensor([0, 3]))


def test_half_precision_is_read_as_it_is_stored(features: Path, tmp_path: Path) -> None:
    shutil.copytree(features, tmp_path / "features")
    tensors, _ = load_tensors(tmp_path / "features" / "images" / "00001.safetensors")
    halved = {name: tensor.bfloat16() for name, tensor in tensors.items()}
    save_tensors(tmp_path / "features" / "images" / "00001.safetensors", halved, {"a": "note"})
    latents = open_features(tmp_path / "features").latents(torch.tensor([7]))
    assert latents.dtype == torch.bfloat16
    assert torch.equal(latents, halved["latents"][1:2])


def _keeping(dataset: Path, rows: set[int], source: Path) -> Path:
    """The dataset with these rows kept alone."""
    source.mkdir()
    (source / "shards").symlink_to(dataset / "shards")
    table = pq.read_table(dataset / "table.parquet")
    kept = pa.array([number in rows for number in range(15)])
    pq.write_table(table.set_column(table.schema.get_field_index("kept"), "kept", kept), source / "table.parquet")
    return source


def test_dropped_pictures_are_not_encoded(
    tiny_world: Checkpoints, dataset: Path, features: Path, tmp_path: Path
) -> None:
    kept = [0, 2, 3, 4, 5, 13, 14]  # of the second shard none, of the third no photo
    source = _keeping(dataset, set(kept), tmp_path / "in")
    encode(tiny_world, ENCODING, source, None, tmp_path / "out", no_log)
    some, every = open_features(tmp_path / "out"), open_features(features)
    assert some.table.index.tolist() == kept
    assert _close(some.latents(torch.arange(7)), every.latents(some.table.index))
    assert _close(some.embeddings(torch.arange(7)), every.embeddings(some.table.index))
    assert _close(some.image_features(torch.tensor([0, 1, 4])), every.image_features(torch.tensor([0, 2, 5])))


def _close(one: Tensor, other: Tensor) -> bool:
    return torch.allclose(one, other, atol=1e-5)


def test_a_run_continues_at_missing_parts_with_the_same_bytes(
    tiny_world: Checkpoints, dataset: Path, features: Path, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    first = sorted((features / "images").glob("*"))[0]
    (tmp_path / "images" / first.name).write_bytes(first.read_bytes())
    encoded: list[int] = []
    encode(
        tiny_world,
        ENCODING,
        dataset,
        None,
        tmp_path,
        lambda _metrics, number: encoded.append(number),
    )
    assert encoded == [1, 2]
    assert files_of(tmp_path) == files_of(features)


def test_features_of_another_layout_are_one_error(features: Path, tmp_path: Path) -> None:
    shutil.copytree(features, tmp_path / "features")
    path = tmp_path / "features" / "images" / "00000.safetensors"
    tensors, _ = load_tensors(path)
    tensors["image_features"] = tensors["image_features"][[0, 0, 1, 1, 2, 2]]  # one a picture
    save_tensors(path, tensors, {})
    with pytest.raises(InputError, match="15 rows, 9 of them photos, do not fit"):
        open_features(tmp_path / "features")


@pytest.mark.parametrize("name", ["images/00001.safetensors", "prompts.safetensors", "table.parquet"])
@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_damaged_features_are_one_error(features: Path, tmp_path: Path, name: str, damage: str) -> None:
    shutil.copytree(features, tmp_path, dirs_exist_ok=True)
    broken = tmp_path / name
    broken.write_bytes(broken.read_bytes()[:-30])
    if damage == "missing":
        broken.unlink()
    with pytest.raises(InputError, match=str(tmp_path)):
        open_features(tmp_path)


def test_a_dataset_without_table_is_refused(tiny_world: Checkpoints, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"table\.parquet cannot be read.*run the stage `generate`"):
        encode(tiny_world, ENCODING, tmp_path, None, tmp_path / "out", no_log)
