"""Base class of the layers before a network that learn a statistic of the images and normalize with it."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from harmofl.errors import ShapeError
from harmofl.types import Role
from harmofl.utils.validators import check_within

Per = Literal["image", "site"]
Space = Literal["intensity", "density"]
DARKEST = 1 / 255
"""Intensity below which the optical density does not grow."""


def wide(x: Tensor) -> Tensor:
    """Return x in float32 or float64: in float16 the sum of a 384 x 384 image overflows."""
    return x if x.dtype == torch.float64 else x.float()


class ImageNorm(nn.Module):
    """Base class of normalizers: learns the running mean S of a statistic of the images, and normalizes with it.

    S_k = (1 - v) S_{k-1} + v mean_m S(x_m), S_0 = 0, divided by 1 - (1 - v)^k        (HarmoFL Eq 3, bias corrected)

    A subclass defines `statistic` and `normalize`. While training and not frozen, each batch first updates S; in
    evaluation, once frozen, and inside `held()`, S does not change. Before the first batch images pass through
    unchanged. The state is in `state_dict`: `amplitude`, which is S and has the name of HarmoFL's statistic, `width` W
    if images must have one size, `count` k and `frozen`; all but S stay on the CPU. In a federation S is averaged over
    the sites after round 1.

    With `per="site"` the state has `own` too: S_i of the site itself, from the time S was learnt, which stays there. A
    site without S_i, such as a new one, uses the statistic of the current batch.

    Args:
        decay: v, the weight of the newest batch, in [0, 1]; with 0 the statistic of the first batch is kept.
        per: "image", or "site" if the layer needs the site's own statistic.
        space: "intensity", or "density" to learn and normalize the optical density, -log(max(x, 1/255)), in which
            stains add up.

    Raises:
        ConfigError: if an argument is out of range.
    """

    amplitude: Tensor
    own: Tensor
    width: Tensor
    count: Tensor
    frozen: Tensor
    what: ClassVar[str] = "amplitude"
    """The statistic, as reports call it; "" if there is none."""
    bounded: ClassVar[bool] = True
    """True if the norm of S is bounded as an amplitude's is, and any S near a valid one is valid."""
    records: ClassVar[bool] = False
    """True if the class itself declares that `normalize` does the same work for all images, without looking at them."""
    roles: ClassVar[Mapping[str, Role]] = {
        **dict.fromkeys(("amplitude", "width", "count", "frozen"), Role.COLLECTED),
        "own": Role.LOCAL,
    }
    """The role of each tensor in a federation."""

    def __init__(self, decay: float = 0.1, per: Per = "image", space: Space = "intensity") -> None:
        super().__init__()
        check_within("decay", decay, "[0, 1]")
        check_within("per", per, "image or site")
        check_within("space", space, "intensity or density")
        self.decay, self.per, self.space, self._held = decay, per, space, False
        self._beside: tuple[ImageNorm, ...] = ()  # in a tuple, so that it is not part of the state
        self.register_buffer("amplitude", torch.zeros(0))
        self.register_buffer("width", torch.tensor(0, device="cpu"))
        self.register_buffer("count", torch.tensor(0, device="cpu"))
        self.register_buffer("frozen", torch.tensor(False, device="cpu"))
        if per == "site":
            self.register_buffer("own", torch.zeros(0))

    def statistic(self, x: Tensor) -> Tensor:
        """Return S(x), (N, ...), of images (N, C, H, W) or volumes; (N, 0) by default, for layers that learn none."""
        return x.new_zeros(len(x), 0)

    def normalize(self, x: Tensor) -> Tensor:
        """Return the normalized images, of the shape and type of x."""
        raise NotImplementedError

    @property
    def learns(self) -> bool:
        """True if the layer learns a statistic, which a site sends."""
        return bool(self.what)

    @property
    def takes_noise(self) -> bool:
        """True if S is still valid after clipping and noise."""
        return self.bounded and self.space == "intensity"

    @property
    def is_learning(self) -> bool:
        """True if training batches update the state."""
        return not self.frozen or bool(self._beside)

    @property
    def is_idle(self) -> bool:
        """True if images never change."""
        return False

    @property
    def lacks_own(self) -> bool:
        """True if the layer needs a site's own statistic and has none, so that an output depends on the batch."""
        return self.per == "site" and not self.is_idle and not self.own.numel()

    def own_of(self, x: Tensor) -> Tensor:
        """Return S_i of the site, or of the batch x, in the layer's space, if the site has none."""
        return self.own if self.own.numel() else self.mean_statistic(x.detach())

    def of(self, x: Tensor) -> Tensor:
        """Return the mean statistic of images in [0, 1], which may serve as `own`."""
        return self.mean_statistic(self._in_space(x))

    def mean_statistic(self, x: Tensor) -> Tensor:
        """Return the mean of the statistic over a batch."""
        return self.statistic(x).mean(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalized images, (N, C, H, W), or volumes, (N, C, D, H, W); see the class."""
        if self.is_idle and not self.learns:
            return x
        if x.dim() not in (4, 5) or not x.is_floating_point():
            raise ShapeError(
                "images must be (N, C, H, W), and volumes (N, C, D, H, W), of a floating-point type, got "
                f"{tuple(x.shape)} {x.dtype}"
            )
        if not x.numel():
            return x
        if self.training and not self._held:
            plain = x.detach().as_subclass(Tensor)  # a MetaTensor would put its file names into the state
            for layer in self._beside if self.frozen else (self,):
                layer._learn(plain)
                if self.per == "site":
                    self.own = layer.amplitude.clone()
        return _in_layout_of(x, self.normalized(x)) if self.count else x

    def normalized(self, x: Tensor) -> Tensor:
        """Return images that were normalized in the layer's space; nothing is learnt."""
        with torch.autocast(x.device.type, enabled=False):
            if self.space == "intensity" or self.is_idle:
                return self.normalize(x)
            return (-self.normalize(self._in_space(x)).clamp_min(0)).exp().to(x.dtype)

    def _in_space(self, x: Tensor) -> Tensor:
        return x if self.space == "intensity" else -wide(x).clamp_min(DARKEST).log()

    def learn_beside(self, wanted: bool) -> None:
        """Set whether a frozen layer learns a second statistic from further images, beside the one in use."""
        self._beside = ()
        if wanted:
            fresh = deepcopy(self)
            for name, buffer in list(fresh.named_buffers()):
                empty = buffer.dim() and name in ("amplitude", "own")
                setattr(fresh, name, buffer.new_zeros(0) if empty else torch.zeros_like(buffer))
            self._beside = (fresh,)

    @property
    def beside(self) -> Tensor | None:
        """The statistic learnt beside the one in use, or None."""
        return next((layer.amplitude for layer in self._beside if layer.count), None)

    def freeze(self) -> None:
        """Stop updating S; the server does so when it has averaged the sites' statistics after round 1."""
        self.frozen.fill_(True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Stop training batches from updating S within the context, for a second pass over a batch."""
        before, self._held = self._held, True
        try:
            yield
        finally:
            self._held = before

    @torch.no_grad()
    def _learn(self, plain: Tensor) -> None:
        if self.decay == 0 and self.count:  # the statistic of the first batch is kept
            self.count += 1
            return
        with torch.autocast(plain.device.type, enabled=False):
            batch_mean = self.of(plain)
        if not self.count:
            self.amplitude = torch.zeros_like(batch_mean)
        self.count += 1
        self.amplitude = torch.lerp(self.amplitude, batch_mean.to(self.amplitude), self._rate(int(self.count)))

    def _rate(self, k: int) -> float:
        """Return the step of the bias-corrected average, v / (1 - (1 - v)^k); 1 at k = 1."""
        if k == 1 or self.decay in (0, 1):
            return float(k == 1 or self.decay)
        return self.decay / -math.expm1(k * math.log1p(-self.decay))

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "ImageNorm":
        """Move with the model, but keep the flags on the CPU (no device round trip) and S at least in float32."""
        kept = dict(self.named_buffers())
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.width, self.count, self.frozen = kept["width"], kept["count"], kept["frozen"]
        for name, buffer in list(self.named_buffers()):
            if buffer.dtype in (torch.float16, torch.bfloat16):
                setattr(self, name, kept[name].to(buffer.device))
        return self

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Load the state after resizing the buffers to its shapes."""
        for name, buffer in list(self.named_buffers()):
            loaded = state_dict.get(prefix + name)
            if loaded is not None and loaded.shape != buffer.shape:
                setattr(self, name, buffer.new_zeros(loaded.shape))
        super()._load_from_state_dict(state_dict, prefix, *args)

    def _check_channels(self, x: Tensor, channels: int) -> None:
        if x.shape[1] != channels:
            raise ShapeError(f"images must have {channels} channels, as those learnt on, got {x.shape[1]}")


def _in_layout_of(x: Tensor, result: Tensor) -> Tensor:
    """Return the result in channels-last memory if x is, as elementwise layers do."""
    last = torch.channels_last if x.dim() == 4 else torch.channels_last_3d
    kept = x.is_contiguous(memory_format=last) and not x.is_contiguous()
    return result.contiguous(memory_format=last) if kept else result
