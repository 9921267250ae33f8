"""Normalizers of intensity and color, against scikit-image, NumPy, torchstain and images of known stains."""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from harmofl.errors import ConfigError, ShapeError
from harmofl.intensity import landmarks, macenko, reinhard
from harmofl.intensity.jitter import AmplitudeJitter, StainJitter
from harmofl.intensity.landmarks import HistogramNorm
from harmofl.intensity.macenko import MacenkoNorm
from harmofl.intensity.reinhard import ReinhardNorm
from harmofl.intensity.zscore import ZScoreNorm
from harmofl.spectral.amplitude import AmplitudeNorm, amplitude
from harmofl.spectral.image_norm import ImageNorm
from harmofl.spectral.radial_profile import ProfileNorm

STAINS = torch.tensor(macenko.PUBLISHED[:3])
STAINS = STAINS / STAINS.norm(dim=0)


def stained(seed: int = 0, V: Tensor = STAINS, strength: float = 1.0, size: int = 48) -> Tensor:
    """Return an image (1, 3, H, W) of two stains that also occur alone, with clear pixels."""
    generator = torch.Generator().manual_seed(seed)
    c = torch.rand(2, size * size, generator=generator) * 1.2 + 0.5
    kind = torch.randint(0, 5, (size * size,), generator=generator)
    c[0, kind == 1], c[1, kind == 2] = 0, 0
    c[:, kind == 3] = 0
    x = macenko.WHITE * (-(V @ c) * strength).exp() - 1 / 255
    return x.clamp(0, 1).view(1, 3, size, size)


def learnt(layer: ImageNorm, x: Tensor) -> ImageNorm:
    layer.train()(x)
    layer.freeze()
    return layer.eval()


# z-scores


