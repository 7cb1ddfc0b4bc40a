"""The two passes on the tiny world: who gets gradients, what they see, and that they teach."""

from dataclasses import replace

import pytest
import torch
from lookahead.training.batches import Batch, with_drops
from lookahead.training.draws import Draws, draw_both, generator_for
from lookahead.training.setup import Training, open_training
from lookahead.training.step import lookahead_pass, noise_pass, preview_pass, reference_pass
from lookahead.training.update import train_step

from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.models.adapter import adapter_parameters
from lookahead.models.alignment import align
from lookahead.training.losses import Row, draw_index, lookahead_step, micro_step, noise_step, read
from lookahead.training.networks import open_networks
from tests.tiny import save_base
from tests.training.conftest import changed


def opened(world: Checkpoints, settings: Train, features) -> Training:
    return open_training(world, settings, features)


def drawn(training: Training, index: int = 0) -> tuple[Batch, Draws]:
    batch = draw_index(training, index)
    return batch, draw_both(batch.latents.shape, training.settings, training.timesteps, 0.0, index)


@pytest.fixture(scope="module")
def training(tiny_world, features, settings) -> Training:
    """Shared by tests that leave weights alone; they clear gradients themselves."""
    return opened(tiny_world, settings, features)


@pytest.mark.parametrize("kv", [False, True])
def test_exactly_the_intended_parameters_get_gradients(tiny_world, features, settings, kv):
    """The adapter and the LoRAs of the KV-encoder: each gets some, and nothing else gets any."""
    training = opened(tiny_world, changed(settings, {"kv": {"enabled": kv}}), features)
    micro_step(training, 0, 0.0)
    trained = {id(p) for p in training.weights.values()}
    assert any(name.startswith("kv.") for name in training.weights) == kv
    networks = training.networks
    others = [*networks.unet.parameters(), *networks.preview_vae.parameters(), *networks.recogniser.parameters()]
    if networks.kv is not None:
        others += [*networks.kv.unet.parameters(), *networks.kv.shared.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in others if id(p) not in trained)
    assert all(p.grad is not None for p in training.weights.values())


@pytest.mark.parametrize("loss", ["noise", "lookahead"])
def test_each_loss_reaches_every_weight_of_the_adapter(training, loss):
    training.optimiser.zero_grad(set_to_none=True)
    batch, draws = drawn(training)
    if loss == "noise":
        noise_step(training, batch, draws.noise, {}, 0)
    else:
        lookahead_step(training, batch, draws.lookahead, {}, 0)
    idle = [name for name, p in training.weights.items() if p.grad is None or p.grad.abs().sum() == 0]
    assert idle == []


def without_lookahead(settings: Train) -> Train:
    return changed(settings, {"lookahead": {"weight": 0.0}})


def test_variants_share_pairs_timesteps_and_noise(tiny_world, features, settings, training):
    """The noise loss of the first step is the same number, to the last bit."""
    alone = opened(tiny_world, without_lookahead(settings), features)
    training.optimiser.zero_grad(set_to_none=True)
    first, second = (read([micro_step(each, 3, 0.0)])[0] for each in (alone, training))
    assert first == {name: second[name] for name in first}
    assert {"loss_lookahead", "distance", "scale", "t_lookahead", "distance_t0"} <= set(second) - set(first)


def test_dropping_hides_the_reference_or_the_prompt(training):
    batch, draws = drawn(training)
    for drop in ("image_drop", "text_drop"):
        settings = changed(training.settings, {"image_drop": 0.0, "text_drop": 0.0, drop: 0.5})
        condition = with_drops(training.store, batch.condition, settings, generator_for("x", 0, 24))
        same = (condition.image == batch.condition.image).flatten(1).all(1)
        told = (condition.prompt.tokens == batch.condition.prompt.tokens).flatten(1).all(1)
        kept, whole = (same, told) if drop == "image_drop" else (told, same)
        assert kept.tolist() == [True, False] and whole.all()  # what this seed draws
        with torch.no_grad():
            losses = noise_pass(training.networks, batch, draws.noise, condition)
            full = noise_pass(training.networks, batch, draws.noise, batch.condition)
        assert losses[0] == pytest.approx(full[0].item(), rel=1e-5) and losses[1] != full[1]


def gradients(world, settings, features) -> dict[str, torch.Tensor]:
    training = opened(world, settings, features)
    micro_step(training, 1, 0.0)
    return {name: p.grad for name, p in training.weights.items()}


