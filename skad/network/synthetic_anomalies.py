"""Synthetic anomalies, pasted into good images to train the segmentation decoder.

Shape, content and colour of an anomaly are drawn independently. Its material comes from
the good images, as in CutPaste [1]_ and NSA [2]_. Anomalies of about one size are made
at once for the whole batch, each in a window of its own.

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
from torch import Generator, Tensor
from torch.nn import functional as F

from skad.common.torch_settings import limit_threads
from skad.network.random import (
    bernoulli,
    choice,
    log_uniform,
    normal,
    randint,
    randperm,
    smooth_noise,
    uniform,
)

_FEWEST_ROUNDS = 2  # of every size; in each, half of the images get an anomaly
_COVERED = 0.06  # of an image, by the windows around the largest anomalies
_SMALLEST = 2.0  # pixels
_GRID = 32  # cells along each side of an image, for the foreground weight
_VISIBLE_LEVEL = 4.0  # noise levels: a change of so much is plain to see
_FAINT = 0.05  # opacity below which nothing is visible

_SHARES = {  # what an anomaly shows, and how often a blob and a line show it
    "foreign": (3.0, 0.0),  # a rotated and scaled part of another image
    "moved": (2.0, 0.0),  # a slightly rotated part of this image, from nearby
    "bent": (2.0, 0.0),  # what is here, slightly rotated and shifted
    "plain": (2.0, 1.0),  # one colour that occurs somewhere: a hole
    "shaded": (3.0, 3.0),  # what is here, in another colour
    "filled": (3.0, 0.0),  # an extrapolation of what lies around: something is missing
}
_EXTRA_SHARE = 0.3  # of all, that change colour, too; and of those that get noise

_FLATNESS = (0.25, 1.0)  # of blobs: width / length
_WAVE = 0.4  # of blobs' radius: a standard deviation
_LINE_POINTS = 48  # of a random walk: a few pixels apart even in long lines
_LINE_LENGTH = (6.0, 1.4)  # from so many pixels to so many sides of the window
_LINE_WIDTH = (1.0, 4.0)  # pixels
_BEND = (0.01, 0.3)  # of lines, radians at a point
_ZOOM = 0.7  # of foreign parts, octaves up or down
_OWN_TURN, _OWN_ZOOM = 0.15, 0.4  # of parts of this image, times those of foreign ones
_OWN_SHIFT = 2.0  # pixels, a standard deviation
_GAIN, _BRIGHTNESS, _HUE = 0.4, 1.0, 0.5  # of colours, standard deviations


class _Windows(NamedTuple):
    """Windows (m) of one size (h, w), each around an anomaly."""

    image: Tensor  # (m,): index of the image
    top: Tensor  # (m,)
    left: Tensor  # (m,)
    pixels: Tensor  # (m, h, w): indices into the pixels of the whole batch
    centre: Tensor  # (m, 1, 1, 2): x and y of the anomaly, from the window's middle
    offsets: Tensor  # (m, h, w, 2): x and y of the pixels, from the anomaly
    size: Tensor  # (m,): of the anomaly, in pixels


@limit_threads(1)
def add_anomalies(
    images: Tensor, patch_sizes: tuple[int, ...], noise_level: float, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Return standardised images (n, C, H, W) with anomalies, and their visibility.

    Sizes run from 2 pixels to one of `patch_sizes`, log-uniform within an octave; the
    smaller the octave, the more anomalies. Visibility (n, 1, H, W) runs from 0, where
    no change can be seen, to 1, where it is plain to see.
    """
    n, _, height, width = images.shape
    changed = _pixelwise(images).clone()
    visibility = torch.zeros_like(changed[:, :1])
    weight = foreground_weight(images)
    longest = _window_side(max(patch_sizes))
    for sizes, are_lines in _size_ranges(patch_sizes, max(height, width)):
        side = _window_side(float(sizes[1].max()))
        n_rounds = round(2 * _COVERED * height * width / (longest * side))
        windows = _place(images, weight, max(_FEWEST_ROUNDS, n_rounds), sizes, rng)
        _paste(images, changed, visibility, windows, are_lines, noise_level, rng)
    shape = (n, height, width, -1)
    return changed.view(shape).movedim(3, 1), visibility.view(shape).movedim(3, 1)


