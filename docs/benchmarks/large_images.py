"""Measure the memory that large images take: python THIS_FILE.

For each size, a process of its own scores one colour image of noise with a random
model. The figure is by how much its peak memory exceeds what it held before.
"""

import multiprocessing

import numpy as np

SIZES = ((4000, 4000), (8000, 2000), (6000, 6000))  # (height, width)


def main() -> None:
    """Print a Markdown table."""
    print("| size | anomaly_map, MB | reconstruct, MB |\n|---|---:|---:|")
    for height, width in SIZES:
        maps, rebuilt = (
            in_a_process((height, width), what)
            for what in ("anomaly_map", "reconstruct")
        )
        print(f"| {height} x {width} | {maps:.0f} | {rebuilt:.0f} |")


def in_a_process(size: tuple[int, int], what: str) -> float:
    """Peak memory above the model and the image, in MB of 10^6 bytes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(peak, (size, what))


def peak(size: tuple[int, int], what: str) -> float:
    """As `in_a_process`, of this process, which has done nothing else before."""
    from skad.benchmark.runs import peak_memory_mb
    from skad.images.inputs import as_images
    from skad.images.several_sizes import as_given

    score(new_mapper((64, 64)), np.zeros((1, 64, 64, 3), np.uint8))  # what torch loads
    mapper = new_mapper(size)
    X = np.random.default_rng(0).integers(0, 255, (1, *size, 3), dtype=np.uint8)
    images = as_images(X, None)
    before = peak_memory_mb()
    if what == "anomaly_map":
        score(mapper, X)
    else:
        rebuilt = mapper.over(images, mapper.reconstruct)
        assert [as_given(batch, images).shape for batch in rebuilt] == [X.shape]
    return peak_memory_mb() - before


def score(mapper, X: np.ndarray) -> None:
    """Make the anomaly maps of images."""
    from skad.images.inputs import as_images

    for maps in mapper.over(as_images(X, None), mapper):
        assert np.isfinite(maps).all()


def new_mapper(size: tuple[int, int]):
    """A model for colour images of this size, of random numbers."""
    from skad.scoring.anomaly_map import AnomalyMapper

    rng = np.random.default_rng(0)
    arrays = {
        name: np.asarray(0.1 * rng.random(shape) + 0.01, np.float32)
        for name, shape in AnomalyMapper.array_shapes(3, size).items()
    }
    arrays["tails"].sort(axis=1)
    arrays["mean"] = np.full(3, 0.5)
    return AnomalyMapper.from_arrays(
        arrays, std=0.3, input_size=size, working_size=size
    )


if __name__ == "__main__":
    main()
