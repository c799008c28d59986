"""The old network in torch: against plain NumPy, and against what Keras computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from old_models import SHAPE, forward, random_weights, write_model

from skad.network.dense import train
from skad.network.keras import read_network

OLD_MODEL = Path(__file__).parents[2] / "shared" / "old_model"


def draw(n, shape=SHAPE, seed=0):
    """Images (n, H, W, C) in [0, 1]."""
    return np.random.default_rng(seed).random((n, *shape))


def as_tensor(images):
    return torch.from_numpy(images.astype(np.float32)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("shape", [SHAPE, (24, 8, 3)])
def test_it_computes_what_plain_numpy_computes(tmp_path, shape):
    network = read_network(write_model(tmp_path / "m", shape))
    weights = {k: (3 * kernel, b) for k, (kernel, b) in random_weights(shape).items()}
    images = draw(3, shape)
    with torch.no_grad():
        for kernel in (p for p in network.parameters() if p.ndim > 1):
            kernel *= 3  # else all images come to much the same
        found = network(as_tensor(images)).permute(0, 2, 3, 1).numpy()
    expected = forward(weights, images)
    assert found.shape == images.shape
    assert expected.std() > 0.05
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.skipif(not OLD_MODEL.exists(), reason="the real model is not here")
def test_the_real_model_computes_what_keras_computed():
    reference = np.load(OLD_MODEL / "reference.npz")
    network = read_network(OLD_MODEL / "model")
    with torch.inference_mode():
        found = network(as_tensor(reference["images"][..., None] / 255))[:, 0].numpy()
    np.testing.assert_allclose(found, reference["reconstructions"], atol=1e-4)


def test_the_first_step_is_adams(tmp_path):
    """Its length is the learning rate, times g / (|g| + 1e-7), for every weight."""
    before, after = (read_network(write_model(tmp_path / "m")) for _ in "ab")
    x = as_tensor(draw(1, seed=5).repeat(10, axis=0))
    loss, state = ((before(x) - x) ** 2).mean(), torch.get_rng_state()
    loss.backward()
    history = train(
        after,
        lambda places: (x[i] for i in places),
        len(x),
        epochs=1,
        batch_size=10,
        learning_rate=0.01,
        generator=torch.Generator().manual_seed(0),
    )
    assert torch.equal(torch.get_rng_state(), state)
    assert [epoch["loss"] for epoch in history] == [pytest.approx(loss.item())]
    for name, weight in before.named_parameters():
        step = 0.01 * weight.grad / (weight.grad.abs() + 1e-7)
        moved = weight - after.get_parameter(name)
        sure = weight.grad.abs() > 1e-6
        torch.testing.assert_close(moved[sure], step[sure], rtol=0.05, atol=1e-6)
