"""The kinds of detectors that can be stored, and what is special about each."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from skad.common.warnings import warn
from skad.detectors.base import ImageDetector
from skad.detectors.dense import DenseAutoencoderDetector
from skad.detectors.parameters import patch_sizes
from skad.detectors.patch import PatchAutoencoderDetector
from skad.images.inputs import Format
from skad.model_io.agreement import check_working_size
from skad.model_io.header import (
    OPTIONAL_RULES,
    RULES,
    Rules,
    Unfit,
    check,
    is_number,
    is_parameters,
    is_size,
    tupled,
)
from skad.network.dense import is_input_shape
from skad.scoring.anomaly_map import AnomalyMapper
from skad.scoring.dense_map import DenseMapper

Arrays = dict[str, np.ndarray]
Description = dict[str, Any]  # what the header of a file holds


class Kind(NamedTuple):
    """How the detectors of one class are stored."""

    detector: type[ImageDetector]
    not_in_header: set[str]  # parameters
    rules: Rules  # of what its header has that others have not, or otherwise
    describe: Callable[[Any], Description]  # of a mapper: what those rules are for
    to_arrays: Callable[[Any], Arrays]  # of a mapper
    shapes: Callable[[Description, set[str]], dict[str, tuple[int, ...]]]
    check_arrays: Callable[[Arrays], None]  # finite numbers; raises Unfit
    parameters: Callable[[Arrays], dict[str, Any]]  # those that are arrays
    check: Callable[[Any, Description], None]  # of a detector; raises ValueError
    from_arrays: Callable[[Arrays, Description], Any]  # the mapper, on the CPU
    # Of the network's input, and of the least that it takes.
    sizes: Callable[[Description], tuple[tuple[int, int], tuple[int, int]]]

    def check_header(self, description: Description) -> None:
        """Raise Unfit where a header is not as this kind of file has it."""
        known = set(self.detector().get_params()) - self.not_in_header
        parameters = {"parameters": lambda value: is_parameters(value, known)}
        check(description, {**parameters, **RULES, **self.rules})
        check(description, OPTIONAL_RULES, may_be_missing=True)
        unset = description["offset"] is None
        if unset != (description["mean_map"] is None):
            raise Unfit("offset and mean_map in its header contradict each other")
        for name in ("labelled_threshold", "promised_fpr"):
            if unset and description[name] is not None:
                raise Unfit(f"{name} in its header is of no threshold")


def format_in(description: Description) -> Format:
    """Return what the images look like."""
    return Format(**{k: tupled(v) for k, v in description["format"].items()})


def kind_of(description: Description) -> Kind:
    """Return the kind that a header names."""
    name = description.get("kind")
    if not isinstance(name, str) or name not in KINDS:
        raise Unfit(
            f"kind in its header is {str(name)[:60]!r}, which is none of skad's"
        )
    return KINDS[name]


# --- PatchAutoencoderDetector -----------------------------------------------------


def _describe_patch(mapper: Any) -> Description:
    preparation = mapper.preparation
    return {"std": preparation.std, "working_size": preparation.working_size}


def _patch_shapes(
    description: Description, names: set[str]
) -> dict[str, tuple[int, ...]]:
    height, width, n_channels = description["format"]["image_shape"]
    shapes = AnomalyMapper.array_shapes(n_channels, tuple(description["working_size"]))
    if description["format_version"] == 8:
        c = shapes["context.weight"][1]
        del shapes["context.weight"], shapes["context.bias"], shapes["scale"]
        shapes |= {"expectation.weight": (5, c), "expectation.bias": (5,)}
        shapes |= {"expectation.most": (5,), "view_lines": (2, 7, 2)}
    return shapes | ({"roi": (height, width)} if "roi" in names else {})


def _check_patch_arrays(arrays: Arrays) -> None:
    for name, array in arrays.items():
        if name.endswith("running_var") and array.min() < 0:
            raise Unfit(f"{name} has negative values")
    for name in {"tails", "view_lines"} & arrays.keys():
        if (np.diff(arrays[name], axis=1) <= 0).any():
            raise Unfit(f"{name} has values that do not rise")
    roi = arrays.get("roi", np.ones(1))
    if not np.isin(roi, (0, 1)).all():
        raise Unfit("roi has values other than 0 and 1")
    if not roi.any():
        raise Unfit("roi leaves nothing to look at")


def _patch_parameters(arrays: Arrays) -> dict[str, Any]:
    return {"roi": arrays["roi"] > 0 if "roi" in arrays else None}


def _check_patch(detector: Any, description: Description) -> None:
    patch_sizes(detector.patch_size)
    check_working_size(
        format_in(description),
        detector.image_size,
        tuple(description["working_size"]),
        has_roi=detector.roi is not None,
    )


def _from_format_8(arrays: Arrays) -> Arrays:
    """Drop the parts of the method that are gone since, and warn."""
    warn(
        "This model file is of an earlier skad, which made anomaly maps in more steps: "
        "its scores are others now, and its threshold does not fit them. Call "
        "calibrate with good images that training has not seen, or fit it again."
    )
    arrays = {k.replace("expectation.", "context."): v for k, v in arrays.items()}
    del arrays["context.most"]
    knots = arrays.pop("view_lines")[0, -2]  # the decoder's usual peak, and the other's
    return arrays | {"scale": np.array(knots[1] / knots[0], np.float32)}


def _patch_mapper(arrays: Arrays, description: Description) -> Any:
    if description["format_version"] == 8:
        arrays = _from_format_8(arrays)
    return AnomalyMapper.from_arrays(
        arrays,
        std=description["std"],
        input_size=tupled(description["format"]["image_shape"][:2]),
        working_size=tupled(description["working_size"]),
    )


# --- DenseAutoencoderDetector -----------------------------------------------------


def _describe_dense(mapper: Any) -> Description:
    return {"network_shape": mapper.network.input_shape}


def _dense_shapes(
    description: Description, names: set[str]
) -> dict[str, tuple[int, ...]]:
    return DenseMapper.array_shapes(tupled(description["network_shape"]))


def _check_dense(detector: Any, description: Description) -> None:
    if format_in(description).any_size:
        raise ValueError("images of any size are not for this kind of detector")
    shape, images = description["network_shape"], description["format"]["image_shape"]
    if shape[2] != images[2]:
        raise ValueError(
            f"images of shape {tuple(images)} are not for a network that takes "
            f"{tuple(shape)}"
        )


def _dense_mapper(arrays: Arrays, description: Description) -> Any:
    return DenseMapper.from_arrays(
        arrays,
        input_shape=tupled(description["network_shape"]),
        input_size=tupled(description["format"]["image_shape"][:2]),
    )


def _is_number_or_none(value: Any) -> bool:
    return value is None or is_number(value)


KINDS = {
    "PatchAutoencoderDetector": Kind(
        detector=PatchAutoencoderDetector,
        not_in_header={
            "roi",  # is an array
            "memory",  # names a folder of this machine, from which joblib unpickles
        },
        rules={
            "std": lambda value: is_number(value) and value > 0,
            "working_size": lambda value: is_size(value, range(2, 3)),
        },
        describe=_describe_patch,
        to_arrays=AnomalyMapper.to_arrays,
        shapes=_patch_shapes,
        check_arrays=_check_patch_arrays,
        parameters=_patch_parameters,
        check=_check_patch,
        from_arrays=_patch_mapper,
        sizes=lambda description: (tupled(description["working_size"]), (64, 64)),
    ),
    "DenseAutoencoderDetector": Kind(
        detector=DenseAutoencoderDetector,
        not_in_header={"model"},  # names files of this machine
        rules={
            "network_shape": lambda value: (
                is_size(value, range(3, 4)) and is_input_shape(value)
            ),
            "offset": _is_number_or_none,  # None: there is no threshold yet
            "mean_map": _is_number_or_none,
        },
        describe=_describe_dense,
        to_arrays=DenseMapper.to_arrays,
        shapes=_dense_shapes,
        check_arrays=lambda arrays: None,
        parameters=lambda arrays: {},
        check=_check_dense,
        from_arrays=_dense_mapper,
        sizes=lambda description: 2 * (tuple(description["network_shape"][:2]),),
    ),
}
