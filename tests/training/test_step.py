"""The two passes on the tiny world: who gets gradients, what they see, and that they teach."""

import pytest
import torch

from lookahead.config import Checkpoints, Train
from lookahead.errors import InputError
from lookahead.models.adapter import adapter_parameters
from lookahead.training.batches import draw_batch, no_image, without_some
from lookahead.training.draws import draw_noise, generator_for
from lookahead.training.networks import open_networks
from lookahead.training.step import noise_pass
from lookahead.training.update import Training, lookahead_step, micro_step, noise_step, open_training, train_step
from tests.tiny import save_base


def opened(world: Checkpoints, settings: Train, features, variant="lookahead") -> Training:
    return open_training(world, settings, variant, features)


@pytest.fixture(scope="module")
def training(tiny_world, features, settings) -> Training:
    """Shared by tests that leave weights alone; they clear gradients themselves."""
    return opened(tiny_world, settings, features)


def test_only_the_adapter_gets_gradients(training):
    training.optimiser.zero_grad(set_to_none=True)
    micro_step(training, 0)
    trained = {id(p) for p in training.weights.values()}
    networks = training.networks
    others = [*networks.unet.parameters(), *networks.preview_vae.parameters(), *networks.recogniser.parameters()]
    others += [*training.pipe.vae.parameters(), *training.pipe.text_encoder.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in others if id(p) not in trained)
    assert all(p.grad is not None for p in training.weights.values())


@pytest.mark.parametrize("step", [noise_step, lookahead_step])
def test_each_loss_reaches_every_weight_of_the_adapter(training, step):
    training.optimiser.zero_grad(set_to_none=True)
    step(training, draw_batch(training.store, 2, generator_for("pairs", 0, 0)), 0)
    idle = [name for name, p in training.weights.items() if p.grad is None or p.grad.abs().sum() == 0]
    assert idle == []


def test_variants_share_pairs_timesteps_and_noise(tiny_world, features, settings, training):
    """The noise loss of the first step is the same number, to the last bit."""
    alone = opened(tiny_world, settings, features, "noise_only")
    training.optimiser.zero_grad(set_to_none=True)
    first, second = micro_step(alone, 3), micro_step(training, 3)
    assert first == {name: second[name] for name in first}
    assert set(second) - set(first) == {"loss_lookahead", "distance", "scale", "t_lookahead"}


def test_dropping_all_image_tokens_hides_the_reference(training):
    batch = draw_batch(training.store, 2, generator_for("pairs", 0, 0))
    draw = draw_noise(batch.latents, training.noise_density, generator_for("noise_pass", 0, 0))
    null = no_image(training.store)
    dropped = without_some(batch.image_features, null, torch.tensor([True, False]).view(2, 1, 1))
    assert torch.equal(dropped[0], batch.image_features[0]) and torch.equal(dropped[1], null[0])
    with torch.no_grad():
        losses = noise_pass(training.networks, batch, draw, dropped)
        whole = noise_pass(training.networks, batch, draw, batch.image_features)
    assert losses[0] == pytest.approx(whole[0].item(), rel=1e-5) and losses[1] != whole[1]


def gradients(world, settings, features) -> dict[str, torch.Tensor]:
    training = opened(world, settings, features)
    micro_step(training, 1)
    return {name: p.grad for name, p in training.weights.items()}


def test_gradients_are_equal_with_checkpointing(tiny_world, features, settings):
    plain = gradients(tiny_world, settings, features)
    checkpointed = gradients(tiny_world, settings.model_copy(update={"gradient_checkpointing": True}), features)
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-3, atol=1e-6, msg=name)


def test_naive_preview_is_the_child_at_strength_0(tiny_world, features, settings):
    def distance(preview, low):
        scale = settings.lookahead.lora_scale.model_copy(update={"low": low, "high": low, "probability_of_one": 0.0})
        lookahead = settings.lookahead.model_copy(update={"preview": preview, "lora_scale": scale})
        training = opened(tiny_world, settings.model_copy(update={"lookahead": lookahead}), features)
        return micro_step(training, 0)["distance"]

    assert distance("naive", 0.7) == distance("lcm", 0.0) != distance("lcm", 0.7)


def test_steps_lower_the_identity_distance_of_a_fixed_batch(tiny_world, features, settings):
    """The gradient points where previews look more like the reference: ten steps on one micro-batch show it."""
    training = opened(tiny_world, settings, features)
    batch = draw_batch(training.store, 8, generator_for("pairs", 0, 0))
    distances = []
    for _ in range(10):
        training.optimiser.zero_grad(set_to_none=True)
        distances.append(lookahead_step(training, batch, 0)["distance"])
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
    with pytest.raises(InputError, match=r"loss_noise is nan at step 5.*train\.learning_rate \(0\.001\)"):
        train_step(training, 4)
    assert all(torch.equal(p, before[name]) for name, p in training.weights.items())


def test_a_base_that_predicts_noise_trains_by_the_same_code(own_world, features, settings, tmp_path):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_base(tmp_path / "epsilon", "epsilon")
    training = opened(own_world.model_copy(update={"base": str(tmp_path / "epsilon")}), settings, features)
    assert training.networks.schedule.prediction_type == "epsilon"
    row = train_step(training, 0)
    assert all(torch.isfinite(torch.tensor(value)) for value in row.values())


def test_half_precision_without_loss_scaling_is_refused(tiny_world):
    with pytest.raises(InputError, match="float16"):
        open_networks(tiny_world.model_copy(update={"precision": "float16"}), False)


def test_bfloat16_keeps_the_adapter_in_float32(tiny_world, features, settings):
    training = opened(tiny_world.model_copy(update={"precision": "bfloat16"}), settings, features)
    assert training.networks.unet.conv_in.weight.dtype == torch.bfloat16
    before = {name: p.detach().clone() for name, p in training.weights.items()}
    train_step(training, 0)
    assert all(p.dtype == torch.float32 for p in training.weights.values())
    assert any(not torch.equal(p, before[name]) for name, p in training.weights.items())
