"""A running average of the weights, which often reconstructs better than the last step's.

Polyak and Juditsky 1992, doi:10.1137/0330046.
"""

from collections.abc import Sequence

import torch
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


class WeightAverage(WeightAveraging):
    """Averages weights exponentially, step by step; validation and checkpoints have the average.

    The n-th step's decay is the smaller of ``decay`` and n / (n + 9), so that a short training
    does not remember the random weights that it began with. Checkpoints have the average as their
    ``state_dict``; the weights that training goes on with are beside it.

    Args:
        decay: of the average so far, a step; such as 0.999.
        device: where the average is kept.
    """

    def __init__(self, decay: float, device: torch.device) -> None:
        def average(averages: Sequence[Tensor], weights: Sequence[Tensor], done: Tensor) -> None:
            share = 1 - min(decay, (1 + int(done)) / (10 + int(done)))
            torch._foreach_lerp_(list(averages), list(weights), share)

        super().__init__(device=device, use_buffers=False, multi_avg_fn=average)
