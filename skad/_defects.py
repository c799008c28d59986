"""Simulated defects, pasted into good images: what the anomaly decoder learns from.

Everything happens in square windows around the defects, all windows of a batch at
once. A defect is a shape (blob or line), a content (what is shown inside the shape)
and a photometric change; the three are drawn independently of each other.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

DEFECTS_PER_IMAGE = 3
_LINE_POINTS = 48
_SMALLEST = 2.0  # pixels


def _uniform(n: int, low: float, high: float, rng: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(n, generator=rng, device=rng.device)


def _log_uniform(n: int, low: float, high: Tensor, rng: torch.Generator) -> Tensor:
    return low * (high / low) ** _uniform(n, 0.0, 1.0, rng)


def _randint(n: int, high: int, rng: torch.Generator) -> Tensor:
    return torch.randint(max(high, 1), (n,), generator=rng, device=rng.device)


def cut(images: Tensor, which: Tensor, top: Tensor, left: Tensor, size: tuple) -> Tensor:
    """Windows (m, C, h, w) of images (n, C, H, W); beyond the edge it repeats."""
    rows, columns = _window_index(images.shape[2:], top, left, size)
    return images[which[:, None, None], :, rows, columns].movedim(-1, 1)


def _window_index(
    shape: torch.Size, top: Tensor, left: Tensor, size: tuple
) -> tuple[Tensor, Tensor]:
    rows = top[:, None] + torch.arange(size[0], device=top.device)  # m, h
    columns = left[:, None] + torch.arange(size[1], device=top.device)  # m, w
    rows, columns = rows.clamp(0, shape[0] - 1), columns.clamp(0, shape[1] - 1)
    return rows[:, :, None], columns[:, None, :]


def _smooth_noise(m: int, cells: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Noise (m, h, w) in about [-1, 1] whose grain is ``cells`` (m,) pixels."""
    lattice = torch.randn(m, 1, 16, 16, generator=rng, device=rng.device)
    grid = offsets / (8.0 * cells[:, None, None, None])  # m, h, w, 2
    return F.grid_sample(
        lattice, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )[:, 0]


def _blob(size: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Ellipses with a wavy rim, ``size`` (m,) pixels long: opacity (m, h, w)."""
    m = len(size)
    angle = _uniform(m, 0.0, math.pi, rng)
    u, v = _rotate(offsets, angle)
    flatness = _uniform(m, 0.25, 1.0, rng)
    radius = size / 2
    rho = torch.hypot(u / radius[:, None, None], v / (radius * flatness)[:, None, None])
    wave = _smooth_noise(m, (size / 3).clamp(min=1.0), offsets, rng)
    rho = rho * (1 + 0.4 * wave.clamp(-1.5, 1.5))
    softness = _log_uniform(m, 0.5, (size / 4).clamp(min=0.6), rng)  # pixels
    inside = (1 - rho) * (radius * flatness.sqrt() / softness)[:, None, None]
    return torch.sigmoid(4 * inside)


def _line(size: Tensor, offsets: Tensor, rng: torch.Generator) -> Tensor:
    """Random walks ``size`` (m,) pixels long, one to three wide: opacity (m, h, w)."""
    m, (h, w) = len(size), offsets.shape[1:3]
    shape = (m, _LINE_POINTS)
    turn = torch.randn(shape, generator=rng, device=rng.device)
    bend = _log_uniform(m, 0.02, torch.full_like(size, 0.4), rng)
    start = _uniform(m, 0.0, 2 * math.pi, rng)
    heading = start[:, None] + (turn * bend[:, None]).cumsum(1)
    step = (size / _LINE_POINTS)[:, None]
    points = torch.stack([heading.sin() * step, heading.cos() * step], 2).cumsum(1)
    points = points - points.mean(1, keepdim=True)  # m, points, 2
    distance = torch.cdist(offsets.reshape(m, h * w, 2), points).amin(2)
    width = _uniform(m, 0.8, 3.0, rng)
    return torch.sigmoid(4 * (width[:, None] / 2 - distance)).reshape(m, h, w)


def _rotate(offsets: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x, y = offsets[..., 0], offsets[..., 1]
    return cos * x + sin * y, cos * y - sin * x


def _warped(patches: Tensor, offsets: Tensor, local: Tensor, rng) -> Tensor:
    """Patches (m, C, h, w) turned, scaled and bent about their centre."""
    m, h, w = len(patches), *patches.shape[2:]
    angle = _uniform(m, -math.pi, math.pi, rng) * torch.where(local, 0.15, 1.0)
    zoom = 2.0 ** (_uniform(m, -0.7, 0.7, rng) * torch.where(local, 0.4, 1.0))
    u, v = _rotate(offsets, angle)
    grid = torch.stack([u, v], 3) * zoom[:, None, None, None]
    shift = torch.randn(m, 1, 1, 2, generator=rng, device=rng.device) * 2.0
    grid = grid + shift * local[:, None, None, None]
    half = torch.tensor([w / 2, h / 2], device=grid.device)
    return F.grid_sample(
        patches, grid / half, padding_mode="reflection", align_corners=False
    )


def _choose(m: int, shares: tuple[float, ...], rng: torch.Generator) -> Tensor:
    weights = torch.tensor(shares, device=rng.device)
    return torch.multinomial(weights, m, replacement=True, generator=rng)


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
        The largest defects, in pixels.
    noise_level : float
        What pixels of good images differ by from their neighbourhood.
    rng : torch.Generator

    Returns
    -------
    defective : Tensor of shape (n, C, H, W)
    visibility : Tensor of shape (n, 1, H, W)
        0 where nothing changed to 1 where a change is plain to see.
    """
    n, c, height, width = images.shape
    m = n * DEFECTS_PER_IMAGE
    side = math.ceil(1.5 * max(patch_sizes)) + 4
    window = (min(side, height), min(side, width))
    target = torch.arange(m, device=images.device) % n
    top = _randint(m, height, rng) - window[0] // 2
    left = _randint(m, width, rng) - window[1] // 2
    own = cut(images, target, top, left, window)  # m, C, h, w

    largest = torch.tensor(patch_sizes, dtype=torch.float32, device=images.device)
    largest = largest[_randint(m, len(patch_sizes), rng)]
    size = _log_uniform(m, _SMALLEST, largest, rng)
    offsets = _offsets(window, images.device).expand(m, -1, -1, -1)
    is_line = _choose(m, (2.0, 1.0), rng) == 1
    opacity = _blob(size, offsets, rng)
    k = is_line.nonzero()[:, 0]
    if len(k):
        length = (size[k] * 2).clamp(min=4.0, max=float(max(window)))
        opacity[k] = _line(length, offsets[k], rng)
    opacity = opacity * (_uniform(m, 0.0, 1.0, rng) < 0.6)[:, None, None]
    opacity = opacity[:, None]  # m, 1, h, w

    content = _content(images, own, (top, left), offsets, size, is_line, rng)
    change = opacity * (content - own)
    seen = F.avg_pool2d(change, 3, 1, padding=1).abs().amax(1, keepdim=True)
    seen = (seen / (2.0 * noise_level)).clamp(max=1.0)
    seen = torch.where(opacity > 0.05, seen, 0.0)

    defective = images.clone(memory_format=torch.channels_last)
    visibility = images.new_zeros(n, 1, height, width)
    rows, columns = _window_index(images.shape[2:], top, left, window)
    for i in range(0, m, n):  # one defect an image at a time: windows may overlap
        k = slice(i, i + n)
        index = (target[k, None, None], slice(None), rows[k], columns[k])
        touched = opacity[k].movedim(1, -1)
        here = defective[index]
        defective[index] = here + touched * (content[k].movedim(1, -1) - here)
        visibility[index] = torch.maximum(visibility[index], seen[k].movedim(1, -1))
    return defective, visibility


def _offsets(window: tuple[int, int], device: torch.device) -> Tensor:
    """Return (1, h, w, 2): x and y in pixels from the centre of the window."""
    y = torch.arange(window[0], device=device) - (window[0] - 1) / 2
    x = torch.arange(window[1], device=device) - (window[1] - 1) / 2
    return torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)[None].float()


