"""Which branches make the peaks: shares of evidence by kind of defect.

Takes a folder of data sets in the layout of MVTec AD, and stored detectors of them,
CATEGORY-SEED.safetensors, as `skad benchmark --models` leaves them.
"""

import sys
from pathlib import Path

import pandas as pd

import skad

_MOST = 15  # images of each kind, evenly from all


def main(root: Path, models: list[Path]) -> None:
    """Print a table: mean shares in percent, a row for each kind of test images."""
    rows = []
    for model in models:
        detector, category = skad.load(model), model.stem.rpartition("-")[0]
        for folder in sorted((root / category / "test").iterdir()):
            files = sorted(folder.iterdir())
            for file in files[:: -(-len(files) // _MOST)]:
                found = skad.explain(detector, file)
                row = {"images": f"{category}, {folder.name}", "peak": -found.score}
                rows.append(row | {k: 100 * v for k, v in found.evidence.items()})
    means = pd.DataFrame(rows).groupby("images", sort=False).mean()
    print(means.round(1).to_markdown())


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(model) for model in sys.argv[2:]])
