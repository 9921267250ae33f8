"""pooled: all images in one place, a yardstick: what there would be to gain if they could leave the building.

The upper yardstick of McMahan et al. 2017 and of most papers since. https://arxiv.org/abs/1602.05629
"""

from dataclasses import dataclass
from typing import ClassVar

from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class Pooled(FedAvg):
    """w <- w - eta grad f(w) on the training images of all sites together; scored at each site as every method is."""

    pooled: ClassVar[bool] = True
    sends: ClassVar[bool] = False
