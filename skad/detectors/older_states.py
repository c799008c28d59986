"""The states of pickled detectors: those of older versions, brought up to date."""

import math
from dataclasses import MISSING, fields, is_dataclass
from inspect import Parameter, signature
from typing import Any

from skad.common.arrays import EARLIER, HERE, Origin, unreadable
from skad.detectors.fitted import Fitted, Threshold
from skad.detectors.split import NONE

_WRITTEN_BY = "_written_by"
_DERIVED = ("image_shape_in_", "n_features_in_")  # attributes of the first states


def stamped(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state to pickle that says which version it is of."""
    return {**state, _WRITTEN_BY: HERE}


def brought_up_to_date(state: dict[str, Any], kind: type) -> dict[str, Any]:
    """Return the state of a detector as this version has it.

    Parameters
    ----------
    state : dict
        Unpickled.
    kind : type
        The class of the detector: parameters that are new have their defaults.

    Returns
    -------
    state : dict

    Raises
    ------
    ValueError
        If it cannot be brought up to date; this names both versions.
    """
    state = dict(state)
    origin: Origin = state.pop(_WRITTEN_BY, EARLIER)
    if origin.state_version > HERE.state_version:
        raise unreadable(origin, "it is newer")
    if origin == EARLIER:
        try:
            state = _from_attributes(state)
        except KeyError as error:
            raise unreadable(origin, f"it has no {error}") from error
    for part in _parts(state.get("_fitted")):
        _complete(part, origin)
    for name, parameter in signature(kind).parameters.items():
        if parameter.default is not Parameter.empty:
            state.setdefault(name, parameter.default)
    return state


def _from_attributes(state: dict[str, Any]) -> dict[str, Any]:
    """Return a state of attributes, as the first ones were, as one object."""
    if "_mapper" not in state:
        return state
    for name in _DERIVED:
        state.pop(name, None)
    labelled = state.pop("labelled_threshold_", None)
    threshold = None
    if "offset_" in state:
        threshold = Threshold(
            offset=state.pop("offset_"),
            calibration_scores=state.pop("calibration_scores_"),
            mean_map=state.pop("mean_map_"),
            promised_fpr=state.pop("promised_fpr_", math.nan),
            labelled=labelled,
        )
    fitted = Fitted(
        mapper=state.pop("_mapper"),
        format=state.pop("_format"),
        history=state.pop("history_"),
        trained_on=state.pop("_trained_on", NONE),
        feature_names=state.pop("feature_names_in_", None),
        threshold=threshold,
    )
    return {**state, "_fitted": fitted}


def _complete(part: Any, origin: Origin) -> None:
    """Give an object that was unpickled the fields that are new, by their defaults."""
    for field in fields(part):
        if field.name in vars(part):
            continue
        if field.default is not MISSING:
            value = field.default
        elif field.default_factory is not MISSING:
            value = field.default_factory()
        else:
            raise unreadable(origin, f"{type(part).__name__} has no {field.name}")
        object.__setattr__(part, field.name, value)  # it is frozen, and new


def _parts(fitted: Any) -> list[Any]:
    """Return the objects that a state consists of."""
    if not isinstance(fitted, Fitted):
        return []
    threshold = vars(fitted).get("threshold")
    labelled = vars(threshold).get("labelled") if threshold is not None else None
    return [part for part in (fitted, threshold, labelled) if is_dataclass(part)]
