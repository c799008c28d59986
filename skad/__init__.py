"""Visual anomaly detection that learns from good images alone."""

import os
from importlib import import_module

__version__ = "0.2.0.dev8"

_MODULE_OF = {
    "AD": "legacy.ad",
    "AnomalyMapDisplay": "displays",
    "AuditedImage": "audit.audit",
    "DenseAutoencoderDetector": "detectors.dense",
    "Explanation": "explanations",
    "ExplanationDisplay": "displays",
    "FrozenEncoder": "encoders.frozen",
    "ImageFolder": "images.folder",
    "ImageReader": "images.folder",
    "InspectionResult": "inspection.verdict",
    "Monitor": "monitor.monitor",
    "PatchAutoencoderDetector": "detectors.patch",
    "Region": "inspection.regions",
    "audit_images": "audit.audit",
    "explain": "explanations",
    "export_onnx": "export.onnx_file",
    "load": "model_io.model_file",
    "read_image": "images.decoding",
    "read_images": "images.folder",
    "resize_image": "images.resizing",
    "save": "model_io.model_file",
    "select": "threshold.selection",
    "write_audit": "audit.page",
    "write_report": "report.writing",
}
_SUBMODULES = (
    "benchmark",
    "datasets",
    "displays",
    "distributed",
    "explanations",
    "images",
    "legacy",
    "metrics",
    "overlays",
    "runtime",
    "testing",
)

__all__ = ["__version__", *_MODULE_OF]

# Torch's threads wait for each other in a loop, for milliseconds, before they sleep:
# too long where other programs want the processor. Read when torch is loaded.
if not {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"


def __getattr__(name: str) -> object:
    """Resolve a public name on first use (PEP 562), so that importing skad is cheap."""
    if name in _MODULE_OF:
        value = getattr(import_module(f"skad.{_MODULE_OF[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return import_module(f"skad.{name}")
    raise AttributeError(f"module 'skad' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_SUBMODULES])
