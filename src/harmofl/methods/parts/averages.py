"""Averages: what the server makes of the sites' weights. The extras of methods use the mean, whatever the average."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from harmofl.errors import ConfigError
from harmofl.federated.aggregation import clipped_changes, trimmed_mean
from harmofl.federated.messages import ClientUpdate
from harmofl.federated.tensors import Arrays, mean
from harmofl.methods.hyperparameters import Hyperparameters


@dataclass(frozen=True, kw_only=True)
class Average(Hyperparameters):
    """Average of the sites' arrays with the shares p_i.

    Args:
        weighting: p_i; "uniform" gives every site 1/N (as the HarmoFL code does), "samples" n_i / n (as FedAvg's
            paper does).
    """

    ranges: ClassVar[Mapping[str, str]] = {"weighting": "uniform or samples"}
    weighting: Literal["uniform", "samples"] = "uniform"

    def weight(self, update: ClientUpdate) -> float:
        """Return the value that p_i is proportional to: 1, or n_i."""
        return float(update.num_samples) if self.weighting == "samples" else 1.0

    def __call__(
        self, arrays: Sequence[Arrays], shares: Sequence[float], before: Arrays, params: Collection[str]
    ) -> dict[str, Tensor]:
        """Return the average for every name.

        Args:
            arrays: the arrays of N sites, with the same names and shapes.
            shares: p_i.
            before: the arrays that were sent to the sites.
            params: the names of the trainable ones.

        Raises:
            ShapeError: if the entries differ in names or shapes.
        """
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Mean(Average):
    """sum_i p_i a_i."""

    def __call__(
        self, arrays: Sequence[Arrays], shares: Sequence[float], before: Arrays, params: Collection[str]
    ) -> dict[str, Tensor]:
        """Return the weighted mean."""
        return mean(arrays, shares)


@dataclass(frozen=True, kw_only=True)
class Median(Average):
    """Median of each number, without p_i (Yin et al., "Byzantine-Robust Distributed Learning", ICML 2018)."""

    def __call__(
        self, arrays: Sequence[Arrays], shares: Sequence[float], before: Arrays, params: Collection[str]
    ) -> dict[str, Tensor]:
        """Return the median of each number."""
        return trimmed_mean(arrays, shares, (len(arrays) - 1) // 2)


@dataclass(frozen=True, kw_only=True)
class Trimmed(Average):
    """Mean of each number without its smallest and largest values, without p_i (Yin et al., ICML 2018).

    Args:
        trim: share of the sites that is left out at either end, rounded down but at least one site, in [0, 0.5); 0
            leaves out none.
    """

    ranges: ClassVar[Mapping[str, str]] = {"trim": "[0, 0.5)"}
    trim: float = 0.2

    def __call__(
        self, arrays: Sequence[Arrays], shares: Sequence[float], before: Arrays, params: Collection[str]
    ) -> dict[str, Tensor]:
        """Return the trimmed mean of each number."""
        most = (len(arrays) - 1) // 2
        return trimmed_mean(arrays, shares, min(most, max(1, int(self.trim * len(arrays)))) if self.trim else 0)


@dataclass(frozen=True, kw_only=True)
class Clipped(Average):
    """Mean after each site's change of the params is clipped to the median norm of the changes.

    Sun et al., "Can You Really Backdoor Federated Learning?", 2019. https://arxiv.org/abs/1911.07963
    """

    def __call__(
        self, arrays: Sequence[Arrays], shares: Sequence[float], before: Arrays, params: Collection[str]
    ) -> dict[str, Tensor]:
        """Return the weighted mean of the clipped changes."""
        return mean(clipped_changes(arrays, before, params), shares)


def check_complete(average: Average, averaged: object, sent: Arrays) -> None:
    """Raise ConfigError unless an average, as one of a user, has each tensor that the sites sent, with its shape."""
    found = averaged if isinstance(averaged, Mapping) else {}
    odd = [name for name, value in sent.items() if value.numel() and not _like(found.get(name), value)]
    if odd:
        more = f" and {len(odd) - 1} more" if len(odd) > 1 else ""
        must = "an average must return a tensor of the same shape for every name that the sites sent"
        raise ConfigError(f"{average}: {must}, but does not for {odd[0]}{more}; return one for each name of `arrays`")


def _like(value: object, sent: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == sent.shape