def _size_ranges(
    patch_sizes: tuple[int, ...], longest: int
) -> Iterator[tuple[Tensor, bool]]:
    """Yield the smallest and largest sizes (2, p), and whether they are those of lines.

    About every octave for blobs, so that small ones have small windows, and are many.
    """
    largest = torch.tensor(patch_sizes, dtype=torch.float32)
    largest = largest.clamp(_SMALLEST, max(longest, _SMALLEST))
    n = max(1, round(math.log2(float(largest.max()) / _SMALLEST)))
    ratio = (largest / _SMALLEST) ** (1 / n)
    for i in range(n):
        yield torch.stack([_SMALLEST * ratio**i, _SMALLEST * ratio ** (i + 1)]), False
    yield torch.stack([torch.full_like(largest, _SMALLEST), largest]), True


def _window_side(size: float) -> int:
    return math.ceil(1.5 * size) + 4  # of the anomaly and its soft rim


def foreground_weight(images: Tensor) -> Tensor:
    """Return how much coarse cells differ from the margin of their image: (n, h, w).

    Parts on a plain background do, and they are what is inspected.
    """
    grid = [min(_GRID, side) for side in images.shape[2:]]
    cells = F.interpolate(images, grid, mode="nearest")  # n, C, h, w: a pixel each
    edges = [cells[:, :, 0], cells[:, :, -1], cells[..., 0], cells[..., -1]]
    margin = torch.cat(edges, 2).median(2).values[:, :, None, None]
    weight = (cells - margin).abs().mean(1)
    return weight + 1e-3 * (1 + weight.mean((1, 2), keepdim=True))  # > 0


