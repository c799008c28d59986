"""Progress of a fit: a bar for people, scikit-learn's callbacks where it has them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from skad.common.bars import bar

try:  # new in scikit-learn 1.9
    from sklearn.callback import CallbackSupportMixin, with_callbacks
except ImportError:

    class CallbackSupportMixin:  # type: ignore[no-redef]
        """Stands in for scikit-learn's; adds nothing."""

    def with_callbacks(method: Callable) -> Callable:
        """Leave the method as it is."""
        return method


__all__ = ["CallbackSupportMixin", "Progress", "following", "with_callbacks"]

Progress = Callable[[int, int, dict[str, float]], None]  # step, number of steps, losses


@contextmanager
def following(estimator: Any, X: Any, y: Any, n_epochs: int) -> Iterator[Progress]:
    """Follow a training: a bar moves every step, callbacks hear of every epoch.

    Callbacks get the fitted estimator at the end of the block, which fits it.
    """
    context = None
    if hasattr(estimator, "_init_callback_context"):
        context = estimator._init_callback_context(max_subtasks=n_epochs)
        context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    epochs: list[Any] = []
    shown = bool(estimator.verbose and n_epochs)
    options = {"unit": "step", "desc": "training"}
    with bar(shown=shown, anywhere=True, **options) as moving:

        def progress(i: int, n: int, losses: dict[str, float]) -> None:
            moving.total = n
            moving.set_postfix(loss=f"{losses['loss']:.3f}", refresh=False)
            moving.update(i - moving.n)  # more than one where a training goes on
            if context is None:
                return
            n_steps = n // n_epochs
            if i % n_steps == 1 % n_steps or not epochs:
                epochs.append(context.subcontext("epoch"))
                epochs[-1].call_on_fit_task_begin(estimator=estimator, metadata=losses)
            if i % n_steps == 0:
                epochs[-1].call_on_fit_task_end(estimator=estimator, metadata=losses)

        yield progress
    if context is not None:
        context.call_on_fit_task_end(
            estimator=estimator, X=X, y=y, reconstruction_attributes={}
        )
