"""The optimizer: Muon for the kernels, Adam for biases and normalisation.

Muon [1]_ takes the mean gradient of a kernel as a matrix, output channels by inputs,
and makes its singular values about equal: rare directions are followed as far as
common ones. Its steps are scaled as in [2]_. It needs fewer images than AdamW alone:
see docs/method.md.

References
----------
.. [1] Jordan, K. et al. (2024). Muon: an optimizer for hidden layers in neural
   networks. https://kellerjordan.github.io/posts/muon/
.. [2] Liu, J. et al. (2025). Muon is scalable for LLM training. arXiv:2502.16982.
"""

from typing import Any

from torch import Tensor, nn
from torch.optim import Adam, Muon
from torch.optim.lr_scheduler import OneCycleLR

from skad.common.torch_settings import limit_threads

_ADAM_RATE = 0.3  # of Muon's learning rate
_RISE = 0.1  # of the steps, up to the peak of the learning rate


class Optimizer:
    """Muon and Adam with one-cycle schedules; `learning_rate` is the peak of Muon's.

    The kernels of the network must have the channels-last memory format.
    """

    def __init__(self, network: nn.Module, learning_rate: float, n_steps: int) -> None:
        self._network = network
        self._kernels = [p for p in network.parameters() if p.ndim == 4]
        others = [p for p in network.parameters() if p.ndim != 4]
        # Views: a step of a matrix is a step of its kernel.
        self._matrices = [
            nn.Parameter(_channels_last(p.detach()).view(len(p), -1))
            for p in self._kernels
        ]
        self._muon = Muon(
            self._matrices,
            learning_rate,
            momentum=0.9,
            weight_decay=0.1,
            adjust_lr_fn="match_rms_adamw",
        )
        adam_rate = _ADAM_RATE * learning_rate
        # Of exactly ten rates the first would be the whole rise, which OneCycleLR then
        # divides by zero; a bit shorter, it begins at the peak.
        rise = _RISE if n_steps != 9 else 0.999 * _RISE
        self._adam = Adam(others, adam_rate)
        self._schedules = [
            OneCycleLR(
                optimizer,
                peak,
                total_steps=n_steps + 1,
                pct_start=rise,
                cycle_momentum=optimizer is self._adam,
            )
            for optimizer, peak in (
                (self._muon, learning_rate),
                (self._adam, adam_rate),
            )
        ]
        self._parts: tuple[Any, ...] = (self._muon, self._adam, *self._schedules)

    def step(self, loss: Tensor) -> None:
        """Take a step down the gradient of a loss."""
        self._network.zero_grad(set_to_none=True)
        loss.backward()
        for kernel, matrix in zip(self._kernels, self._matrices, strict=True):
            if kernel.grad is not None:
                matrix.grad = _channels_last(kernel.grad).flatten(1)
        with limit_threads(1):
            self._muon.step()
        self._adam.step()
        for schedule in self._schedules:
            schedule.step()

    def state_dict(self) -> dict[str, Any]:
        """Return momenta and schedules."""
        return {"parts": [part.state_dict() for part in self._parts]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for part, held in zip(self._parts, state["parts"], strict=True):
            part.load_state_dict(held)


def _channels_last(kernel: Tensor) -> Tensor:
    """View a kernel (c_out, c_in, h, w) as (c_out, h, w, c_in)."""
    return kernel.movedim(1, 3)
