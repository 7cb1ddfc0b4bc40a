"""The authors' checkpoint: what it holds comes back under this project's names; what it should not hold is named."""

import pickle
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from lookahead import world
from lookahead.artifacts import load_tensors
from lookahead.config import Checkpoints, read_params
from lookahead.errors import InputError
from lookahead.models.adapter import ADAPTER_FILE, export_adapter
from lookahead.models.kv_encoder import KV_FILE, KVEncoder, new_kv_encoder, open_kv_encoder, save_kv_encoder
from lookahead.pipeline import LookaheadPipeline
from lookahead.pipeline.convert import convert as make_folder
from lookahead.pipeline.convert import convert_tensors as convert
from tests.modules import ROOT
from tests.pipeline.conftest import moved
from tests.tiny import build_portraits

PROJECTION = "image_proj_model.proj_out.weight"


@pytest.fixture(scope="module")
def trained(tiny_world: Checkpoints) -> tuple[dict[str, Tensor], KVEncoder, dict[str, Tensor]]:
    """A checkpoint in the authors' naming, and the encoder and the base's weights that it holds."""
    pipe = world.open_pipeline(tiny_world)
    base = {name: tensor.clone() for name, tensor in pipe.unet.state_dict().items()}
    kv = moved(new_kv_encoder(pipe.unet, 2, 3, seed=0))
    plain = world.open_pipeline(tiny_world)
    world.attach_adapter(plain, tiny_world)
    adapter = export_adapter(plain.unet)
    blocks = [name.removesuffix(".attn2.processor") for name in plain.unet.attn_processors if ".attn2." in name]
    theirs = {f"encoder_unet.{name}": tensor for name, tensor in base.items()}
    for name, tensor in adapter.items():
        kind, _, rest = name.partition(".")
        if kind == "image_proj":
            theirs[f"image_proj_model.{rest}"] = tensor
            continue
        block, projection = blocks[int(rest.split(".")[0]) // 2], rest.split(".")[1].removesuffix("_ip")
        theirs[f"encoder_unet.{block}.extract_kv2.{projection}.weight"] = tensor
        theirs[f"encoder_unet.{block}.extract_kv2.source_attention_block.{projection}.weight"] = tensor
    for name, weight in kv.parameters().items():
        tensor = weight.detach().clone()
        if found := re.fullmatch(r"unet\.(.+)\.lora_([AB])\.kv_encoder\.weight", name):
            theirs[f"encoder_unet.{found[1]}.lora_layer.{'down' if found[2] == 'A' else 'up'}.weight"] = tensor
        elif found := re.fullmatch(r"shared\.(.+)/attn1\.([01])\.(down|up)\.weight", name):
            block, projection = found[1].replace("/", "."), ("to_k", "to_v")[int(found[2])]
            theirs[f"encoder_unet.{block}.extract_kv1.{projection}.lora_layer.{found[3]}.weight"] = tensor
            theirs[f"encoder_unet.{block}.extract_kv1.{projection}.weight"] = base[f"{block}.attn1.{projection}.weight"]
    theirs["image_encoder.vision_model.post_layernorm.weight"] = torch.ones(4)
    return theirs, kv, adapter


def test_every_tensor_comes_back_under_its_name_here(trained, tiny_world, tmp_path):
    theirs, kv, adapter = trained
    torch.save(theirs, tmp_path / "model_ckpt.pt")
    convert(tmp_path / "model_ckpt.pt", tiny_world, tmp_path / "encoder")
    written = load_file(tmp_path / "encoder" / ADAPTER_FILE)
    assert written.keys() == adapter.keys() and all(
        torch.equal(written[name], adapter[name].half()) for name in adapter
    )
    opened = open_kv_encoder(tmp_path / "encoder" / KV_FILE, world.open_pipeline(tiny_world).unet).parameters()
    assert all(torch.equal(opened[name], weight) for name, weight in kv.parameters().items())
    assert len(load_tensors(tmp_path / "encoder" / KV_FILE)[0]) == len(opened)
    pipe = world.open_pipeline(tiny_world)
    world.attach_adapter(pipe, tmp_path / "encoder" / ADAPTER_FILE)


def test_a_checkpoint_without_keys_and_values_is_an_adapter(trained, tiny_world, tmp_path):
    kept = {name: t for name, t in trained[0].items() if "lora_layer" not in name and "extract_kv1" not in name}
    torch.save(kept, tmp_path / "model_ckpt.pt")
    convert(tmp_path / "model_ckpt.pt", tiny_world, tmp_path / "encoder")
    assert [path.name for path in (tmp_path / "encoder").iterdir()] == [ADAPTER_FILE]


def test_the_converted_folder_draws_as_the_encoder_that_was_put_in(trained, tiny_world, tmp_path):
    theirs, kv, _ = trained
    torch.save(theirs, tmp_path / "model_ckpt.pt")
    row = read_params(ROOT / "params.yaml").worlds["miniature"].model_copy(update={"checkpoints": tiny_world})
    assert make_folder(row, tmp_path / "model_ckpt.pt", tmp_path / "authors") == [ADAPTER_FILE, KV_FILE]
    pipe = LookaheadPipeline.from_pretrained(tmp_path / "authors")
    assert pipe.has_kv and pipe.settings.portrait_prompt == "A photo of a face"
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / ADAPTER_FILE).write_bytes((tmp_path / "authors" / ADAPTER_FILE).read_bytes())
    save_kv_encoder(tmp_path / "own" / KV_FILE, kv)
    own = LookaheadPipeline(tiny_world, pipe.settings, tmp_path / "own")
    portrait = Image.open(build_portraits(tmp_path / "portraits", 1) / "000" / "0.jpg").convert("RGB")
    drawn = [one(portrait, "a photo of a person", num_inference_steps=2)[0] for one in (pipe, own)]
    assert drawn[0].tobytes() == drawn[1].tobytes()
    with pytest.raises(InputError, match="not empty"):
        make_folder(row, tmp_path / "model_ckpt.pt", tmp_path / "authors")


