"""The old network in torch: against plain NumPy, and against what Keras gave."""

from pathlib import Path

import numpy as np
import pytest
import torch
from old_models import SHAPE, forward, random_weights, shapes

from skad.network.dense import (
    DenseAutoencoder,
    from_keras,
    from_state,
    state_shapes,
    train,
)
from skad.network.keras import find_pair, read_pair

OLD_MODEL = Path(__file__).parents[2] / "shared" / "old_model"


def arrays(weights):
    return [array for pair in weights.values() for array in pair]


def draw(n, shape=SHAPE, seed=0):
    """Images (n, H, W, C) in [0, 1]."""
    return np.random.default_rng(seed).random((n, *shape))


def as_tensor(images):
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("shape", [SHAPE, (8, 8, 1), (24, 8, 3)])
def test_it_computes_what_plain_numpy_computes(shape):
    weights = random_weights(shape)
    weights = {k: (3 * kernel, bias) for k, (kernel, bias) in weights.items()}
    network = from_keras(shape, arrays(weights))
    images = draw(3, shape)
    with torch.inference_mode():
        found = network(as_tensor(images)).permute(0, 2, 3, 1).numpy()
    expected = forward(weights, images)
    assert found.shape == images.shape
    assert expected.std() > 0.05  # the images matter
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(not OLD_MODEL.exists(), reason="the real model is not here")
def test_the_real_model_computes_what_keras_computed():
    reference = np.load(OLD_MODEL / "reference.npz")
    network = from_keras(*read_pair(find_pair(OLD_MODEL / "model")))
    with torch.inference_mode():
        found = network(as_tensor(reference["images"][..., None] / 255))[:, 0].numpy()
    np.testing.assert_allclose(found, reference["reconstructions"], atol=1e-4)


def test_every_weight_has_its_place():
    found = list(state_shapes(SHAPE).values())
    expected = []
    for kernel in shapes(SHAPE).values():
        expected += [(kernel[-1], kernel[-2], *kernel[:-2]), kernel[-1:]]
    assert found == expected


def test_a_state_makes_the_same_network_and_none_is_drawn():
    before = torch.get_rng_state()
    network = from_keras(SHAPE, arrays(random_weights()))
    again = from_state(SHAPE, dict(network.state_dict()))
    x = as_tensor(draw(2))
    assert torch.equal(again(x), network(x))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.device.type == "meta" for p in DenseAutoencoder(SHAPE).parameters())


def trained(epochs, seed=0, **options):
    settings = {"epochs": epochs, "batch_size": 4, "learning_rate": 1e-3} | options
    network = from_keras(SHAPE, arrays(random_weights()))
    x = as_tensor(draw(1, seed=5).repeat(10, axis=0))
    generator = torch.Generator().manual_seed(seed)
    losses = train(
        network,
        lambda places: (x[i] for i in places),
        len(x),
        generator=generator,
        **settings,
    )
    return network, list(losses), x


def test_training_makes_the_squared_error_small():
    untrained, losses, x = trained(0)
    assert losses == []
    network, losses, x = trained(20)
    assert len(losses) == 20 * 3  # batches of 4, 4 and 2
    with torch.inference_mode():
        expected = float(((untrained(x) - x) ** 2).mean())
        left = float(((network(x) - x) ** 2).mean())
    assert losses[0] == pytest.approx(expected, rel=1e-4)
    assert left < 0.7 * expected
    assert not network.training


def test_the_first_step_is_adams():
    """Its length is the learning rate, times g / (|g| + 1e-7), for every weight."""
    before, _, x = trained(0)
    (((before(x) - x) ** 2).mean()).backward()
    after, _, _ = trained(1, batch_size=10, learning_rate=0.01)
    for name, weight in before.named_parameters():
        step = 0.01 * weight.grad / (weight.grad.abs() + 1e-7)
        moved = weight - after.get_parameter(name)
        sure = weight.grad.abs() > 1e-6
        torch.testing.assert_close(moved[sure], step[sure], rtol=0.05, atol=1e-6)


def test_equal_seeds_train_equally():
    x = as_tensor(draw(2))
    one, same, other = (trained(1, seed)[0](x) for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert one.shape == other.shape
