"""Tests that hold for both networks, and those of the U-Net's padding."""

from functools import partial

import pytest
import torch
from torch.nn import functional

from harmofl.errors import ConfigError, ShapeError
from harmofl.models import NORMALIZATIONS, DenseNet, UNet, unet

SMALL = {"unet": partial(UNet, features=4), "densenet": partial(DenseNet, growth=4, blocks=(3, 2, 2, 2), initial=8)}


@pytest.mark.parametrize(("network", "count"), [(UNet, 7_757_186), (DenseNet, 6_872_258)])
def test_default_size(network: type, count: int) -> None:
    assert sum(p.numel() for p in network().parameters()) == count


@pytest.mark.parametrize("norm", NORMALIZATIONS)
@pytest.mark.parametrize(
    ("name", "height", "width"),
    [
        *(("unet", 1, 1), ("unet", 16, 16), ("unet", 37, 50), ("unet", 64, 16)),
        *(("densenet", 32, 32), ("densenet", 33, 50), ("densenet", 64, 47)),
    ],
)
def test_every_size_and_regime(name: str, norm: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    network, images = SMALL[name](channels=1, classes=5, norm=norm), torch.rand(3, 1, height, width)
    logits = network(images)
    assert logits.shape == ((3, 5) if name == "densenet" else (3, 5, height, width))
    logits.logsumexp(dim=1).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())
    if name == "densenet":
        assert network.features(images).shape == (3, network.classifier.in_features)


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize(("name", "size"), [("unet", 16), ("densenet", 32)])
def test_a_single_image_whose_last_map_is_one_pixel(name: str, size: int, norm: str) -> None:
    """One map value per channel in the last block: regimes without a batch must still tell images apart."""
    torch.manual_seed(0)
    network = SMALL[name](norm=norm)
    first, second = network(torch.rand(1, 3, size, size)), network(torch.rand(1, 3, size, size))
    assert torch.isfinite(first).all() and not torch.equal(first, second)


@pytest.mark.parametrize("norm", ["group", "instance"])
@pytest.mark.parametrize("name", SMALL)
def test_an_image_does_not_depend_on_its_batch(name: str, norm: str) -> None:
    network, images = SMALL[name](norm=norm), torch.rand(3, 3, 40, 40)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        *(("unet", shape, r"needs \(N, 3, H, W\) images, got") for shape in [(2, 1, 32, 32), (3, 32, 32)]),
        *(
            ("densenet", shape, r"needs \(N, 3, H, W\) images with H, W >= 32, got")
            for shape in [(2, 3, 31, 64), (2, 1, 64, 64), (3, 64, 64)]
        ),
    ],
)
def test_images_that_do_not_fit(name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        SMALL[name]()(torch.rand(shape))


@pytest.mark.parametrize("wrong", [{"growth": 0}, {"blocks": ()}, {"blocks": (1,) * 5}, {"blocks": (2, 0)}])
def test_counts_out_of_range(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="1 to 4 blocks and counts >= 1"):
        DenseNet(**wrong)
    with pytest.raises(ConfigError, match="features=0"):
        UNet(features=0)


def test_padding_repeats_the_border_and_is_cropped() -> None:
    torch.manual_seed(0)
    network, images = UNet(features=4), torch.rand(2, 3, 30, 41)
    padded = functional.pad(images, (0, 7, 0, 2), mode="replicate")
    assert torch.equal(network(images), network(padded)[:, :, :30, :41])


def test_multiples_of_16_are_not_copied() -> None:
    images = torch.rand(1, 3, 32, 48)
    assert unet._pad(images) is images