def first(theirs: dict[str, Tensor], part: str) -> str:
    return next(name for name in theirs if part in name)


CASES = {
    "no projection": (lambda t: t.pop(PROJECTION), f"lacks {PROJECTION}"),
    "no resampler": (lambda t: [t.pop(n) for n in list(t) if n.startswith("image_proj")], "lacks image_proj_model"),
    "no image keys": (lambda t: t.pop(first(t, "extract_kv2.to_k")), "lacks encoder_unet.*extract_kv2.to_k.weight"),
    "no LoRA half": (lambda t: t.pop(first(t, "attn2.to_q.lora_layer.up")), "lacks .*attn2.to_q.lora_layer.up.weight"),
    "no shared values": (
        lambda t: t.pop(first(t, "extract_kv1.to_v.lora_layer.down")),
        "lacks .*extract_kv1.to_v.lora_layer.down",
    ),
    "another width": (lambda t: t.update({PROJECTION: torch.zeros(3, 3)}), r"proj_out.weight has the shape \(3, 3\)"),
    "another rank": (
        lambda t: t.update({first(t, "attn1.to_v.lora_layer.down"): torch.zeros(1, 32)}),
        "attn1.to_v.lora_layer.down.weight has the shape",
    ),
    "not finite": (lambda t: t[PROJECTION].view(-1)[0].fill_(torch.nan), "not finite"),
    "another base": (lambda t: t[first(t, "unet.conv_in.weight")].add_(1), "conv_in.weight differs from the base"),
    "another copy": (lambda t: t[first(t, "extract_kv1.to_k.weight")].add_(1), "to_k.weight differs from the base"),
    "a base's weight of another shape": (
        lambda t: t.update({first(t, "unet.conv_in.weight"): torch.zeros(2)}),
        "conv_in.weight differs",
    ),
    "another network": (
        lambda t: t.update({"discriminator.weight": torch.zeros(2)}),
        "discriminator.weight is no part",
    ),
    "a foreign U-Net weight": (lambda t: t.update({"encoder_unet.x.weight": torch.zeros(2)}), "x.weight is no weight"),
    "a LoRA elsewhere": (
        lambda t: t.update({"encoder_unet.conv_in.lora_layer.up.weight": torch.zeros(2)}),
        "conv_in.lora_layer.up.weight is no part",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_named_and_nothing_is_written(case, trained, tiny_world, tmp_path):
    spoil, said = CASES[case]
    theirs = {name: tensor.clone() for name, tensor in trained[0].items()}
    spoil(theirs)
    torch.save(theirs, tmp_path / "model_ckpt.pt")
    with pytest.raises(InputError, match=said):
        convert(tmp_path / "model_ckpt.pt", tiny_world, tmp_path / "encoder")
    assert not (tmp_path / "encoder").exists()


class Code:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("code ran",)


def cut(path: Path, theirs: dict[str, Tensor]) -> None:
    torch.save(theirs, path)
    path.write_bytes(path.read_bytes()[:-2000])


FILES = {
    "missing": (lambda path, _: None, "does not exist"),
    "truncated": (cut, "cannot be opened"),
    "empty": (lambda path, _: path.touch(), "cannot be opened"),
    "text": (lambda path, _: path.write_text("<html>not found</html>"), "cannot be opened"),
    "code": (lambda path, _: path.write_bytes(pickle.dumps(Code())), "cannot be opened"),
    "a list": (lambda path, _: torch.save([torch.zeros(1)], path), "holds list"),
    "a state of an optimizer": (lambda path, _: torch.save({"step": 3}, path), "not a dictionary of tensors"),
}


@pytest.mark.parametrize("case", FILES)
def test_another_kind_of_file_is_one_message(case, trained, tiny_world, tmp_path, capsys):
    write, said = FILES[case]
    write(tmp_path / "model_ckpt.pt", trained[0])
    with pytest.raises(InputError, match=said):
        convert(tmp_path / "model_ckpt.pt", tiny_world, tmp_path / "encoder")
    assert "code ran" not in capsys.readouterr().out