@pytest.mark.parametrize("shape", [(4, 3, 8, 9), (2, 1, 4, 6, 5)])
def test_z_scores_of_each_image(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    z = learnt(ZScoreNorm(), x)(x).flatten(2)
    assert torch.allclose(z.mean(dim=-1), torch.zeros(()), atol=1e-5)
    assert torch.allclose(z.std(dim=-1, correction=0), torch.ones(()), atol=1e-5)


def test_z_scores_of_a_site_are_one_linear_map() -> None:
    x = torch.rand(6, 2, 8, 8) * torch.tensor([0.2, 0.9])[:, None, None]
    layer = learnt(ZScoreNorm("site"), x)
    assert torch.allclose(layer(x), x, atol=1e-5)  # all sites have its mean and deviation
    layer.amplitude = torch.tensor([[0.5, 0.5**2 + 0.1**2], [0.3, 0.3**2 + 0.2**2]])
    z = layer(x)
    pixels = x.transpose(0, 1).flatten(1).numpy()
    scores = (pixels - pixels.mean(axis=1, keepdims=True)) / pixels.std(axis=1, keepdims=True)
    expected = np.array([[0.5], [0.3]]) + np.array([[0.1], [0.2]]) * scores
    assert np.allclose(z.transpose(0, 1).flatten(1), expected, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_z_scores_of_a_constant_image_are_0(value: float) -> None:
    x = torch.full((2, 1, 7, 7), value)
    assert torch.equal(learnt(ZScoreNorm(), x)(x), torch.zeros_like(x))


def test_z_scores_of_images_learn_nothing_to_send() -> None:
    layer = learnt(ZScoreNorm(), torch.rand(2, 3, 8, 8))
    assert not layer.learns and not layer.amplitude.numel()
    assert ZScoreNorm("site").learns


# histograms


def test_quantiles_are_those_of_numpy() -> None:
    values = torch.rand(3, 2, 101, dtype=torch.float64)
    levels = torch.tensor([0, 0.01, 0.33, 0.5, 1.0], dtype=torch.float64)
    expected = np.quantile(values.numpy(), levels.numpy(), axis=-1).transpose(1, 2, 0)
    assert np.allclose(landmarks.quantiles(values, levels), expected)


def test_quantiles_of_the_smallest_values() -> None:
    values = torch.tensor([[5.0, 1.0, torch.inf, 3.0], [torch.inf, 2.0, torch.inf, torch.inf]])
    assert landmarks.quantiles(values, torch.tensor([0.5]), torch.tensor([3, 1])).tolist() == [[3.0], [2.0]]


def test_the_map_between_landmarks_is_that_of_numpy_and_goes_on_beyond_them() -> None:
    x = torch.linspace(0, 1, 50, dtype=torch.float64).view(1, 1, 5, 10)
    own, common = torch.tensor([0.2, 0.5, 0.8]).double(), torch.tensor([0.1, 0.6, 0.7]).double()
    found = landmarks.mapped(x, own[None, None], common[None]).flatten().numpy()
    v = x.flatten().numpy()
    expected = np.interp(v, own, common)
    expected = np.where(v < 0.2, 0.1 + (v - 0.2) * 0.5 / 0.3, expected)
    expected = np.where(v > 0.8, 0.7 + (v - 0.8) * 0.1 / 0.3, expected)
    assert np.allclose(found, expected)


def test_two_landmarks_give_a_linear_map() -> None:
    x = torch.rand(1, 1, 4, 4)
    found = landmarks.mapped(x, torch.tensor([[[0.2, 0.6]]]), torch.tensor([[0.0, 1.0]]))
    assert torch.allclose(found, (x - 0.2) / 0.4, atol=1e-6)


def test_equal_landmarks_give_a_step() -> None:
    x = torch.tensor([[[[0.0, 0.0, 0.5, 1.0]]]])
    found = landmarks.mapped(x, torch.tensor([[[0.0, 0.0, 1.0]]]), torch.tensor([[0.0, 0.2, 1.0]]))
    assert torch.allclose(found.flatten(), torch.tensor([0.0, 0.0, 0.6, 1.0]))


def test_images_get_the_percentiles_of_the_common_histogram() -> None:
    bright, dark = torch.rand(4, 1, 64, 64) ** 0.5, torch.rand(4, 1, 64, 64) ** 2
    layer = learnt(HistogramNorm(), bright)
    assert torch.allclose(layer.statistic(layer(dark)), layer.amplitude.expand(4, -1, -1), atol=0.02)
    assert torch.allclose(layer(bright), bright, atol=0.05)


@pytest.mark.parametrize("value", [0.0, 0.4])
def test_a_constant_image_stays_finite(value: float) -> None:
    layer = learnt(HistogramNorm(), torch.rand(4, 1, 16, 16))
    assert layer(torch.full((1, 1, 16, 16), value)).isfinite().all()


def test_the_landmarks_are_those_published() -> None:
    assert HistogramNorm().levels.tolist() == pytest.approx([0.01, *(k / 10 for k in range(1, 10)), 0.99])
    with pytest.raises(ConfigError, match="landmarks must be"):
        HistogramNorm(1)


# Reinhard


def test_cielab_is_that_of_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    x = torch.rand(2, 3, 9, 7, dtype=torch.float64)
    x[0, :, :3] *= 0.02  # the linear part
    lab = reinhard.lab_of(x)
    for image, values in zip(x.numpy(), lab.numpy(), strict=True):
        assert np.allclose(values, color.rgb2lab(image, channel_axis=0), atol=1e-3)
    assert torch.allclose(reinhard.rgb_of(lab), x, atol=1e-4)


def test_images_get_the_common_color_statistics() -> None:
    x = 0.3 + 0.4 * torch.rand(4, 3, 32, 32)
    layer = learnt(ReinhardNorm(), x)
    other = 0.4 + 0.2 * torch.rand(4, 3, 32, 32) * torch.tensor([1.0, 0.5, 0.8])[:, None, None]
    assert torch.allclose(layer.statistic(layer(other)), layer.amplitude.expand(4, -1, -1), atol=0.5)  # of 100


def test_torchstain_agrees_on_reinhard() -> None:
    torchstain = pytest.importorskip("torchstain")
    target, x = stained(1), stained(2, strength=0.6)
    target, x = ((255 * image).round() / 255 for image in (target, x))
    theirs = torchstain.normalizers.ReinhardNormalizer(backend="torch")
    theirs.fit((255 * target[0]).round())
    expected = theirs.normalize((255 * x[0]).round()).permute(2, 0, 1).float() / 255
    assert torch.allclose(learnt(ReinhardNorm(), target)(x)[0], expected, atol=2 / 255)


# Macenko


def test_stains_are_found() -> None:
    V, C = macenko.stains(stained())
    assert torch.allclose(V[0], STAINS, atol=0.02)
    assert (C[0] > 1.5).all() and (C[0] < 1.8).all()  # the largest are 1.7


def test_torchstain_agrees_on_macenko() -> None:
    torchstain = pytest.importorskip("torchstain")
    other = torch.tensor([[0.55, 0.15], [0.75, 0.90], [0.38, 0.40]])
    target, x = stained(1), stained(2, other / other.norm(dim=0), 0.7)
    theirs = torchstain.normalizers.MacenkoNormalizer(backend="torch")
    theirs.fit(255 * target[0])
    V, C = macenko.stains(target)
    assert torch.allclose(V[0], theirs.HERef.abs(), atol=5e-3)
    assert torch.allclose(C[0], theirs.maxCRef.abs(), atol=2e-2)
    expected = theirs.normalize(255 * x[0], stains=False)[0].permute(2, 0, 1) / 255
    assert torch.allclose(learnt(MacenkoNorm(), target)(x)[0], expected, atol=3 / 255)


def test_images_get_the_common_stains() -> None:
    target = stained(3)
    layer = learnt(MacenkoNorm(), target)
    other = torch.tensor([[0.50, 0.20], [0.78, 0.92], [0.38, 0.33]])
    V, C = macenko.stains(layer(stained(4, other / other.norm(dim=0), 0.8)))
    assert torch.allclose(V[0], STAINS, atol=0.05)
    assert torch.allclose(C, macenko.stains(target)[1], rtol=0.05)


@pytest.mark.parametrize("blank", [1.0, 0.0, 0.5])
def test_an_image_without_stains_does_not_change_nor_count(blank: float) -> None:
    x = torch.cat((stained(), torch.full((1, 3, 48, 48), blank)))
    layer = learnt(MacenkoNorm(), x)
    assert torch.equal(layer(x)[1], x[1])
    assert torch.allclose(layer.amplitude, learnt(MacenkoNorm(), x[:1]).amplitude)
    alone = learnt(MacenkoNorm(), x[1:])
    assert torch.allclose(alone.amplitude, torch.tensor(macenko.PUBLISHED))
    assert alone(x).isfinite().all()


@pytest.mark.parametrize("layer", [ReinhardNorm(), MacenkoNorm(), StainJitter()])
def test_colors_need_color_images(layer: ImageNorm) -> None:
    with pytest.raises(ShapeError, match=r"is for color images, \(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        layer.train()(torch.rand(2, 1, 8, 8))
        layer(torch.rand(2, 1, 8, 8))


# jitter


@pytest.mark.parametrize("make", [StainJitter, AmplitudeJitter])
def test_jitter_changes_training_images_alone(make: type[ImageNorm]) -> None:
    x, layer = torch.rand(3, 3, 16, 16), make()
    layer.train()
    torch.manual_seed(0)
    one, other = layer(x), layer(x)
    torch.manual_seed(0)
    assert torch.equal(layer(x), one) and not torch.equal(one, other) and not torch.equal(one, x)
    assert torch.equal(layer.eval()(x), x)
    assert torch.equal(make(sigma=0).train()(x), x)  # type: ignore[call-arg]


def test_jittered_stains_keep_the_image_at_no_change_and_agree_with_scikit_image(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    color = pytest.importorskip("skimage.color")
    x = 0.1 + 0.8 * torch.rand(1, 3, 6, 6, dtype=torch.float64)
    a, b = torch.full((1, 3, 1, 1), 0.03).double(), torch.full((1, 3, 1, 1), -0.02).double()
    monkeypatch.setattr(torch, "rand", lambda *shape, **_: (torch.stack((a, b)) / 0.05 + 1) / 2)
    found = StainJitter(0.05).changed(x)
    hed = np.log(x[0].permute(1, 2, 0).numpy()) / np.log(1e-6) @ color.hed_from_rgb  # without its clipping at 0
    expected = color.hed2rgb(hed * 1.03 - 0.02)
    assert np.allclose(found[0].permute(1, 2, 0), np.clip(expected, 0, 1), atol=1e-4)


def test_jittered_amplitudes_keep_the_phase() -> None:
    x = torch.rand(2, 1, 15, 12, dtype=torch.float64)
    changed = AmplitudeJitter(4, 0.5).changed(x)
    phases = [torch.fft.rfft2(image).angle() for image in (x, changed)]
    assert torch.allclose(*phases, atol=1e-6)
    gain = amplitude(changed) / amplitude(x)
    assert len(torch.unique(gain[0].round(decimals=6))) == 5  # four rings and the mean level


# variants of the spectral layers


def test_one_filter_for_a_site_gives_its_mean_amplitude_the_common_one() -> None:
    x = torch.rand(5, 2, 12, 10)
    layer = learnt(AmplitudeNorm(per="site"), x)
    own, common = layer.amplitude.clone(), amplitude(torch.rand(9, 2, 12, 10) * 0.5).mean(dim=0)
    assert torch.equal(layer.own, own)
    layer.amplitude = common
    assert torch.allclose(amplitude(layer(x)).mean(dim=0), common, rtol=1e-3, atol=1e-3)
    ratio = torch.fft.rfft2(layer(x)) / torch.fft.rfft2(x)
    assert torch.allclose(ratio, (common / own).expand_as(ratio).to(ratio.dtype), rtol=1e-3, atol=1e-3)


def test_a_filter_in_a_band_leaves_the_other_frequencies() -> None:
    x = torch.rand(3, 1, 16, 16)
    layer = learnt(AmplitudeNorm(0.2, per="site"), x)
    layer.amplitude = 2 * layer.amplitude
    ratio = (torch.fft.rfft2(layer(x)) / torch.fft.rfft2(x)).abs()
    assert torch.allclose(ratio[..., :4, :4], torch.tensor(2.0), rtol=1e-3)
    assert torch.allclose(ratio[..., 5:12, 4:], torch.tensor(1.0), rtol=1e-3)


@pytest.mark.parametrize("layer", [AmplitudeNorm(0.2, space="density"), ProfileNorm(8, space="density")])
def test_optical_density_is_normalized_where_asked(layer: AmplitudeNorm | ProfileNorm) -> None:
    x = 0.1 + 0.8 * torch.rand(4, 3, 16, 16)
    plain = type(layer)(0.2) if isinstance(layer, AmplitudeNorm) else ProfileNorm(8)
    learnt(plain, -x.log())
    expected = (-plain(-x.log()).clamp_min(0)).exp()
    assert torch.allclose(learnt(layer, x)(x), expected, atol=1e-6)
    assert learnt(layer, torch.zeros(2, 3, 16, 16))(torch.zeros(2, 3, 16, 16)).isfinite().all()


@pytest.mark.parametrize(
    "layer",
    [ZScoreNorm("site"), HistogramNorm(), ReinhardNorm(), MacenkoNorm(), ProfileNorm(4, space="density")],
    ids=repr,
)
def test_mixed_precision_leaves_normalizers_in_float32(layer: ImageNorm) -> None:
    x = torch.cat((stained(1), stained(2, strength=0.6)))
    expected = learnt(copy.deepcopy(layer), x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = learnt(layer, x)
        assert torch.equal(mixed(x), expected(x))
    assert torch.equal(mixed.amplitude, expected.amplitude)


LAYERS = [AmplitudeNorm(), AmplitudeNorm(band=0.3), AmplitudeNorm(band=0), AmplitudeNorm(strength=0.5), ProfileNorm(8)]
LAYERS += [ZScoreNorm(), HistogramNorm(), ReinhardNorm(), MacenkoNorm(), StainJitter(), AmplitudeJitter(4)]


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
@pytest.mark.parametrize("kind", ["black", "white", "zero channel", "ramp", "random"])
def test_images_have_finite_gradients_and_none_is_no_error(layer: ImageNorm, kind: str) -> None:
    """Saliency maps and what is learnt before the layer need them, also for a bin without a phase."""
    torch.manual_seed(0)
    layer = learnt(copy.deepcopy(layer), torch.rand(4, 3, 16, 16))
    images = torch.rand(2, 3, 16, 16) if kind in ("random", "zero channel") else torch.ones(2, 3, 16, 16)
    images[:, 2] *= kind != "zero channel"
    images = images * {"black": 0.0, "ramp": torch.linspace(0, 1, 16)}.get(kind, 1.0)
    images.requires_grad_()
    found = layer(images)
    (found * torch.rand_like(found)).sum().backward()
    assert images.grad is not None and torch.isfinite(images.grad).all() and torch.isfinite(found).all()
    assert layer(images[:0]).shape == (0, 3, 16, 16)
    assert layer.train()(images[:0].detach()).shape == (0, 3, 16, 16) and torch.isfinite(layer.amplitude).all()
