"""Windows of images: where they lie, and what is in them.

Simulated defects lie each in the middle of one, as near as the image's edge lets it.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from skad.network.random import randint, uniform, with_chance

_GRID = 32  # cells along each side of an image that defects are placed in


class Windows(NamedTuple):
    """Windows (m) of one size, each around a defect."""

    image: Tensor  # (m,): which image each lies in
    top: Tensor  # (m,)
    left: Tensor  # (m,)
    pixels: Tensor  # (m, h, w): which of all pixels of all images
    centre: Tensor  # (m, 1, 1, 2): x and y of the defect, from the window's middle
    offsets: Tensor  # (m, h, w, 2): x and y of the pixels, from the defect


def cut(
    images: Tensor, which: Tensor, top: Tensor, left: Tensor, shape: tuple[int, int]
) -> Tensor:
    """Cut windows (m, C, h, w) out of images; beyond the edge, the edge goes on."""
    size = (images.shape[2], images.shape[3])
    return pixels_at(images, _pixels(size, which, top, left, shape))


def pixels_at(images: Tensor, pixels: Tensor) -> Tensor:
    """Return pixels (m, h, w), counted through all images: (m, C, h, w)."""
    chosen = pixelwise(images).index_select(0, pixels.flatten())
    return chosen.unflatten(0, pixels.shape).movedim(-1, 1)


def pixelwise(images: Tensor) -> Tensor:
    """Look at images (n, C, H, W), channels last, as pixels (n H W, C)."""
    return images.movedim(1, -1).flatten(0, 2)


def _pixels(
    size: tuple[int, int],
    which: Tensor,
    top: Tensor,
    left: Tensor,
    shape: tuple[int, int],
) -> Tensor:
    """Return the numbers (m, h, w) of windows' pixels; the edge of an image goes on."""
    rows, columns = (
        (start[:, None] + torch.arange(length, device=start.device)).clamp(0, side - 1)
        for start, length, side in zip((top, left), shape, size, strict=True)
    )
    rows = which[:, None] * size[0] + rows  # m, h: counted through all images
    return rows[:, :, None] * size[1] + columns[:, None, :]


def place(
    shown: Tensor, size: tuple[int, int], n_rounds: int, side: int, rng: torch.Generator
) -> Windows:
    """Place defects in half of the images a round, windows around them."""
    n = len(shown)
    orders = (
        torch.randperm(n, generator=rng, device=rng.device) for _ in range(n_rounds)
    )
    image = torch.cat([order[: -(-n // 2)] for order in orders])
    shape = (min(side, size[0]), min(side, size[1]))
    y, x = (torch.arange(s, device=rng.device) - (s - 1) / 2 for s in shape)
    offsets = torch.stack(torch.meshgrid(x, y, indexing="xy"), 2)  # h, w, 2
    row, column = _places(shown, image, size, rng)
    top = (row - shape[0] // 2).clamp(0, size[0] - shape[0])
    left = (column - shape[1] // 2).clamp(0, size[1] - shape[1])
    centre = torch.stack([column - left + x[0], row - top + y[0]], 1)[:, None, None]
    inside = _pixels(size, image, top, left, shape)
    return Windows(image, top, left, inside, centre, offsets - centre)


def what_is_shown(images: Tensor) -> Tensor:
    """Tell how much coarse cells differ from the margin of their image: (n, h, w).

    Parts on a plain background do, and what is to be inspected is there.
    """
    grid = [min(_GRID, side) for side in images.shape[2:]]
    cells = F.interpolate(images, grid, mode="nearest")  # n, C, h, w: a pixel each
    edges = [cells[:, :, 0], cells[:, :, -1], cells[..., 0], cells[..., -1]]
    margin = torch.cat(edges, 2).median(2).values[:, :, None, None]
    shown = (cells - margin).abs().mean(1)
    return shown + 1e-3 * (1 + shown.mean((1, 2), keepdim=True))


def _places(
    shown: Tensor, image: Tensor, size: tuple[int, int], rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw rows and columns (m,): half of them anywhere, half by what is shown."""
    m, (n, height, width) = len(image), shown.shape
    reached = shown.double().flatten(1).cumsum(1)
    reached = reached / reached[:, -1:] + torch.arange(n, device=image.device)[:, None]
    drawn = image + uniform(m, 0.0, 1.0, rng).double()  # the n-th image: n to n + 1
    cell = torch.searchsorted(reached.flatten(), drawn) - image * (height * width)
    cell = cell.clamp(0, height * width - 1)
    anywhere = with_chance(m, 0.5, rng)

    def along(side: int, at: Tensor, n_cells: int) -> Tensor:
        within = ((at + uniform(m, 0.0, 1.0, rng)) * (side / n_cells)).long()
        return torch.where(anywhere, randint(m, side, rng), within.clamp(max=side - 1))

    return along(size[0], cell // width, height), along(size[1], cell % width, width)
