"""The parity certificate: how far an exported graph is from its detector."""

from typing import Any

import numpy as np
import torch

from skad.images.inputs import Images
from skad.scoring.anomaly_map import Mapper

LIMIT = 1e-4  # of the scale: a map's value, or the threshold if that is larger


def certify(
    mapper: Mapper, threshold: float, model: bytes, images: Images, words: str
) -> dict[str, Any]:
    """Compare the maps of a model with those of a mapper on the CPU, image by image.

    Returns what was measured; differences are the largest ones, as shares of the scale.
    Raises a ValueError if one exceeds the limit.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors alone
    providers = ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(model, options, providers=providers)
    (given,) = session.get_inputs()
    dtype = "float32" if given.type == "tensor(float)" else given.type[7:-1]
    differences, n_other = [], 0
    for i in range(len(images)):
        batch = images.take(np.array([i])).astype(dtype, copy=False)  # 1, H, W, C
        expected = mapper(batch)
        maps, peaks = session.run(None, {"images": batch.reshape(1, *given.shape[1:])})
        peak = expected.max()
        off = np.abs(maps - expected) / np.maximum(expected, threshold)
        off_score = abs(peaks[0] - peak) / max(peak, threshold)
        differences.append((off.max(), off_score))
        n_other += int((peaks[0] > threshold) != (peak > threshold))
    of_maps, of_scores = np.max(differences, 0).tolist()  # NaN where any is
    parity = {
        "images": words,
        "n_images": len(images),
        "map_difference": of_maps,
        "score_difference": of_scores,
        "n_other_verdicts": n_other,  # these scores are so near to the threshold
        "limit": LIMIT,
        "scale": "the map's value, or the threshold if that is larger",
        "torch_version": str(torch.__version__),
        "onnxruntime_version": onnxruntime.__version__,
    }
    if not (of_maps <= LIMIT and of_scores <= LIMIT):
        raise ValueError(
            "The exported graph does not agree with the detector, and is not written. "
            f"On {parity_in_words(parity)}; at most {LIMIT:g} is allowed. Please "
            "report this with the versions of torch and onnxruntime."
        )
    return parity


def parity_in_words(parity: dict[str, Any]) -> str:
    """Say what `certify` measured."""
    n, n_other = parity["n_images"], parity["n_other_verdicts"]
    nearer = ", the rest nearer to the threshold than that" if n_other else ""
    return (
        f"{n} images ({parity['images']}), maps agree within "
        f"{parity['map_difference']:.1e} and scores within "
        f"{parity['score_difference']:.1e}; {n - n_other} of {n} verdicts are "
        f"equal{nearer}"
    )