@pytest.mark.parametrize("loss", [0.0, 1.0])
@pytest.mark.parametrize("kv", [False, True])
def test_gradients_are_equal_with_checkpointing(tiny_world, features, settings, kv, loss):
    """Noise loss alone, then both. With `backward()` moved out of `child_at` or of `appended`, torch raises a
    CheckpointError: the recomputation sees other layers. With the strength alone restored too early, nothing is
    raised and the gradients are wrong (tests/models/test_fast_child.py)."""
    base = changed(settings, {"kv": {"enabled": kv}, "lookahead": {"weight": loss}})
    plain = gradients(tiny_world, base, features)
    training = opened(tiny_world, changed(base, {"gradient_checkpointing": True}), features)
    micro_step(training, 1, 0.0)
    checkpointed = {name: p.grad for name, p in training.weights.items()}
    assert training.networks.kv is None or not training.networks.kv.bank, "what ran again was kept"
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_the_memory_format_of_convolutions_changes_no_gradient(tiny_world, features, with_kv):
    training = opened(tiny_world, changed(with_kv, {"channels_last": True}), features)
    weight = training.networks.unet.conv_in.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) and not weight.is_contiguous()
    plain, other = (gradients(tiny_world, changed(with_kv, {"channels_last": on}), features) for on in (False, True))
    for name, gradient in plain.items():
        torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_one_pass_of_the_kv_encoder_equals_one_for_each_loss(tiny_world, features, with_kv):
    """Shared timesteps: both losses on one set of keys and values, against two passes with the very same draws."""
    shared = changed(with_kv, {"share_timesteps": True, "kv": {"token_drop": 0.0}})
    together = gradients(tiny_world, shared, features)
    training = opened(tiny_world, shared, features)
    batch, draws = drawn(training, 1)
    with reference_pass(training.networks, batch, draws.noise) as leaves:
        noise_step(training, batch, draws.noise, leaves, 1)
    with reference_pass(training.networks, batch, draws.lookahead) as leaves:
        lookahead_step(training, batch, draws.lookahead, leaves, 1)
    for name, weight in training.weights.items():
        torch.testing.assert_close(together[name], weight.grad, rtol=1e-3, atol=1e-6, msg=name)


def figures(world, settings, features, changes) -> Row:
    return read([micro_step(opened(world, changed(settings, changes), features), 0, 0.0)])[0]


def test_naive_preview_is_the_child_at_strength_0(tiny_world, features, settings):
    def distance(model: str, low: float) -> float:
        scale = {"low": low, "high": low, "probability_of_one": 0.0}
        return figures(
            tiny_world, settings, features, {"lookahead": {"preview": {"model": model}, "lora_scale": scale}}
        )["distance"]

    assert distance("naive", 0.7) == distance("lcm", 0.0) != distance("lcm", 0.7)


@pytest.mark.parametrize(
    "preview",
    [
        {"boundary": True},
        {"steps": 3, "gradient_steps": 1},
        {"steps": 3, "gradient_steps": 3},
        {"start": "noise"},
        {"start": "noise", "steps": 2, "gradient_steps": 2},
    ],
)
def test_every_preview_teaches(tiny_world, features, settings, preview):
    """Each is another preview than the paper's, and its gradient lowers the distance on its own micro-batch."""
    training = opened(tiny_world, changed(settings, {"batch": 8, "lookahead": {"preview": preview}}), features)
    batch, draws = drawn(training)
    distances = []
    for _ in range(6):
        training.optimiser.zero_grad(set_to_none=True)
        distances.append(lookahead_step(training, batch, draws.lookahead, {}, 0)["distance"].item())
        training.optimiser.step()
    assert distances[-1] < distances[0]


def test_previews_from_noise_do_not_see_the_target(tiny_world, features, settings):
    training = opened(tiny_world, changed(settings, {"lookahead": {"preview": {"start": "noise"}}}), features)
    batch, draws = drawn(training)
    other = Batch(**{**vars(batch), "latents": batch.latents + 1})
    preview = training.settings.lookahead.preview
    with torch.no_grad():
        first, second = (
            preview_pass(training.networks, b, draws.lookahead, preview, generator_for("x", 0, 0))
            for b in (batch, other)
        )
    assert torch.equal(first, second)


