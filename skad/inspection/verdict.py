"""The verdict about one image: score, threshold, p-value and regions, in one place."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from skad.inspection.regions import Region, Size, above, find_regions
from skad.threshold.conformal import conformal_p_value


@dataclass(frozen=True, eq=False, slots=True)
class InspectionResult:
    """What a detector says about one image.

    `score` is minus the largest value of the `anomaly_map` (H, W) float32; `decision`,
    the score minus `offset_`, is below 0 if the `verdict` is "anomalous", else "good";
    `p_value` is conformal, in (0, 1]. `regions` are connected and anomalous, highest
    peak first, in pixels of the image as given; for an `ImageFolder`, of the file.
    """

    score: float
    decision: float
    p_value: float
    verdict: str
    regions: list[Region]
    anomaly_map: NDArray[np.float32] = field(repr=False)

    @property
    def is_anomaly(self) -> bool:
        """Whether the verdict is "anomalous"."""
        return self.verdict == "anomalous"


def judge(
    anomaly_map: NDArray[np.float32],
    offset: float,
    calibration_scores: ArrayLike | None,
) -> InspectionResult:
    """Judge an image by its map (H, W); without calibration scores, p is NaN."""
    score = -float(anomaly_map.max())
    p_value = np.nan
    if calibration_scores is not None:
        p_value = float(conformal_p_value([score], calibration_scores)[0])
    return InspectionResult(
        score=score,
        decision=score - offset,
        p_value=p_value,
        verdict="anomalous" if score < offset else "good",
        regions=find_regions(anomaly_map, above(anomaly_map, -offset)),
        anomaly_map=anomaly_map,
    )


def in_frames(
    results: list[InspectionResult], sizes: Iterable[Size] | None
) -> list[InspectionResult]:
    """Bring regions from pixels of the maps to those of frames, (height, width)."""
    if sizes is None:
        return results
    return [
        replace(
            one, regions=[r.scaled(one.anomaly_map.shape, size) for r in one.regions]
        )
        for one, size in zip(results, sizes, strict=True)
    ]
