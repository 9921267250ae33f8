import pytest
import torch

from harmofl.errors import ConfigError, ShapeError
from harmofl.models import NORMALIZATIONS, DenseNet, densenet

SMALL = {"growth": 4, "blocks": (3, 2, 2, 2), "initial": 8}


def gradients(network: DenseNet, images: torch.Tensor) -> list[torch.Tensor]:
    network.zero_grad()
    network(images).logsumexp(dim=1).sum().backward()
    return [parameter.grad.clone() for parameter in network.parameters()]


def test_default_size() -> None:
    assert sum(p.numel() for p in DenseNet().parameters()) == 6_872_258


def test_initial_weights() -> None:
    torch.manual_seed(0)
    network = DenseNet()
    weight = network.first.weight
    assert weight.std().item() == pytest.approx((2 / (3 * 49)) ** 0.5, rel=0.05)
    assert not network.classifier.bias.any()


@pytest.mark.parametrize("size", [64, 97])
def test_normalizing_once_changes_nothing(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    torch.manual_seed(0)
    network, images = DenseNet(**SMALL), torch.rand(4, 3, size, size)
    calls: list[bool] = []
    once = densenet._DenseBlock._normalize_once
    monkeypatch.setattr(
        densenet._DenseBlock, "_normalize_once", lambda *arguments: calls.append(True) or once(*arguments)
    )
    logits, found = network(images), gradients(network, images)
    assert len(calls) == 8
    monkeypatch.setattr(densenet, "holds_nothing", lambda layer: False)
    torch.testing.assert_close(logits, network(images), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found, gradients(network, images), rtol=1e-4, atol=1e-5)
    assert len(calls) == 8


@pytest.mark.parametrize("norm", NORMALIZATIONS)
def test_pooling_first_changes_nothing(norm: str) -> None:
    torch.manual_seed(0)
    transition, x = densenet._Transition(8, 4, norm), torch.randn(2, 8, 7, 9)
    later = torch.nn.functional.avg_pool2d(transition.conv(transition.norm(x).relu()), 2)
    torch.testing.assert_close(transition(x), later, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", NORMALIZATIONS)
@pytest.mark.parametrize("height,width", [(32, 32), (33, 50), (64, 47)])
def test_every_size_and_regime(norm: str, height: int, width: int) -> None:
    torch.manual_seed(0)
    network = DenseNet(channels=1, classes=5, norm=norm, **SMALL)
    images = torch.rand(3, 1, height, width)
    assert network(images).shape == (3, 5)
    assert all(torch.isfinite(gradient).all() for gradient in gradients(network, images))
    assert network.features(images).shape == (3, network.classifier.in_features)


def test_zeros_surround_the_first_block() -> None:
    """32 pixels: 16 and 8 behind the first layers, 8 + 2 + 2 = 12, then 6, 3 and 1."""
    network, shapes = DenseNet(**SMALL), []
    for stage in network.stages:
        stage.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape[-1]))
    network(torch.rand(2, 3, 32, 32))
    assert shapes == [8, 12, 6, 6, 3, 3, 1, 1]


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_a_single_image_at_the_smallest_size(norm: str) -> None:
    """One map value per channel in the last block: regimes without a batch must still tell images apart."""
    torch.manual_seed(0)
    network = DenseNet(norm=norm, **SMALL)
    first, second = network(torch.rand(1, 3, 32, 32)), network(torch.rand(1, 3, 32, 32))
    assert torch.isfinite(first).all() and not torch.equal(first, second)


@pytest.mark.parametrize("norm", ["group", "instance"])
def test_an_image_does_not_depend_on_its_batch(norm: str) -> None:
    network, images = DenseNet(norm=norm, **SMALL), torch.rand(3, 3, 40, 40)
    torch.testing.assert_close(network(images)[:1], network(images[:1]), rtol=1e-5, atol=1e-5)


def test_batch_statistics_in_evaluation() -> None:
    torch.manual_seed(0)
    network, images = DenseNet(**SMALL), torch.rand(4, 3, 40, 40)
    assert torch.equal(network.eval()(images), network.train()(images))
    assert not torch.allclose(network.eval()(images)[:2], network(images[:2]), atol=1e-4)
    tracked = DenseNet(norm="batch", **SMALL).eval()
    torch.testing.assert_close(tracked(images)[:2], tracked(images[:2]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 31, 64), (2, 1, 64, 64), (3, 64, 64)])
def test_images_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match=r"needs \(N, 3, H, W\) images with H, W >= 32, got"):
        DenseNet(**SMALL)(torch.rand(shape))


@pytest.mark.parametrize("wrong", [{"growth": 0}, {"blocks": ()}, {"blocks": (1,) * 5}, {"blocks": (2, 0)}])
def test_counts_out_of_range(wrong: dict) -> None:
    with pytest.raises(ConfigError, match="1 to 4 blocks and counts >= 1"):
        DenseNet(**wrong)
