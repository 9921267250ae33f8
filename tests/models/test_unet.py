import pytest
import torch
from torch.nn import functional

from harmofl.errors import ConfigError, ShapeError
from harmofl.models import NORMALIZATIONS, UNet, unet


def test_default_size() -> None:
    assert sum(p.numel() for p in UNet().parameters()) == 7_757_186


@pytest.mark.parametrize("norm", NORMALIZATIONS)
@pytest.mark.parametrize("height,width", [(1, 1), (16, 16), (37, 50), (64, 16)])
def test_every_size_and_regime(norm: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    network = UNet(channels=2, classes=4, norm=norm, features=4)
    logits = network(torch.rand(2, 2, height, width))
    assert logits.shape == (2, 4, height, width)
    logits.logsumexp(dim=1).sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in network.parameters())


def test_padding_repeats_the_border_and_is_cropped() -> None:
    torch.manual_seed(0)
    network, images = UNet(features=4), torch.rand(2, 3, 30, 41)
    padded = functional.pad(images, (0, 7, 0, 2), mode="replicate")
    assert torch.equal(network(images), network(padded)[:, :, :30, :41])


def test_multiples_of_16_are_not_copied() -> None:
    images = torch.rand(1, 3, 32, 48)
    assert unet._pad(images) is images


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_a_single_image_whose_last_map_is_one_pixel(norm: str) -> None:
    torch.manual_seed(0)
    network = UNet(norm=norm, features=4)
    assert torch.isfinite(network(torch.rand(1, 3, 16, 16))).all()


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_an_image_does_not_depend_on_its_batch(norm: str) -> None:
    network, images = UNet(norm=norm, features=4), torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 1, 32, 32), (3, 32, 32)])
def test_images_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"needs \(N, 3, H, W\) images, got"):
        UNet(features=4)(torch.rand(shape))


def test_counts_out_of_range() -> None:
    with pytest.raises(ConfigError, match="features=0"):
        UNet(features=0)
