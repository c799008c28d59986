"""Measure what 8-bit integers would save on the CPU: python THIS_FILE.

Compares the encoder, with random weights, with the same encoder in 8 bits (batch
normalisation folded into the convolutions). The ratio is the median over alternating
calls on one image of 256 x 256 with one thread. The error is that of the last features,
as a share of their standard deviation; ranges come from the same image.
"""

import copy
import warnings
from functools import partial

import torch
from speed import Ratio, measure
from torch import nn
from torch.ao import quantization

from skad.network.model import new_network

ROUNDS = 25


def in_eight_bits(encoder: nn.Module, x: torch.Tensor) -> nn.Module:
    """Return a copy that computes in 8 bits, with the ranges of what x gives."""
    quantized = nn.Sequential(
        quantization.QuantStub(), copy.deepcopy(encoder), quantization.DeQuantStub()
    ).eval()
    for block in list(quantized.modules()):
        if isinstance(block, nn.Sequential) and isinstance(block[0], nn.Conv2d):
            quantization.fuse_modules(block, ["0", "1", "2"], inplace=True)
    engine = torch.backends.quantized.engine
    quantized.qconfig = quantization.get_default_qconfig(engine)
    quantization.prepare(quantized, inplace=True)
    quantized(x)
    return quantization.convert(quantized, inplace=True)


@torch.inference_mode()
def main() -> None:
    """Print the ratio and the error."""
    warnings.simplefilter("ignore")  # torch will drop these functions
    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    network = new_network(3, generator).eval()
    encoder = nn.Sequential(
        network.down2, network.down4, network.down8, network.down16
    ).eval()
    x = torch.randn(1, 3, 256, 256, generator=generator)
    x = x.contiguous(memory_format=torch.channels_last)
    quantized = in_eight_bits(encoder, x)
    name = "encoder in float32 / in 8 bits"
    ratio = Ratio(name, partial(encoder, x), partial(quantized, x))
    print(f"{name}: {measure(ratio, ROUNDS)[0]:.1f}")
    features = encoder(x)
    error = float((quantized(x) - features).std() / features.std())
    print(f"error of the last features: {error:.3f} of their standard deviation")


if __name__ == "__main__":
    main()