def test_the_distance_to_the_own_picture_is_zero_and_bounded(training):
    """D of Eq. 4: nothing for the picture that the wanted face was read from, at most 2 for any other."""
    batch, _ = drawn(training)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        wanted = training.networks.recogniser(align(pixels, batch.landmarks))
        same, opposite = (replace(batch, embeddings=embeddings) for embeddings in (wanted, -wanted))
        distance, counts = lookahead_pass(training.networks, same, pixels, "identity")
        far, _ = lookahead_pass(training.networks, opposite, pixels, "identity")
    torch.testing.assert_close(distance, torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(far, torch.full((2,), 2.0), atol=1e-5, rtol=0)
    assert counts.all()


class Seen:
    """Stands where the detector does in this one test of what follows from its answer: a face in the first picture."""

    def __init__(self, landmarks):
        self.landmarks = landmarks

    def __call__(self, pixels):
        found = torch.arange(len(pixels)) == 0
        return self.landmarks * found[:, None, None], found


def test_where_no_face_is_found_the_targets_landmarks_serve(training):
    networks = training.networks
    batch, _ = drawn(training)
    pixels = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    moved = Batch(**{**vars(batch), "landmarks": batch.landmarks + 4})
    with torch.no_grad():
        by_target, _ = lookahead_pass(networks, batch, pixels, "identity")
        by_moved, _ = lookahead_pass(networks, moved, pixels, "identity")
        detecting = type(networks)(**{**vars(networks), "detector": Seen(batch.landmarks + 4)})
        mixed, found = lookahead_pass(detecting, batch, pixels, "identity")
    assert found.tolist() == [True, False]
    torch.testing.assert_close(mixed, torch.stack([by_moved[0], by_target[1]]))


@pytest.mark.parametrize("landmarks", ["detected", "detected_only"])
def test_the_real_detector_runs_on_previews(tiny_world, features, settings, landmarks):
    row = figures(tiny_world, settings, features, {"lookahead": {"landmarks": landmarks}})
    assert 0 <= row["found"] <= 1
    if landmarks == "detected_only" and row["found"] == 0:
        assert row["loss_lookahead"] == 0  # as the official code: no face, no signal


def test_the_centroid_is_the_mean_face_of_a_persons_photos(training):
    store, row = training.store, torch.tensor([5])
    photos = torch.nonzero((store.table.identity == store.table.identity[5]) & store.table.photo).squeeze(1)
    expected = torch.nn.functional.normalize(store.embeddings(photos).mean(0, keepdim=True), dim=1)
    torch.testing.assert_close(store.centroids(row), expected)


def test_timesteps_of_the_curves(training):
    batch, draws = drawn(training)
    row = lookahead_step(training, batch, draws.lookahead, {}, 0)
    bins = (draws.lookahead.t * 4 // 1000).tolist()
    seen = [not row[f"distance_t{number}"].isnan() for number in range(4)]
    assert seen == [number in bins for number in range(4)]


def test_steps_lower_the_identity_distance_of_a_fixed_batch(tiny_world, features, settings):
    """The gradient points where previews look more like the reference: ten steps on one micro-batch show it."""
    training = opened(tiny_world, changed(settings, {"batch": 8}), features)
    batch, draws = drawn(training)
    distances = []
    for _ in range(10):
        training.optimiser.zero_grad(set_to_none=True)
        distances.append(lookahead_step(training, batch, draws.lookahead, {}, 0)["distance"].item())
        training.optimiser.step()
    assert distances[1] < distances[0] and distances[-1] < distances[0] - 1e-3


def test_one_step_changes_the_adapter_and_nothing_else(tiny_world, features, settings):
    training = opened(tiny_world, settings, features)
    before = {name: p.detach().clone() for name, p in training.networks.unet.named_parameters()}
    train_step(training, 0)
    trained = {id(p) for p in adapter_parameters(training.networks.unet).values()}
    for name, p in training.networks.unet.named_parameters():
        assert torch.equal(p, before[name]) != (id(p) in trained), name


def test_a_loss_that_is_not_finite_names_the_step_and_leaves_the_weights(tiny_world, features, settings):
    training = opened(tiny_world, settings, features)
    with torch.no_grad():
        weight = next(p for name, p in training.weights.items() if name.endswith("proj_out.weight"))
        weight.fill_(float("inf"))
    before = {name: p.detach().clone() for name, p in training.weights.items()}
    with pytest.raises(
        InputError,
        match=r"loss_noise is nan at step 5, with the pictures \[.*checkpoint is of step 4.*learning_rate \(0\.001\)",
    ):
        train_step(training, 4)
    assert all(torch.equal(p, before[name]) for name, p in training.weights.items())


def test_a_base_that_predicts_noise_trains_by_the_same_code(own_world, features, settings, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_base(tmp_path / "epsilon", "epsilon")
    training = opened(own_world.model_copy(update={"base": str(tmp_path / "epsilon")}), settings, features)
    assert training.networks.schedule.prediction_type == "epsilon"
    row = train_step(training, 0)
    assert all(torch.isfinite(torch.tensor(v)) for name, v in row.items() if not name.startswith("distance_t"))


def test_half_precision_without_loss_scaling_is_refused(tiny_world, settings):
    with pytest.raises(InputError, match="float16"):
        open_networks(tiny_world.model_copy(update={"precision": "float16"}), settings)


@pytest.mark.parametrize("kv", [False, True])
def test_bfloat16_keeps_what_is_trained_in_float32(tiny_world, features, settings, kv):
    settings = changed(settings, {"kv": {"enabled": kv}})
    training = opened(tiny_world.model_copy(update={"precision": "bfloat16"}), settings, features)
    assert training.networks.unet.conv_in.weight.dtype == torch.bfloat16
    before = {name: p.detach().clone() for name, p in training.weights.items()}
    train_step(training, 0)
    assert all(p.dtype == torch.float32 for p in training.weights.values())
    assert any(not torch.equal(p, before[name]) for name, p in training.weights.items())
