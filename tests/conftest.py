"""Set what must be set before anything is imported."""

import os

# Without it, scikit-learn leaves out its check of array API input; SciPy reads it once.
os.environ["SCIPY_ARRAY_API"] = "1"

# The tensors of the tests are small: threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# On a GPU, torch rounds to ten bits in convolutions; the tests compare more of them.
os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
