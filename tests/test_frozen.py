"""FrozenEncoder: what it takes, what it gives, and that it never changes."""

import copy
import pickle

import pytest
import torch
from own_encoders import Pyramid, own_encoder
from sklearn.base import clone
from torch import nn

from skad import FrozenEncoder, PatchAutoencoderDetector
from skad.encoders.frozen import check_encoder


class Returning(nn.Module):
    """Returns something."""

    def __init__(self, given):
        super().__init__()
        self.given = given

    def forward(self, x):
        return self.given


def test_layouts_tell_channels_and_strides(lite0):
    assert own_encoder().layout == [(8, 4), (12, 8), (16, 16)]
    assert lite0.layout == [(24, 4), (40, 8), (112, 16), (192, 32)]
    empty = FrozenEncoder.named("efficientnet-lite0", pretrained=False)
    assert empty.layout == lite0.layout
    assert all(p.is_meta for p in empty.parameters())


@pytest.mark.parametrize(
    "given",
    [None, [], torch.ones(1, 8, 32, 32), [torch.ones(1, 8)], {"0": torch.ones(1)}],
)
def test_other_outputs_are_an_error_of_the_fit(given):
    with pytest.raises(ValueError, match=r"must return a list of feature maps.*only="):
        check_encoder(FrozenEncoder(Returning(given)), 3)


def test_images_come_standardised_and_gray_ones_as_colour():
    network, mean, std = Pyramid(), (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)
    x = torch.rand(2, 3, 32, 48)
    with torch.inference_mode():
        found = FrozenEncoder(network, mean, std)(x)
        mean, std = (torch.tensor(v)[:, None, None] for v in (mean, std))
        expected = network((x - mean) / std)
        gray = own_encoder()(x[:, :1])
        same = own_encoder()(x[:, :1].repeat(1, 3, 1, 1))
    for pairs in ((found, expected), (gray, same)):
        assert all(
            torch.allclose(*pair, atol=1e-5) for pair in zip(*pairs, strict=True)
        )


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"network": "resnet18"}, TypeError, r"must be a torch.nn.Module .* got str"),
        ({"mean": 0.5}, ValueError, "mean must be 3 finite numbers; got 0.5"),
        ({"std": (1, 1)}, ValueError, "std must be 3 finite numbers"),
        ({"mean": (0, 0, float("nan"))}, ValueError, "mean must be 3 finite"),
        ({"std": (1, 0, 1)}, ValueError, "std must be 3 numbers > 0"),
    ],
)
def test_wrong_arguments_are_named(options, error, words):
    with pytest.raises(error, match=words):
        FrozenEncoder(**{"network": Pyramid()} | options)


def test_it_stays_frozen_in_evaluation_mode():
    encoder = FrozenEncoder(nn.Sequential(Pyramid(), nn.Dropout()))
    modules = list(nn.Sequential(encoder).train().modules())[1:]
    assert not any(module.training for module in modules)
    assert not any(p.requires_grad for p in encoder.parameters())


def test_copies_have_its_digest_and_others_do_not():
    encoder = own_encoder()
    digest = encoder.digest()
    assert encoder.layout  # which is no part of it
    assert own_encoder().digest() == digest
    detector = PatchAutoencoderDetector(encoder=encoder)
    copies = copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))
    for again in (*copies, clone(detector).encoder):
        assert again is not encoder
        assert again.digest() == digest
    other = own_encoder()
    other.network.convs[0].bias[3] += 1e-3
    for another in (other, own_encoder(1), own_encoder(std=(1, 1, 1))):
        assert another.digest() != digest
