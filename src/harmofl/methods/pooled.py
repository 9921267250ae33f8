"""pooled: train on the images of all sites in one place; a baseline without federated learning.

The upper baseline of McMahan et al. 2017 and of most papers since. https://arxiv.org/abs/1602.05629
"""

from dataclasses import dataclass
from typing import ClassVar

from harmofl.errors import ConfigError
from harmofl.methods.fedavg import FedAvg


@dataclass(frozen=True, kw_only=True)
class Pooled(FedAvg):
    """w <- w - eta grad f(w) on the training images of all sites together; scored at each site like every method.

    A batch holds images of one site, and the sites' batches come in random order: as many steps as all sites take
    together, on the same kind of batch as in every other method. Otherwise a network with batch statistics would be
    trained on the statistics of a mixture and tested on those of a site.
    """

    pooled: ClassVar[bool] = True
    sends: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rings and self.reference == "site":
            raise ConfigError('pooled trains at one place, which has one profile; set reference="image"')
