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

_FEWEST_ROUNDS = 2  # of every size; in each, half of the images get a defect
_COVERED = 0.06  # of an image, by the windows around the largest defects
_SMALLEST = 2.0  # pixels
_LINE_POINTS = 48
_GRID = 32  # cells along each side of an image that defects are placed in
_LATTICE = 16  # side of the random lattice that smooth noise is made from
_PLAIN_TO_SEE = 4.0  # noise levels

# What a defect shows, and how often a blob and a line show it.
_FOREIGN = 0  # a turned and scaled part of another image
_MOVED = 1  # a slightly turned part of this image, from nearby
_BENT = 2  # what is here, slightly turned and shifted
_PLAIN = 3  # one colour that occurs somewhere: a hole, a missing part
_SHADED = 4  # what is here, in another colour
_BLOB_SHARES = (3.0, 2.0, 2.0, 2.0, 3.0)
_LINE_SHARES = (0.0, 0.0, 0.0, 1.0, 3.0)


class _Windows(NamedTuple):
    image: Tensor  # (m,): which image each lies in
    top: Tensor  # (m,)
    left: Tensor  # (m,)
    shape: tuple[int, int]
    centre: Tensor  # (m, 1, 1, 2): x and y of the defect, from the window's middle
    offsets: Tensor  # (m, h, w, 2): x and y of the pixels, from the defect


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
    defective = images.clone(memory_format=torch.channels_last)
    visibility = images.new_zeros(len(images), 1, *images.shape[2:])
    shown = _what_is_shown(images)
    height, width = size = (images.shape[2], images.shape[3])
    longest = _window_side(max(patch_sizes))
    for family in _families(images.new_tensor(patch_sizes), max(size)):
        side = _window_side(float(family.largest.max()))
        n_rounds = round(2 * _COVERED * height * width / (longest * side))
        windows = _windows(shown, size, max(_FEWEST_ROUNDS, n_rounds), side, rng)
        _paste(images, defective, visibility, windows, family, noise_level, rng)
    return defective, visibility


