"""Simulated defects, pasted into good images: what the anomaly decoder learns from.

A defect has a shape (blob or line), a content (what the shape shows) and a change of
colour, drawn independently of each other. The material comes from the good images
themselves, as in CutPaste [1]_ and NSA [2]_. All windows around defects of about one
size are made at once, for the whole batch.

References
----------
.. [1] Li, C.-L., Sohn, K., Yoon, J., Pfister, T. (2021). CutPaste: self-supervised
   learning for anomaly detection and localization. CVPR, 9664-9674.
.. [2] Schlüter, H. M., Tan, J., Hou, B., Kainz, B. (2022). Natural synthetic anomalies
   for self-supervised anomaly detection and localization. ECCV, 474-489.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from skad.common.torch_settings import limit_threads
from skad.network.random import (
    choose,
    log_uniform,
    normal,
    randint,
    uniform,
    with_chance,
)
from skad.network.windows import (
    Windows,
    cut,
    pixels_at,
    pixelwise,
    place,
    what_is_shown,
)

_FEWEST_ROUNDS = 2  # of every size; in each, half of the images get a defect
_COVERED = 0.06  # of an image, by the windows around the largest defects
_SMALLEST = 2.0  # pixels
_LINE_POINTS = 48
_LATTICE = 16  # side of the random lattice that smooth noise is made from
_PLAIN_TO_SEE = 4.0  # noise levels

# What a defect shows, and how often a blob and a line show it.
_FOREIGN = 0  # a turned and scaled part of another image
_MOVED = 1  # a slightly turned part of this image, from nearby
_BENT = 2  # what is here, slightly turned and shifted
_PLAIN = 3  # one colour that occurs somewhere: a hole
_SHADED = 4  # what is here, in another colour
_FILLED = 5  # what lies around, going on here: something is missing
_BLOB_SHARES = (3.0, 2.0, 2.0, 2.0, 3.0, 3.0)
_LINE_SHARES = (0.0, 0.0, 0.0, 1.0, 3.0, 0.0)


@limit_threads(1)
def simulate(
    images: Tensor,
    patch_sizes: tuple[int, ...],
    noise_level: float,
    rng: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Paste simulated defects into good images.

    Parameters
    ----------
    images : Tensor of shape (n, C, H, W)
        Good images, standardised.
    patch_sizes : tuple of int
        The largest defects, in pixels: sizes run from 2 pixels to one of these, evenly
        on a log scale within an octave; the smaller the octave, the more there are.
    noise_level : float
        What pixels of good images differ by from their neighbourhood.
    rng : torch.Generator

    Returns
    -------
    defective : Tensor of shape (n, C, H, W)
    visibility : Tensor of shape (n, 1, H, W)
        From 0 where nothing can be seen to have changed to 1 where it is plain to see.
    """
    defective = pixelwise(images).clone()
    visibility = torch.zeros_like(defective[:, :1])
    shown = what_is_shown(images)
    height, width = size = (images.shape[2], images.shape[3])
    longest = _window_side(max(patch_sizes))
    for family in _families(torch.tensor(patch_sizes, dtype=images.dtype), max(size)):
        side = _window_side(float(family.largest.max()))
        n_rounds = round(2 * _COVERED * height * width / (longest * side))
        windows = place(shown, size, max(_FEWEST_ROUNDS, n_rounds), side, rng)
        _paste(images, defective, visibility, windows, family, noise_level, rng)
    shape = (len(images), height, width, -1)
    return defective.view(shape).movedim(3, 1), visibility.view(shape).movedim(3, 1)


class _Family(NamedTuple):
    smallest: Tensor  # (p,): sizes in pixels, one a patch size, on the CPU
    largest: Tensor  # (p,)
    lines: bool  # or blobs


def _families(patch_sizes: Tensor, longest: int) -> Iterator[_Family]:
    """Divide defects: blobs of about every octave of sizes, and lines.

    Small blobs need small windows only, so there can be many of them.
    """
    smallest = torch.full_like(patch_sizes, _SMALLEST)
    largest = patch_sizes.clamp(_SMALLEST, max(longest, _SMALLEST))
    n = max(1, round(math.log2(float(largest.max()) / _SMALLEST)))
    ratio = (largest / smallest) ** (1 / n)
    for i in range(n):
        yield _Family(smallest * ratio**i, smallest * ratio ** (i + 1), lines=False)
    yield _Family(smallest, largest, lines=True)


def _window_side(size: float) -> int:
    """Side of the windows around defects of this size."""
    return math.ceil(1.5 * size) + 4


