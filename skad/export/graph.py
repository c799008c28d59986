"""The graph: from a batch of images to anomaly maps, as a detector computes them."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from typing import Any

import numpy as np
import torch
from numpy.polynomial import Chebyshev, Polynomial
from scipy.special import erfcx
from torch import Tensor, nn

from skad.common.torch_settings import inference
from skad.scoring.anomaly_map import Mapper

OPSET = 20
_DEGREE = 14  # of a polynomial, which is then right to a relative error of 1e-8
_LOGGERS = ("torch.onnx", "torch.fx", "onnxscript", "onnx_ir")


class MapGraph(nn.Module):
    """Turns images (n, H, W) or (n, H, W, C) into maps (n, H, W) and their maxima."""

    def __init__(self, mapper: Mapper, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.mapper = mapper
        self.image_shape = image_shape

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps (n, H, W) and maxima (n,)."""
        maps = self.mapper.maps_of(images.reshape(-1, *self.image_shape))
        return maps, maps.amax((1, 2))


def to_onnx(mapper: Mapper, shape: tuple[int, ...], dtype: str) -> Any:
    """Return the model (onnx.ModelProto) for images of a shape (H, W) or (H, W, C)."""
    with_channels = (*shape, 1) if len(shape) == 2 else shape
    graph = MapGraph(mapper, with_channels).eval()  # type: ignore[arg-type]
    two = torch.zeros(2, *shape).to(getattr(torch, dtype))
    with inference():
        graph(two[:1])  # computes what a mapper keeps, before it is traced
    with torch.no_grad(), _quiet():
        program: Any = torch.onnx.export(
            graph,
            (two,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["anomaly_map", "peak"],
            dynamic_shapes={"images": {0: torch.export.Dim("n")}},
            custom_translation_table={
                torch.ops.aten.special_log_ndtr.default: _log_ndtr  # ONNX has none
            },
        )
    for part in (
        *program.model.graph.all_nodes(),
        *program.model.graph.initializers.values(),
    ):
        part.metadata_props.clear()  # lines of code, and paths of this machine
        part.doc_string = None
    return program.model_proto


def _log_ndtr(x: Any) -> Any:
    """Return the logarithm of the normal distribution function, for the exporter.

    With z = abs(x) and t = 2 / (2 + z), log(1 - ndtr(z)) + z ** 2 / 2 - log(t) is a
    smooth function of t, from 0 to 1, and a polynomial comes close.
    """
    import onnx
    from onnxscript import opset20 as op

    def number(value: float) -> Any:
        tensor = onnx.helper.make_tensor("", onnx.TensorProto.DOUBLE, (), [value])
        return op.Constant(value=tensor)

    x = op.Cast(x, to=onnx.TensorProto.DOUBLE)
    z = op.Abs(x)
    t = op.Div(number(2), op.Add(z, number(2)))
    first, *others = tail_polynomial()[::-1]
    smooth = number(first)
    for coefficient in others:
        smooth = op.Add(op.Mul(smooth, t), number(coefficient))
    tail = op.Sub(op.Add(op.Log(t), smooth), op.Mul(op.Mul(z, z), number(0.5)))
    body = op.Log(op.Sub(number(1), op.Exp(tail)))
    found = op.Where(op.Less(x, number(0)), tail, body)
    return op.Cast(found, to=onnx.TensorProto.FLOAT)


def tail_polynomial() -> np.ndarray:
    """Return the coefficients, lowest first, of what `_log_ndtr` says."""

    def smooth(t: np.ndarray) -> np.ndarray:
        z = 2 / t - 2
        return np.log(erfcx(z / np.sqrt(2)) / 2) - np.log(t)

    near = Chebyshev.interpolate(smooth, _DEGREE, domain=[0, 1])
    return near.convert(kind=Polynomial).coef


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter, which warns of itself and prints its graphs."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