class _Family(NamedTuple):
    smallest: Tensor  # (p,): sizes in pixels, one a patch size
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
    w: _Windows,
    family: _Family,
    noise_level: float,
    rng: torch.Generator,
) -> None:
    """Paste one defect of a family into every window, in place."""
    m, each_round = len(w.image), -(-len(images) // 2)
    scale = _randint(m, len(family.largest), rng)
    size = _log_uniform(m, family.smallest[scale], family.largest[scale], rng)
    shapes = _lines if family.lines else _blobs
    opacity = shapes(size, w.offsets, rng)[:, None]  # m, 1, h, w

    own = cut(images, w.image, w.top, w.left, w.shape)  # m, C, h, w
    shares = _LINE_SHARES if family.lines else _BLOB_SHARES
    content = _content(images, own, w, size, shares, rng)
    # What is small is seen as a point, and a line by its length: they count for more.
    plainer = 2 * torch.ones_like(size) if family.lines else (5 / size).clamp(min=1.0)
    seen = _visibility(opacity * (content - own), plainer, noise_level)
    seen = torch.where(opacity > 0.05, seen, 0.0)

    rows, columns = _window_index(
        (images.shape[2], images.shape[3]), w.top, w.left, w.shape
    )
    for i in range(0, m, each_round):  # a round at a time: windows may overlap
        k = slice(i, i + each_round)
        index = (w.image[k, None, None], slice(None), rows[k], columns[k])
        here = defective[index]  # n / 2, h, w, C
        shown = content[k].movedim(1, -1)
        defective[index] = here + opacity[k].movedim(1, -1) * (shown - here)
        visibility[index] = torch.maximum(visibility[index], seen[k].movedim(1, -1))


def cut(
    images: Tensor, which: Tensor, top: Tensor, left: Tensor, shape: tuple[int, int]
) -> Tensor:
    """Cut windows (m, C, h, w) out of images; beyond the edge, the edge goes on."""
    size = (images.shape[2], images.shape[3])
    rows, columns = _window_index(size, top, left, shape)
    return images[which[:, None, None], :, rows, columns].movedim(-1, 1)


def _windows(
    shown: Tensor, size: tuple[int, int], n_rounds: int, side: int, rng: torch.Generator
) -> _Windows:
    """Place defects in half of the images a round, windows around them."""
    n = len(shown)
    orders = (
        torch.randperm(n, generator=rng, device=rng.device) for _ in range(n_rounds)
    )
    image = torch.cat([order[: -(-n // 2)] for order in orders])
    shape = (min(side, size[0]), min(side, size[1]))
    y, x = (torch.arange(s, device=rng.device) - (s - 1) / 2 for s in shape)
    pixels = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # h, w, 2
    row, column = _places(shown[image], size, rng)
    top = (row - shape[0] // 2).clamp(0, size[0] - shape[0])
    left = (column - shape[1] // 2).clamp(0, size[1] - shape[1])
    centre = torch.stack([column - left + x[0], row - top + y[0]], 1)[:, None, None]
    return _Windows(image, top, left, shape, centre, pixels - centre)


def _what_is_shown(images: Tensor) -> Tensor:
    """Tell how much coarse cells differ from the margin of their image: (n, h, w).

    Parts on a plain background do, and what is to be inspected is there.
    """
    rows, columns = (
        torch.linspace(0, side - 1, min(_GRID, side), device=images.device).long()
        for side in images.shape[2:]
    )
    cells = images[:, :, rows][..., columns]  # n, C, h, w: a pixel stands for a cell
    edges = [cells[:, :, 0], cells[:, :, -1], cells[..., 0], cells[..., -1]]
    margin = torch.cat(edges, 2).median(2).values[:, :, None, None]
    shown = (cells - margin).abs().mean(1)
    return shown + 1e-3 * (1 + shown.mean((1, 2), keepdim=True))


def _places(
    shown: Tensor, size: tuple[int, int], rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw rows and columns (m,): half of them anywhere, half by what is shown."""
    m, height, width = shown.shape
    cell = torch.multinomial(shown.flatten(1), 1, generator=rng)[:, 0]
    anywhere = _with_chance(m, 0.5, rng)

    def along(side: int, at: Tensor, n_cells: int) -> Tensor:
        within = ((at + _uniform(m, 0.0, 1.0, rng)) * (side / n_cells)).long()
        return torch.where(anywhere, _randint(m, side, rng), within.clamp(max=side - 1))

    return along(size[0], cell // width, height), along(size[1], cell % width, width)


def _window_index(
    size: tuple[int, int], top: Tensor, left: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    rows = top[:, None] + torch.arange(shape[0], device=top.device)  # m, h
    columns = left[:, None] + torch.arange(shape[1], device=top.device)  # m, w
    rows, columns = rows.clamp(0, size[0] - 1), columns.clamp(0, size[1] - 1)
    return rows[:, :, None], columns[:, None, :]


def _blobs(size: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Ellipses with a wavy and more or less soft rim, ``size`` (m,) pixels long."""
    m = len(size)
    u, v = _turn(offsets, _uniform(m, 0.0, math.pi, rng))
    flatness = _uniform(m, 0.25, 1.0, rng)
    radius = size / 2
    rho = torch.hypot(u / radius[:, None, None], v / (radius * flatness)[:, None, None])
    wave = _smooth_noise((size / 3).clamp(min=1.0), offsets, rng)
    rho = rho * (1 + 0.4 * wave.clamp(-1.5, 1.5))
    softness = _log_uniform(m, 0.5, (size / 4).clamp(min=0.6), rng)  # pixels
    depth = (1 - rho) * (radius * flatness.sqrt())[:, None, None]  # pixels
    return torch.sigmoid(4 * depth / softness[:, None, None])


def _lines(size: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Random walks, up to across the window, one to four pixels wide: scratches."""
    m, (h, w) = len(size), offsets.shape[1:3]
    length = _log_uniform(m, 6.0, torch.full_like(size, 1.4 * max(h, w)), rng)
    turn = torch.randn(m, _LINE_POINTS, generator=rng, device=rng.device)
    bend = _log_uniform(m, 0.01, torch.full_like(length, 0.3), rng)
    start = _uniform(m, 0.0, 2 * math.pi, rng)
    heading = start[:, None] + (turn * bend[:, None]).cumsum(1)
    step = (length / _LINE_POINTS)[:, None]
    points = torch.stack([heading.sin() * step, heading.cos() * step], 2).cumsum(1)
    points = points - points.mean(1, keepdim=True)  # m, points, 2
    distance = torch.cdist(offsets.reshape(m, h * w, 2), points).amin(2)
    width = _log_uniform(m, 1.0, torch.full_like(length, 4.0), rng)
    return torch.sigmoid(4 * (width[:, None] / 2 - distance)).reshape(m, h, w)


def _content(
    images: Tensor,
    own: Tensor,
    windows: _Windows,
    size: Tensor,
    shares: tuple[float, ...],
    rng: torch.Generator,
) -> Tensor:
    """Make what the defects show: (m, C, h, w)."""
    n, _, height, width = images.shape
    m, (h, w) = len(own), windows.shape
    kind = _choose(m, shares, rng)
    foreign, moved, shaded = kind == _FOREIGN, kind == _MOVED, kind == _SHADED
    donor = torch.where(foreign, _randint(m, n, rng), windows.image)
    nearby = (_normal(2, m, rng=rng) * size * moved).long()
    top = torch.where(foreign, _randint(m, height - h + 1, rng), windows.top)
    left = torch.where(foreign, _randint(m, width - w + 1, rng), windows.left)
    source = cut(images, donor, top + nearby[0], left + nearby[1], (h, w))
    source = _warp(source, windows, ~foreign, rng)
    pixel = images[
        _randint(m, n, rng), :, _randint(m, height, rng), _randint(m, width, rng)
    ]
    source = torch.where(_each(kind == _PLAIN), pixel[:, :, None, None], source)
    source = torch.where(_each(shaded), own, source)
    recoloured = _each(shaded | _with_chance(m, 0.3, rng))
    source = torch.where(recoloured, _recolour(source, rng), source)
    grain = _log_uniform(m, 1.0, (size / 2).clamp(min=1.5), rng)
    noise = _smooth_noise(grain, windows.offsets, rng)[:, None]
    loudness = _uniform(m, 0.0, 1.0, rng) * _with_chance(m, 0.3, rng)
    return source + noise * _each(loudness)


def _warp(
    patches: Tensor, windows: _Windows, slightly: Tensor, rng: torch.Generator
) -> Tensor:
    """Turn, scale and shift patches (m, C, h, w) about the defects' centres."""
    m, _, h, w = patches.shape
    angle = _uniform(m, -math.pi, math.pi, rng) * torch.where(slightly, 0.15, 1.0)
    zoom = 2.0 ** (_uniform(m, -0.7, 0.7, rng) * torch.where(slightly, 0.4, 1.0))
    u, v = _turn(windows.offsets, angle)
    shift = 2.0 * _normal(m, 1, 1, 2, rng=rng) * _each(slightly)
    grid = torch.stack([u, v], 3) * _each(zoom) + windows.centre + shift
    half = torch.tensor([w / 2, h / 2], device=grid.device)
    return F.grid_sample(
        patches, grid / half, padding_mode="reflection", align_corners=False
    )


def _recolour(patches: Tensor, rng: torch.Generator) -> Tensor:
    """Change contrast, brightness and hue of patches (m, C, h, w)."""
    m, c = patches.shape[:2]
    gain = 2.0 ** (0.4 * _normal(m, 1, 1, 1, rng=rng))
    shade = _normal(m, 1, 1, 1, rng=rng)
    tint = 0.5 * _normal(m, c, 1, 1, rng=rng)
    mean = patches.mean((2, 3), keepdim=True)
    return (patches - mean) * gain + mean + shade + tint


def _visibility(change: Tensor, plainer: Tensor, noise_level: float) -> Tensor:
    """Tell how plain a change (m, C, h, w) is to see: (m, 1, h, w), 0 to 1.

    A change that averages out over a few pixels is texture on texture. One that is seen
    better than its size lets expect is ``plainer`` (m,) by this factor.
    """
    change = change.contiguous()  # pooling few channels is slow in channels-last
    seen = F.avg_pool2d(change, 5, 1, padding=2).abs().amax(1, keepdim=True)
    seen = seen * _each(plainer)
    return (seen / (_PLAIN_TO_SEE * noise_level)).square().clamp(max=1.0)


def _smooth_noise(grain: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Noise (m, h, w), about normal, with a grain of ``grain`` (m,) pixels."""
    lattice = _normal(len(grain), 1, _LATTICE, _LATTICE, rng=rng)
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


def _each(values: Tensor) -> Tensor:
    """One value (m,) an item, shaped to go with tensors of four axes."""
    return values[:, None, None, None]


def _uniform(m: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(m, generator=rng, device=rng.device)


def _log_uniform(
    m: int, low: float | Tensor, high: Tensor, rng: torch.Generator
) -> Tensor:
    return low * (high / low) ** _uniform(m, 0.0, 1.0, rng)


def _normal(*shape: int, rng: torch.Generator) -> Tensor:
    return torch.randn(shape, generator=rng, device=rng.device)


def _with_chance(m: int, probability: float, rng: torch.Generator) -> Tensor:
    return torch.rand(m, generator=rng, device=rng.device) < probability


def _randint(m: int, high: int, rng: torch.Generator) -> Tensor:
    return torch.randint(max(high, 1), (m,), generator=rng, device=rng.device)


def _choose(m: int, shares: tuple[float, ...], rng: torch.Generator) -> Tensor:
    weights = torch.tensor(shares, device=rng.device)
    return torch.multinomial(weights, m, replacement=True, generator=rng)