def _content(images, own, corner, offsets, size, is_line, rng) -> Tensor:
    """What the defects show: (m, C, h, w)."""
    n, c, height, width = images.shape
    m, h, w = len(own), *own.shape[2:]
    kind = _choose(m, (3.0, 2.0, 2.0, 3.0, 2.0), rng)
    foreign, moved, bent, plain = (kind == i for i in range(4))
    donor = torch.where(foreign, _randint(m, n, rng), torch.arange(m) % n)
    near = torch.randn(2, m, generator=rng, device=rng.device) * size
    top = torch.where(foreign, _randint(m, height - h + 1, rng), corner[0])
    left = torch.where(foreign, _randint(m, width - w + 1, rng), corner[1])
    top = top + (near[0] * moved).long()
    left = left + (near[1] * moved).long()
    source = cut(images, donor, top, left, (h, w))
    stays = (kind == 4)[:, None, None, None]
    source = torch.where(stays, own, _warped(source, offsets, ~foreign, rng))

    # a plain colour, taken from some pixel of some image, for holes and missing parts
    pixel = images[_randint(m, n, rng), :, _randint(m, height, rng), _randint(m, width, rng)]
    source = torch.where(plain[:, None, None, None], pixel[:, :, None, None], source)

    # photometric change: always where the content stays, sometimes elsewhere
    changed = (stays[:, 0, 0, 0] | (_uniform(m, 0.0, 1.0, rng) < 0.3))[:, None, None, None]
    shade = torch.randn(m, 1, 1, 1, generator=rng, device=rng.device)
    tint = torch.randn(m, c, 1, 1, generator=rng, device=rng.device) * 0.5
    gain = 2.0 ** (torch.randn(m, 1, 1, 1, generator=rng, device=rng.device) * 0.4)
    mean = source.mean((2, 3), keepdim=True)
    source = torch.where(changed, (source - mean) * gain + mean + shade + tint, source)
    grain = _log_uniform(m, 1.0, (size / 2).clamp(min=1.5), rng)
    noise = _smooth_noise(m, grain, offsets, rng)[:, None]
    loud = (_uniform(m, 0.0, 1.0, rng) * (_uniform(m, 0.0, 1.0, rng) < 0.3))
    return source + noise * loud[:, None, None, None]
