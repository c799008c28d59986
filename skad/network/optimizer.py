"""How training moves the weights: kernels by Muon, the few other numbers by Adam.

Muon [1]_ takes the mean gradient of a kernel as a matrix, of output channels by all
that they see, and makes its singular values about equal: directions that few images ask
for are followed as far as those that all ask for. Its steps are scaled as in [2]_. It
needs fewer images than AdamW alone: see docs/method.md.

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

_OTHERS_RATE = 0.3  # of the kernels': with it, 0.003 is what AdamW alone does best with
_RISE = 0.1  # of the steps, up to the peak


class Optimizer:
    """Moves the weights of a network, with a one-cycle schedule of the learning rate.

    Parameters
    ----------
    network : torch.nn.Module
        The kernels of its convolutions lie in memory with their channels last.
    learning_rate : float
        The peak, after a tenth of the steps. It is the kernels'; the other numbers have
        a smaller one.
    n_steps : int
    """

    def __init__(self, network: nn.Module, learning_rate: float, n_steps: int) -> None:
        self._network = network
        self._kernels = [p for p in network.parameters() if p.ndim == 4]
        others = [p for p in network.parameters() if p.ndim != 4]
        # Views: what moves a matrix moves its kernel.
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
        rate = _OTHERS_RATE * learning_rate
        # Of exactly ten rates the first would be the whole rise, which OneCycleLR then
        # divides by zero; a bit shorter, it begins at the peak.
        rise = _RISE if n_steps != 9 else 0.999 * _RISE
        self._adam = Adam(others, rate)
        self._schedules = [
            OneCycleLR(
                optimizer,
                peak,
                total_steps=n_steps + 1,
                pct_start=rise,
                cycle_momentum=optimizer is self._adam,
            )
            for optimizer, peak in ((self._muon, learning_rate), (self._adam, rate))
        ]

    def step(self, loss: Tensor) -> None:
        """Move the weights against the gradient of a loss."""
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
        """Return what changes from step to step, the weights aside."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from there."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        for optimizer in (self._muon, self._adam):
            for weights, held in optimizer.state.items():
                if any(v.ndim and v.shape != weights.shape for v in held.values()):
                    raise ValueError("a momentum has another shape than its weights")

    def _parts(self) -> dict[str, Any]:
        schedules = dict(zip(("muon_rate", "adam_rate"), self._schedules, strict=True))
        return {"muon": self._muon, "adam": self._adam, **schedules}


def _channels_last(kernel: Tensor) -> Tensor:
    """View a kernel (c_out, c_in, h, w) as (c_out, h, w, c_in)."""
    return kernel.movedim(1, 3)