def _place(
    images: Tensor, weight: Tensor, n_rounds: int, sizes: Tensor, rng: Generator
) -> _Windows:
    """Place an anomaly in half of the images each round, and a window around it."""
    n, _, height, width = images.shape
    orders = [randperm(n, rng) for _ in range(n_rounds)]
    image = torch.cat([order[: -(-n // 2)] for order in orders])
    row, column = _draw_places(images, weight, image, rng)
    side = _window_side(float(sizes[1].max()))
    h, w = min(side, height), min(side, width)
    top = (row - h // 2).clamp(0, height - h)
    left = (column - w // 2).clamp(0, width - w)
    y, x = (torch.arange(s, device=rng.device) - (s - 1) / 2 for s in (h, w))
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # h, w, 2
    centre = torch.stack([column - left + x[0], row - top + y[0]], 1)[:, None, None]
    pixels = _pixel_indices(images, image, top, left, (h, w))
    which = randint(len(image), sizes.shape[1], rng)
    low, high = sizes.to(rng.device)[:, which]
    size = log_uniform(len(image), low, high, rng)
    return _Windows(image, top, left, pixels, centre, grid - centre, size)


def _draw_places(
    images: Tensor, weight: Tensor, image: Tensor, rng: Generator
) -> tuple[Tensor, Tensor]:
    """Draw rows and columns (m,): half of them uniform, half by the weight."""
    m, (_, height, width) = len(image), weight.shape
    cell = choice(weight.flatten(1), image, rng)
    anywhere = bernoulli(m, 0.5, rng)

    def along(side: int, cell: Tensor, n_cells: int) -> Tensor:
        within = ((cell + uniform(m, 0.0, 1.0, rng)) * (side / n_cells)).long()
        return torch.where(anywhere, randint(m, side, rng), within.clamp(max=side - 1))

    rows = along(images.shape[2], cell // width, height)
    return rows, along(images.shape[3], cell % width, width)


def _pixel_indices(
    images: Tensor, image: Tensor, top: Tensor, left: Tensor, shape: tuple[int, int]
) -> Tensor:
    """Return indices (m, h, w) of windows' pixels; the edge of an image is repeated."""
    height, width = images.shape[2:]
    h, w = (torch.arange(side, device=top.device) for side in shape)
    rows = (top[:, None] + h).clamp(0, height - 1)  # m, h
    columns = (left[:, None] + w).clamp(0, width - 1)  # m, w
    rows = image[:, None] * height + rows  # counted through all images
    return rows[:, :, None] * width + columns[:, None, :]


def _pixelwise(images: Tensor) -> Tensor:
    """View images (n, C, H, W), channels last, as pixels (n H W, C)."""
    return images.movedim(1, -1).flatten(0, 2)


def _gather(images: Tensor, pixels: Tensor) -> Tensor:
    """Return pixels at indices (m, h, w) of all images: (m, C, h, w)."""
    chosen = _pixelwise(images).index_select(0, pixels.flatten())
    return chosen.unflatten(0, pixels.shape).movedim(-1, 1)


def _paste(
    images: Tensor,
    changed: Tensor,
    visibility: Tensor,
    windows: _Windows,
    are_lines: bool,
    noise_level: float,
    rng: Generator,
) -> None:
    """Paste an anomaly into every window of `changed` and `visibility` (pixels, …)."""
    shapes = _lines if are_lines else _blobs
    opacity = shapes(windows.size, windows.offsets, rng)[:, None]  # m, 1, h, w
    own = _gather(images, windows.pixels)  # m, C, h, w
    content = _content(images, own, opacity, windows, are_lines, rng)
    # Small blobs stand out as points and lines by their length: they count for more.
    size = windows.size
    gain = torch.full_like(size, 2) if are_lines else (5 / size).clamp(min=1)
    visible = _visibility(opacity * (content - own), gain, noise_level)
    visible = torch.where(opacity > _FAINT, visible, 0.0)

    each_round = -(-len(images) // 2)
    for i in range(0, len(size), each_round):  # a round at a time: windows may overlap
        k = slice(i, i + each_round)
        pixels, amount = windows.pixels[k].flatten(), _pixelwise(opacity[k])
        here = changed.index_select(0, pixels)
        mixed = torch.lerp(here, _pixelwise(content[k]), amount)
        changed.index_copy_(0, pixels, mixed)
        most = visibility.index_select(0, pixels).maximum(_pixelwise(visible[k]))
        visibility.index_copy_(0, pixels, most)


def _blobs(size: Tensor, offsets: Tensor, rng: Generator) -> Tensor:
    """Ellipses with a wavy and more or less soft rim, ``size`` (m,) pixels long."""
    m = len(size)
    u, v = _rotate(offsets, uniform(m, 0.0, math.pi, rng))
    flatness = uniform(m, *_FLATNESS, rng)
    radius = size / 2
    rho = torch.hypot(u / radius[:, None, None], v / (radius * flatness)[:, None, None])
    wave = smooth_noise((size / 3).clamp(min=1.0), offsets, rng)
    rho = rho * (1 + _WAVE * wave.clamp(-1.5, 1.5))
    softness = log_uniform(m, 0.5, (size / 4).clamp(min=0.6), rng)  # pixels
    depth = (1 - rho) * (radius * flatness.sqrt())[:, None, None]  # pixels
    return torch.sigmoid(4 * depth / softness[:, None, None])


def _lines(size: Tensor, offsets: Tensor, rng: Generator) -> Tensor:
    """Random walks, up to across the window: scratches."""
    m, (shortest, longest) = len(size), _LINE_LENGTH
    length = log_uniform(m, shortest, longest * max(offsets.shape[1:3]), rng)
    turn = normal(m, _LINE_POINTS, rng=rng)
    bend = log_uniform(m, *_BEND, rng)
    start = uniform(m, 0.0, 2 * math.pi, rng)
    heading = start[:, None] + (turn * bend[:, None]).cumsum(1)
    step = (length / _LINE_POINTS)[:, None]
    points = torch.stack([heading.sin() * step, heading.cos() * step], 2).cumsum(1)
    points = points - points.mean(1, keepdim=True)  # m, points, 2
    x, y = (along.contiguous() for along in offsets.unbind(3))  # m, h, w
    squares = torch.full_like(x, math.inf)  # of the distance to the nearest point
    for point in points.unbind(1):  # one at a time: all at once take much memory
        to_x, to_y = (c[:, None, None] for c in point.unbind(1))
        square = (x - to_x).square_().add_((y - to_y).square_())
        torch.minimum(squares, square, out=squares)
    width = log_uniform(m, *_LINE_WIDTH, rng)
    return torch.sigmoid(4 * (width[:, None, None] / 2 - squares.sqrt_()))


def _visibility(change: Tensor, gain: Tensor, noise_level: float) -> Tensor:
    """Return how visible a change (m, C, h, w) is, times a gain (m,): (m, 1, h, w).

    A change that averages out over 5 x 5 pixels is texture on texture.
    """
    c = change.shape[1]
    # A convolution, where the channels come last, is much quicker than pooling.
    kernel = change.new_full((c, 1, 5, 5), 1 / 25)
    mean = F.conv2d(change, kernel, padding=2, groups=c).abs().amax(1, keepdim=True)
    visible = mean * gain.view(-1, 1, 1, 1) / (_VISIBLE_LEVEL * noise_level)
    return visible.square().clamp(max=1.0)


def _content(
    images: Tensor,
    own: Tensor,
    opacity: Tensor,
    windows: _Windows,
    are_lines: bool,
    rng: Generator,
) -> Tensor:
    """Return what the anomalies show: (m, C, h, w)."""
    m, size = len(own), windows.size
    shares = torch.tensor([s[are_lines] for s in _SHARES.values()], device=rng.device)
    kind = torch.multinomial(shares, m, replacement=True, generator=rng)
    shows = {name: kind == i for i, name in enumerate(_SHARES)}
    shown = own.clone(memory_format=torch.channels_last)
    cut = torch.where(shows["foreign"] | shows["moved"] | shows["bent"])[0]
    foreign, moved = shows["foreign"][cut], shows["moved"][cut]
    of_cut = _Windows(*(t[cut] for t in windows))
    shown[cut] = _cut(images, of_cut, foreign, moved, rng)
    filled = torch.where(shows["filled"])[0]
    shown[filled] = _fill(own[filled], opacity[filled], size[filled])
    plain, pixels = torch.where(shows["plain"])[0], _pixelwise(images)
    shown[plain] = pixels[randint(len(plain), len(pixels), rng)][:, :, None, None]
    recoloured = torch.where(shows["shaded"] | bernoulli(m, _EXTRA_SHARE, rng))[0]
    k, c = len(recoloured), own.shape[1]
    gain = 2.0 ** (_GAIN * normal(k, 1, 1, 1, rng=rng))
    light = _BRIGHTNESS * normal(k, 1, 1, 1, rng=rng)
    hue = _HUE * normal(k, c, 1, 1, rng=rng)
    mean = shown[recoloured].mean((2, 3), keepdim=True)
    shown[recoloured] = (shown[recoloured] - mean) * gain + mean + light + hue
    noisy = torch.where(bernoulli(m, _EXTRA_SHARE, rng))[0]
    grain = log_uniform(len(noisy), 1.0, (size[noisy] / 2).clamp(min=1.5), rng)
    contrast = uniform(len(noisy), 0.0, 1.0, rng)
    noise = smooth_noise(grain, windows.offsets[noisy], rng)[:, None]
    shown[noisy] += noise * contrast.view(-1, 1, 1, 1)
    return shown


def _cut(
    images: Tensor, windows: _Windows, foreign: Tensor, moved: Tensor, rng: Generator
) -> Tensor:
    """Cut parts (m, C, h, w) out of images and warp them, slightly if of this image."""
    n, _, height, width = images.shape
    m, h, w = windows.pixels.shape
    donor = torch.where(foreign, randint(m, n, rng), windows.image)
    nearby = (normal(2, m, rng=rng) * windows.size * moved).long()
    top = torch.where(foreign, randint(m, height - h + 1, rng), windows.top)
    left = torch.where(foreign, randint(m, width - w + 1, rng), windows.left)
    top, left = top + nearby[0], left + nearby[1]
    parts = _gather(images, _pixel_indices(images, donor, top, left, (h, w)))
    turn, zoom = uniform(m, -math.pi, math.pi, rng), uniform(m, -_ZOOM, _ZOOM, rng)
    turn = turn * torch.where(foreign, 1.0, _OWN_TURN)
    zoom = 2.0 ** (zoom * torch.where(foreign, 1.0, _OWN_ZOOM))
    grid = torch.stack(_rotate(windows.offsets, turn), 3) * zoom.view(-1, 1, 1, 1)
    shift = _OWN_SHIFT * normal(m, 1, 1, 2, rng=rng) * ~foreign.view(-1, 1, 1, 1)
    half = torch.tensor([w / 2, h / 2], device=grid.device)
    grid = (grid + windows.centre + shift) / half
    return F.grid_sample(parts, grid, padding_mode="reflection", align_corners=False)


def _fill(own: Tensor, opacity: Tensor, size: Tensor) -> Tensor:
    """Return a Gaussian mean, a third of the size wide, of what lies around."""
    around = 1 - opacity + 1e-4
    weighted = torch.cat([own * around, around], 1)  # m, C + 1, h, w
    rows, columns = (
        torch.exp(-4.5 * ((at[:, None] - at) / size[:, None, None]).square())[:, None]
        for at in (torch.arange(s, device=size.device) for s in own.shape[2:])
    )  # m, 1, h, h and m, 1, w, w
    mean = rows @ weighted @ columns
    return mean[:, :-1] / mean[:, -1:]


def _rotate(offsets: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Rotate offsets (m, h, w, 2) by angles (m,): x and y, (m, h, w) each."""
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x, y = offsets.unbind(3)
    return cos * x + sin * y, cos * y - sin * x
