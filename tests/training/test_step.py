"""One step on the tiny world: who gets gradients, what the losses see, and that they teach."""

from dataclasses import replace
from typing import get_args

import pytest
import torch

from lookahead.config.train import DensityName, DistanceName, PreviewName
from lookahead.errors import InputError
from lookahead.method.annealing import DENSITIES, power_density
from lookahead.method.lookahead import DISTANCES, identity_distance
from lookahead.method.preview import PREVIEWS, consistency_stepping
from lookahead.method.shared_pass import as_leaves, backward_through
from lookahead.models.adapter import adapter_parameters
from lookahead.models.recogniser import align
from lookahead.training.data import Batch, Draws, draw_both, generator_for, with_dropout
from lookahead.training.loop import backward, draw_batch, train_step
from lookahead.training.losses import (
    Row,
    backward_lookahead_loss,
    backward_noise_loss,
    encode_reference,
    noise_losses,
    preview_distances,
    preview_pixels,
    read,
)
from lookahead.training.networks import Training
from tests.tiny import save_base
from tests.training.conftest import changed

KV = {"kv": {"enabled": True}}


def drawn(training: Training, index: int = 0) -> tuple[Batch, Draws]:
    batch = draw_batch(training, index)
    return batch, draw_both(batch.latents.shape, training.settings, training.timesteps, index)


@pytest.fixture(scope="module")
def training(opened) -> Training:
    """Shared by tests that leave weights alone; they clear gradients themselves."""
    return opened({})


@pytest.fixture
def pixels() -> torch.Tensor:
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1


def gradients(training: Training) -> dict[str, torch.Tensor]:
    backward(training, 1)
    return {name: p.grad for name, p in training.weights.items()}