def _paste(
    images: Tensor,
    defective: Tensor,
    visibility: Tensor,
    w: Windows,
    family: _Family,
    noise_level: float,
    rng: torch.Generator,
) -> None:
    """Paste one defect of a family into every window.

    In place: `defective` (pixels, C) and `visibility` (pixels, 1) of all images.
    """
    m, each_round = len(w.image), -(-len(images) // 2)
    scale = randint(m, len(family.largest), rng)
    smallest, largest = (t.to(images.device)[scale] for t in family[:2])
    size = log_uniform(m, smallest, largest, rng)
    shapes = _lines if family.lines else _blobs
    opacity = shapes(size, w.offsets, rng)[:, None]  # m, 1, h, w

    own = pixels_at(images, w.pixels)  # m, C, h, w
    shares = _LINE_SHARES if family.lines else _BLOB_SHARES
    content = _content(images, own, opacity, w, size, shares, rng)
    # What is small is seen as a point, and a line by its length: they count for more.
    plainer = 2 * torch.ones_like(size) if family.lines else (5 / size).clamp(min=1.0)
    seen = _visibility(opacity * (content - own), plainer, noise_level)
    seen = torch.where(opacity > 0.05, seen, 0.0)

    for i in range(0, m, each_round):  # a round at a time: windows may overlap
        k = slice(i, i + each_round)
        pixels, amount = w.pixels[k].flatten(), pixelwise(opacity[k])
        here = defective.index_select(0, pixels)
        mixed = torch.lerp(here, pixelwise(content[k]), amount)
        defective.index_copy_(0, pixels, mixed)
        most = torch.maximum(visibility.index_select(0, pixels), pixelwise(seen[k]))
        visibility.index_copy_(0, pixels, most)


def _blobs(size: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Ellipses with a wavy and more or less soft rim, ``size`` (m,) pixels long."""
    m = len(size)
    u, v = _turn(offsets, uniform(m, 0.0, math.pi, rng))
    flatness = uniform(m, 0.25, 1.0, rng)
    radius = size / 2
    rho = torch.hypot(u / radius[:, None, None], v / (radius * flatness)[:, None, None])
    wave = _smooth_noise((size / 3).clamp(min=1.0), offsets, rng)
    rho = rho * (1 + 0.4 * wave.clamp(-1.5, 1.5))
    softness = log_uniform(m, 0.5, (size / 4).clamp(min=0.6), rng)  # pixels
    depth = (1 - rho) * (radius * flatness.sqrt())[:, None, None]  # pixels
    return torch.sigmoid(4 * depth / softness[:, None, None])


def _lines(size: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Random walks, up to across the window, one to four pixels wide: scratches."""
    m, (h, w) = len(size), offsets.shape[1:3]
    length = log_uniform(m, 6.0, torch.full_like(size, 1.4 * max(h, w)), rng)
    turn = torch.randn(m, _LINE_POINTS, generator=rng, device=rng.device)
    bend = log_uniform(m, 0.01, torch.full_like(length, 0.3), rng)
    start = uniform(m, 0.0, 2 * math.pi, rng)
    heading = start[:, None] + (turn * bend[:, None]).cumsum(1)
    step = (length / _LINE_POINTS)[:, None]
    points = torch.stack([heading.sin() * step, heading.cos() * step], 2).cumsum(1)
    points = points - points.mean(1, keepdim=True)  # m, points, 2
    distance = _distance_to_nearest(offsets, points)
    width = log_uniform(m, 1.0, torch.full_like(length, 4.0), rng)
    return torch.sigmoid(4 * (width[:, None, None] / 2 - distance))


def _distance_to_nearest(offsets: Tensor, points: Tensor) -> Tensor:
    """Return distances (m, h, w) from offsets (m, h, w, 2) to the nearest points."""
    x, y = (along.contiguous() for along in offsets.unbind(3))
    nearest = torch.full_like(x, math.inf)
    for point in points.unbind(1):  # one at a time: all at once take much memory
        to_x, to_y = (c[:, None, None] for c in point.unbind(1))
        square = (x - to_x).square_().add_((y - to_y).square_())
        torch.minimum(nearest, square, out=nearest)
    return nearest.sqrt_()


def _content(
    images: Tensor,
    own: Tensor,
    opacity: Tensor,
    w: Windows,
    size: Tensor,
    shares: tuple[float, ...],
    rng: torch.Generator,
) -> Tensor:
    """Make what the defects show: (m, C, h, w)."""
    m = len(own)
    kind = choose(m, shares, rng)
    shown = own.clone(memory_format=torch.channels_last)
    taken = _where(kind <= _BENT)
    if len(taken):
        there = Windows(*(t[taken] for t in w))
        shown[taken] = _part(images, there, kind[taken], size[taken], rng)
    filled = _where(kind == _FILLED)
    shown[filled] = _fill(own[filled], opacity[filled], size[filled])
    plain = _where(kind == _PLAIN)
    shown[plain] = _any_pixels(images, len(plain), rng)[:, :, None, None]
    recoloured = _where((kind == _SHADED) | with_chance(m, 0.3, rng))
    shown[recoloured] = _recolour(shown[recoloured], rng)
    noisy = _where(with_chance(m, 0.3, rng))
    grain = log_uniform(len(noisy), 1.0, (size[noisy] / 2).clamp(min=1.5), rng)
    loudness = uniform(len(noisy), 0.0, 1.0, rng)
    noise = _smooth_noise(grain, w.offsets[noisy], rng)[:, None]
    shown[noisy] += noise * _each(loudness)
    return shown


def _part(
    images: Tensor, windows: Windows, kind: Tensor, size: Tensor, rng: torch.Generator
) -> Tensor:
    """Take parts (m, C, h, w) of images, from elsewhere or from here."""
    n, _, height, width = images.shape
    m, h, w = windows.pixels.shape
    foreign = kind == _FOREIGN
    donor = torch.where(foreign, randint(m, n, rng), windows.image)
    nearby = (normal(2, m, rng=rng) * size * (kind == _MOVED)).long()
    top = torch.where(foreign, randint(m, height - h + 1, rng), windows.top)
    left = torch.where(foreign, randint(m, width - w + 1, rng), windows.left)
    part = cut(images, donor, top + nearby[0], left + nearby[1], (h, w))
    return _warp(part, windows, ~foreign, rng)


def _fill(patches: Tensor, opacity: Tensor, size: Tensor) -> Tensor:
    """Let what lies around defects go on over them, in patches (m, C, h, w).

    A mean under a bell curve, a third of the defect wide, of what is around it.
    """
    around = 1 - opacity + 1e-4
    weighted = torch.cat([patches * around, around], 1)  # m, C + 1, h, w
    rows, columns = (
        torch.exp(-4.5 * ((at[:, None] - at) / size[:, None, None]).square())[:, None]
        for at in (torch.arange(s, device=size.device) for s in patches.shape[2:])
    )  # m, 1, h, h and m, 1, w, w
    mean = rows @ weighted @ columns
    return mean[:, :-1] / mean[:, -1:]


def _any_pixels(images: Tensor, m: int, rng: torch.Generator) -> Tensor:
    """Return the colours (m, C) of random pixels."""
    pixels = pixelwise(images)
    return pixels[randint(m, len(pixels), rng)]


def _warp(
    patches: Tensor, windows: Windows, slightly: Tensor, rng: torch.Generator
) -> Tensor:
    """Turn, scale and shift patches (m, C, h, w) about the defects' centres."""
    m, _, h, w = patches.shape
    angle = uniform(m, -math.pi, math.pi, rng) * torch.where(slightly, 0.15, 1.0)
    zoom = 2.0 ** (uniform(m, -0.7, 0.7, rng) * torch.where(slightly, 0.4, 1.0))
    u, v = _turn(windows.offsets, angle)
    shift = 2.0 * normal(m, 1, 1, 2, rng=rng) * _each(slightly)
    grid = torch.stack([u, v], 3) * _each(zoom) + windows.centre + shift
    half = torch.tensor([w / 2, h / 2], device=grid.device)
    return F.grid_sample(
        patches, grid / half, padding_mode="reflection", align_corners=False
    )


def _recolour(patches: Tensor, rng: torch.Generator) -> Tensor:
    """Change contrast, brightness and hue of patches (m, C, h, w)."""
    m, c = patches.shape[:2]
    gain = 2.0 ** (0.4 * normal(m, 1, 1, 1, rng=rng))
    shade = normal(m, 1, 1, 1, rng=rng)
    tint = 0.5 * normal(m, c, 1, 1, rng=rng)
    mean = patches.mean((2, 3), keepdim=True)
    return (patches - mean) * gain + mean + shade + tint


def _visibility(change: Tensor, plainer: Tensor, noise_level: float) -> Tensor:
    """Tell how plain a change (m, C, h, w) is to see: (m, 1, h, w), 0 to 1.

    A change that averages out over a few pixels is texture on texture. One that is seen
    better than its size lets expect is ``plainer`` (m,) by this factor.
    """
    c = change.shape[1]
    # A convolution, where the channels come last, is much quicker than pooling.
    mean = change.new_full((c, 1, 5, 5), 1 / 25)
    seen = F.conv2d(change, mean, padding=2, groups=c).abs().amax(1, keepdim=True)
    seen = seen * _each(plainer)
    return (seen / (_PLAIN_TO_SEE * noise_level)).square().clamp(max=1.0)


def _smooth_noise(grain: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Noise (m, h, w), about normal, with a grain of ``grain`` (m,) pixels."""
    lattice = normal(len(grain), 1, _LATTICE, _LATTICE, rng=rng)
    return F.grid_sample(
        lattice,
        offsets / (_LATTICE / 2 * _each(grain)),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )[:, 0]


def _turn(offsets: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x, y = offsets[..., 0], offsets[..., 1]
    return cos * x + sin * y, cos * y - sin * x


def _where(wanted: Tensor) -> Tensor:
    """Return the places (k,) of those of m that are wanted."""
    return wanted.nonzero()[:, 0]


def _each(values: Tensor) -> Tensor:
    """One value (m,) an item, shaped to go with tensors of four axes."""
    return values[:, None, None, None]
