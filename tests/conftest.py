"""Set what must be set before anything is imported."""

import os

# Without it, scikit-learn leaves out its check of array API input; SciPy reads it once.
os.environ["SCIPY_ARRAY_API"] = "1"