def assert_equal(gradients: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    for name, gradient in wanted.items():
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("kv", [False, True])
def test_exactly_the_intended_parameters_get_gradients(opened, kv):
    """The adapter and the LoRAs of the KV-encoder: each gets some, and nothing else gets any."""
    training = opened({"kv": {"enabled": kv}})
    networks = training.networks
    trained = {id(p) for p in training.weights.values()}
    assert any(name.startswith("kv.") for name in training.weights) == kv
    assert all(gradient is not None for gradient in gradients(training).values())
    frozen = [networks.unet, networks.preview_vae, networks.recogniser]
    frozen += [] if networks.kv is None else [networks.kv.unet, networks.kv.shared]
    others = [p for module in frozen for p in module.parameters() if id(p) not in trained]
    assert all(p.grad is None and not p.requires_grad for p in others)


@pytest.mark.parametrize(("precision", "kv"), [("float32", False), ("bfloat16", True)])
def test_a_step_changes_the_adapter_kept_in_float32_and_nothing_else(opened, precision, kv):
    training = opened({"kv": {"enabled": kv}}, precision=precision)
    unet = training.networks.unet
    assert unet.conv_in.weight.dtype == getattr(torch, precision)
    before = {name: p.detach().clone() for name, p in unet.named_parameters()}
    train_step(training, 0)
    assert all(p.dtype == torch.float32 for p in training.weights.values())
    adapter = {id(p) for p in adapter_parameters(unet).values()}
    for name, p in unet.named_parameters():
        assert torch.equal(p, before[name]) != (id(p) in adapter), name


@pytest.mark.parametrize("loss", [backward_noise_loss, backward_lookahead_loss])
def test_each_loss_reaches_every_weight_of_the_adapter(training, loss):
    training.optimizer.zero_grad(set_to_none=True)
    batch, draws = drawn(training)
    loss(training, batch, draws.noise, {}, 0)
    idle = [name for name, p in training.weights.items() if p.grad is None or p.grad.abs().sum() == 0]
    assert idle == []


@pytest.mark.parametrize("dropout", ["image_dropout", "text_dropout"])
def test_dropping_hides_the_reference_or_the_prompt(training, dropout):
    batch, draws = drawn(training)
    settings = changed(training.settings, {"image_dropout": 0.0, "text_dropout": 0.0, dropout: 0.5})
    condition = with_dropout(training.store, batch.condition, settings, generator_for("x", 0, 24))
    image = (condition.image == batch.condition.image).flatten(1).all(1)
    text = (condition.prompt.tokens == batch.condition.prompt.tokens).flatten(1).all(1)
    kept, whole = (image, text) if dropout == "image_dropout" else (text, image)
    assert kept.tolist() == [True, False] and whole.all()  # what this seed draws
    with torch.no_grad():
        losses = noise_losses(training.networks, batch, draws.noise, condition)
        full = noise_losses(training.networks, batch, draws.noise, batch.condition)
    assert losses[0] == pytest.approx(full[0].item(), rel=1e-5) and losses[1] != full[1]


@pytest.mark.parametrize(("kv", "weight"), [(False, 1.0), (True, 0.0), (True, 1.0)])
def test_gradients_are_equal_with_checkpointing(opened, kv, weight):
    """Noise loss alone, or both. With `backward()` moved out of `child_at` or of `appended`, torch raises a
    CheckpointError: the recomputation sees other layers. With the strength alone restored too early, nothing is
    raised and the gradients are wrong (tests/models/test_fast_child.py)."""
    changes = {"kv": {"enabled": kv}, "lookahead": {"weight": weight}}
    training = opened(changes | {"gradient_checkpointing": True})
    assert_equal(gradients(training), gradients(opened(changes)))
    assert training.networks.kv is None or not training.networks.kv.bank, "what ran again was kept"


def test_the_memory_format_of_convolutions_changes_no_gradient(opened):
    training = opened(KV | {"channels_last": True})
    assert not training.networks.unet.conv_in.weight.is_contiguous()
    assert_equal(gradients(training), gradients(opened(KV)))


def test_one_pass_of_the_kv_encoder_equals_one_for_each_loss(opened):
    """Shared timesteps: both losses on one set of keys and values, against two passes with the very same draws."""
    changes = {"share_timesteps": True, "kv": {"enabled": True, "token_dropout": 0.0}}
    training = opened(changes)
    batch, draws = drawn(training, 1)
    for loss, draw in ((backward_noise_loss, draws.noise), (backward_lookahead_loss, draws.lookahead)):
        keys_values = encode_reference(training.networks, batch, draw)
        leaves = as_leaves(keys_values)
        loss(training, batch, draw, leaves, 1)
        backward_through(keys_values, leaves)
    assert_equal(gradients(opened(changes)), {name: weight.grad for name, weight in training.weights.items()})


def figures(training: Training, index: int = 0) -> Row:
    return read([backward(training, index)])[0]


def test_naive_preview_is_the_child_at_strength_0(opened):
    def distance(model: str, low: float) -> float:
        scale = {"low": low, "high": low, "probability_of_one": 0.0}
        return figures(opened({"lookahead": {"preview": {"model": model}, "lora_scale": scale}}))["distance"]

    assert distance("naive", 0.7) == distance("lcm", 0.0) != distance("lcm", 0.7)


SETTINGS = [{}, {"boundary": True}, {"start": "noise"}, {"start": "noise", "steps": 2, "gradient_steps": 2}]
SETTINGS += [{"steps": 3, "gradient_steps": last} for last in (1, 3)]


@pytest.mark.parametrize("preview", SETTINGS, ids=str)
def test_every_preview_teaches(opened, preview):
    """The gradient points where previews look more like the reference: steps on one micro-batch show it."""
    training = opened({"batch_size": 8, "lookahead": {"preview": preview}})
    batch, draws = drawn(training)
    distances = []
    for _ in range(6):
        training.optimizer.zero_grad(set_to_none=True)
        distances.append(backward_lookahead_loss(training, batch, draws.lookahead, {}, 0)["distance"].item())
        training.optimizer.step()
    assert distances[1] < distances[0] - 1e-5 and distances[-1] < distances[0]


@pytest.mark.parametrize("share", [False, True])
def test_previews_from_noise_are_at_the_last_timestep_everywhere(opened, share, monkeypatch):
    """Draw, weights, the KV-encoder's input, the U-Net's, and the curves' ranges; the target is not seen."""
    start = {"lookahead": {"preview": {"start": "noise"}}}
    training = opened(KV | start | {"share_timesteps": share, "gradient_accumulation_steps": 1})
    batch, draws = drawn(training)
    assert draws.lookahead.t.tolist() == [999, 999] and draws.lookahead.weight.tolist() == [1.0, 1.0]
    assert draws.noise.t.max() < 999 and draws.noise.weight.tolist() == [1.0, 1.0]
    kind, seen = type(training.networks.kv), []
    encode = kind.encode
    monkeypatch.setattr(kind, "encode", lambda own, noisy, t, *rest: seen.append(t) or encode(own, noisy, t, *rest))
    row = figures(training)
    assert [t.tolist() for t in seen] == [draws.noise.t.tolist(), [999, 999]]
    assert row["t_lookahead"] == 999 and row["distance_t3"] == pytest.approx(row["distance"])
    assert all(torch.isnan(torch.tensor(row[f"distance_t{number}"])) for number in range(3))

    def shown(latents: torch.Tensor) -> torch.Tensor:
        moved, preview = replace(batch, latents=latents), training.settings.lookahead.preview
        return preview_pixels(training.networks, moved, draws.lookahead, preview, generator_for("x", 0, 0))

    with torch.no_grad():
        assert torch.equal(shown(batch.latents), shown(batch.latents + 1))


def test_the_distance_to_the_own_picture_is_zero_and_bounded(training, pixels):
    """D of Eq. 4: nothing for the picture that the wanted face was read from, at most 2 for any other."""
    batch, _ = drawn(training)
    with torch.no_grad():
        wanted = training.networks.recogniser(align(pixels, batch.landmarks))
        same, opposite = (replace(batch, embeddings=embeddings) for embeddings in (wanted, -wanted))
        distance, found = preview_distances(training.networks, same, pixels, "identity")
        far, _ = preview_distances(training.networks, opposite, pixels, "identity")
    torch.testing.assert_close(distance, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(far, torch.full((2,), 2.0), atol=1e-5, rtol=0)
    assert found.all()


class Seen:
    """A detector that finds faces, at these landmarks, in these pictures."""

    def __init__(self, landmarks, found):
        self.landmarks, self.found = landmarks, torch.tensor(found)

    def __call__(self, pixels):
        return self.landmarks * self.found[:, None, None], self.found


def test_where_no_face_is_found_the_targets_landmarks_serve(training, pixels):
    networks, (batch, _) = training.networks, drawn(training)
    moved = replace(batch, landmarks=batch.landmarks + 4)
    detecting = replace(networks, detector=Seen(moved.landmarks, [True, False]))
    with torch.no_grad():
        by_target, by_moved = (preview_distances(networks, each, pixels, "identity")[0] for each in (batch, moved))
        mixed, found = preview_distances(detecting, batch, pixels, "identity")
    assert found.tolist() == [True, False]
    torch.testing.assert_close(mixed, torch.stack([by_moved[0], by_target[1]]))


@pytest.mark.parametrize("found", [[True, True], [True, False], [False, False]])
@pytest.mark.parametrize("landmarks", ["detected", "detected_only"])
def test_without_a_face_a_preview_counts_unless_only_detected_ones_do(training, landmarks, found):
    """`detected_only` is the official code's: no face, no signal."""
    batch, draws = drawn(training)
    settings = changed(training.settings, {"lookahead": {"landmarks": landmarks, "weight_by_scale": False}})
    networks = replace(training.networks, detector=Seen(batch.landmarks, found))
    training.optimizer.zero_grad(set_to_none=True)
    detecting = replace(training, settings=settings, networks=networks)
    row = backward_lookahead_loss(detecting, batch, draws.lookahead, {}, 0)
    assert row["found"].item() == sum(found) / 2 and row["distance"] > 0
    counted = landmarks == "detected" or any(found)
    assert (row["loss_lookahead"] > 0) == any(weight.grad.any() for weight in training.weights.values()) == counted
    assert (row["loss_lookahead"] == row["distance"]) == (landmarks == "detected" or all(found))


FUNCTIONS = {
    "density": (DENSITIES, "cosine", lambda strength, timesteps: power_density(3.0, timesteps)),
    "distance": (DISTANCES, "identity", lambda ours, reference: 2 * identity_distance(ours, reference)),
    "preview": (PREVIEWS, "consistency", lambda *given, **options: consistency_stepping(*given, **options) / 2),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_density_distance_or_preview_is_a_function_with_a_name(opened, name, monkeypatch):
    """As docs/changing-the-method.md adds them: entries of dictionaries, whose names the parameters accept."""
    before = figures(opened({}))["loss_lookahead"]
    monkeypatch.setitem(*FUNCTIONS[name])
    assert figures(opened({}))["loss_lookahead"] != before
    pairs = ((DensityName, DENSITIES), (DistanceName, DISTANCES), (PreviewName, PREVIEWS))
    assert all(get_args(names) == tuple(functions) for names, functions in pairs)


def test_the_real_detector_runs_on_previews(opened):
    row = figures(opened({"lookahead": {"landmarks": "detected"}}))
    assert row["found"] in (0, 0.5, 1) and row["loss_lookahead"] > 0


def test_the_centroid_is_the_mean_face_of_a_persons_photos(training):
    store, row = training.store, torch.tensor([5])
    photos = torch.nonzero((store.table.identity == store.table.identity[5]) & store.table.photo).squeeze(1)
    expected = torch.nn.functional.normalize(store.embeddings(photos).mean(0, keepdim=True), dim=1)
    torch.testing.assert_close(store.centroids(row), expected)


def test_alpha_is_redrawn_every_few_optimizer_steps(opened):
    """Not every few micro-batches: of a step, all share one."""
    training = opened({"gradient_accumulation_steps": 3, "lookahead": {"lora_scale": {"redraw_every": 2}}})
    scales = [figures(training, index)["scale"] for index in (0, 2, 3, 5, 6, 8)]
    assert len(set(scales[:4])) == 1 and scales[4] == scales[5] != scales[0]


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_weights(opened):
    training = opened({})
    with torch.no_grad():
        weight = next(p for name, p in training.weights.items() if name.endswith("proj_out.weight"))
        weight.fill_(float("inf"))
    before = {name: p.detach().clone() for name, p in training.weights.items()}
    reason = r"loss_noise is nan at step 5, with the pictures \[.*checkpoint is of step 4.*learning_rate \(0\.001\)"
    with pytest.raises(InputError, match=reason):
        train_step(training, 4)
    assert all(torch.equal(p, before[name]) for name, p in training.weights.items())


def test_a_base_that_predicts_noise_trains_by_the_same_code(opened, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_base(tmp_path / "epsilon", "epsilon")
    training = opened({}, base=str(tmp_path / "epsilon"))
    assert training.networks.schedule.prediction_type == "epsilon"
    row = train_step(training, 0)
    assert all(torch.isfinite(torch.tensor(v)) for name, v in row.items() if not name.startswith("distance_t"))


def test_half_precision_without_loss_scaling_is_refused(opened):
    with pytest.raises(InputError, match="float16"):
        opened({}, precision="float16")
