"""Profile normalization against NumPy's whole spectrum, and its neutral values."""

import io

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.nn import functional

from harmofl.errors import ConfigError, ShapeError
from harmofl.spectral.amplitude import AmplitudeNorm
from harmofl.spectral.radial_profile import RADIUS, ProfileNorm, profile, with_profile


def rings_of(H: int, W: int, rings: int) -> np.ndarray:
    """Ring of every bin of the whole spectrum."""
    radius = np.sqrt(np.fft.fftfreq(H)[:, None].astype(np.float32) ** 2 + np.fft.fftfreq(W).astype(np.float32) ** 2)
    inner = 1 + np.minimum(np.floor(radius / np.float32(RADIUS) * rings).astype(int), rings - 1)
    return np.where(radius > 0, inner, 0)


@settings(max_examples=30)
@given(H=st.integers(2, 17), W=st.integers(2, 17), rings=st.integers(1, 6), seed=st.integers(0, 99))
def test_profile_is_the_mean_over_rings_of_the_whole_spectrum(H: int, W: int, rings: int, seed: int) -> None:
    x = np.random.default_rng(seed).random((2, 1, H, W))
    got = profile(torch.from_numpy(x), rings).numpy()
    A, ring = np.abs(np.fft.fft2(x)), rings_of(H, W, rings)
    for k in range(rings + 1):
        inside = A[..., ring == k]
        expected = inside.mean(axis=-1) / np.sqrt(H * W) if inside.size else np.zeros((2, 1))
        np.testing.assert_allclose(got[..., k], expected / (np.sqrt(H * W) if k == 0 else 1), atol=1e-9)


@settings(max_examples=30)
@given(
    size=st.tuples(*[st.integers(1, 9)] * 3),
    spacing=st.tuples(*[st.sampled_from([0.53, 1.07, 3.1])] * 3),
    rings=st.integers(1, 6),
)
def test_shells_of_volumes_are_in_cycles_per_millimetre(
    size: tuple[int, ...], spacing: tuple[float, ...], rings: int
) -> None:
    x = np.random.default_rng(0).random((2, 1, *size))
    got = profile(torch.from_numpy(x), rings, spacing).numpy()
    A = np.abs(np.fft.fftn(x, axes=(2, 3, 4)))
    along = [np.fft.fftfreq(n) / s for n, s in zip(size, spacing, strict=True)]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*along, indexing="ij")))
    largest = np.sqrt(sum(0.25 / s**2 for s in spacing))
    place = radius / largest * rings
    inside = place[(radius > 0) & (radius < 0.999 * largest)]
    assume((np.abs(inside - inside.round()) > 1e-4).all())  # none on the border of two shells
    ring = 1 + np.minimum(np.floor(place).astype(int), rings - 1)
    ring[radius == 0] = 0
    scale = np.sqrt(np.prod(size))
    for k in range(rings + 1):
        inside = A[..., ring == k]
        expected = inside.mean(axis=-1) / scale if inside.size else np.zeros((2, 1))
        np.testing.assert_allclose(got[..., k], expected / (scale if k == 0 else 1), atol=1e-9)


def test_volumes_get_the_profile_for_their_spacing() -> None:
    x, spacing = torch.rand(2, 2, 4, 12, 9, dtype=torch.float64), (3.0, 0.5, 0.5)
    target = profile(torch.rand(1, 2, 4, 12, 9, dtype=torch.float64), 5, spacing)[0]
    torch.testing.assert_close(profile(with_profile(x, target, spacing=spacing), 5, spacing), target.expand(2, -1, -1))
    layer = ProfileNorm(5, spacing=spacing)
    torch.testing.assert_close(layer(x), with_profile(x, layer.amplitude, spacing=spacing))
    assert not torch.equal(profile(x, 5), profile(x, 5, spacing))
    for wrong in ((1.0, 1.0), (0.0, 1.0, 1.0), (float("nan"), 1.0, 1.0)):
        with pytest.raises(ShapeError, match="spacing must be 3 positive numbers"):
            profile(x, 5, wrong)


def test_images_get_the_profile_and_keep_phase_and_direction() -> None:
    x = torch.rand(3, 2, 12, 9, dtype=torch.float64)
    target = profile(torch.rand(1, 2, 12, 9, dtype=torch.float64), 5)[0]
    y = with_profile(x, target)
    torch.testing.assert_close(profile(y, 5), target.expand(3, -1, -1))
    F, G = torch.fft.rfft2(x), torch.fft.rfft2(y)
    torch.testing.assert_close(torch.sgn(F), torch.sgn(G))
    ring = torch.from_numpy(rings_of(12, 9, 5))[:, :5] == 3
    gain = (G.abs() / F.abs())[..., ring]
    torch.testing.assert_close(gain, gain[..., :1].expand_as(gain))


def test_one_ring_is_level_and_contrast() -> None:
    """With one ring every image is a x + b of itself, channel by channel."""
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    y = with_profile(x, torch.tensor([[0.5, 0.1]], dtype=torch.float64))
    torch.testing.assert_close(y.mean(dim=(2, 3)), torch.full((2, 1), 0.5, dtype=torch.float64))
    centred = (x - x.mean(dim=(2, 3), keepdim=True)).flatten(1)
    ratio = (y - 0.5).flatten(1) / centred
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio))


def test_half_strength_twice_is_full_strength() -> None:
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    target, own = profile(torch.rand(1, 1, 8, 8, dtype=torch.float64), 4)[0], profile(x, 4)[0]
    half = with_profile(x, target, own, strength=0.5)
    torch.testing.assert_close(with_profile(half, target, own, strength=0.5), with_profile(x, target, own))
    assert torch.allclose(with_profile(x, target, own, strength=0), x)


def test_layer_learns_as_amplitude_normalization_does() -> None:
    """decay .5, levels 1, 2, 4: 1, 5/3, 3 as in Eq 3 with the bias corrected."""
    layer = ProfileNorm(radial_bins=2, decay=0.5)
    for level, expected in ((1.0, 1.0), (2.0, 5 / 3), (4.0, 3.0)):
        out = layer(torch.full((3, 1, 4, 4), level))
        assert float(layer.amplitude[0, 0]) == pytest.approx(expected)
        torch.testing.assert_close(out, torch.full_like(out, expected))


def test_constant_images_stay_constant() -> None:
    layer = ProfileNorm(radial_bins=4)
    layer(torch.rand(4, 3, 16, 16))
    out = layer.eval()(torch.full((1, 3, 16, 16), 0.3))
    assert out.isfinite().all()
    torch.testing.assert_close(out, out[..., :1, :1].expand_as(out), atol=1e-5, rtol=0)


def test_any_size_after_learning_and_the_same_profile_of_a_finer_image() -> None:
    layer = ProfileNorm(radial_bins=8)
    layer(torch.rand(4, 3, 16, 16))
    assert layer.eval()(torch.rand(2, 3, 31, 20)).shape == (2, 3, 31, 20)
    noise = torch.randn(64, 1, 64, 64)
    torch.testing.assert_close(
        profile(noise, 4).mean(0)[..., 1:], profile(noise[..., :32, :32], 4).mean(0)[..., 1:], rtol=0.1, atol=0
    )


def test_joint_keeps_the_ratio_of_the_channels() -> None:
    layer = ProfileNorm(radial_bins=4, shared_gain=True)
    layer(torch.rand(4, 3, 16, 16))
    x = torch.rand(1, 3, 16, 16) * torch.tensor([1.0, 0.5, 0.2]).view(1, 3, 1, 1)
    y = layer.eval()(x)
    F, G = torch.fft.rfft2(x), torch.fft.rfft2(y)
    gain = G.abs() / F.abs()
    torch.testing.assert_close(gain[:, 0], gain[:, 2], rtol=1e-3, atol=1e-4)


def test_site_reference_changes_nothing_until_there_is_a_common_profile() -> None:
    layer = ProfileNorm(radial_bins=4, per="site")
    x = torch.rand(4, 3, 16, 16)
    torch.testing.assert_close(layer(x), x, atol=1e-5, rtol=0)
    assert torch.equal(layer.own, layer.amplitude)
    layer.amplitude = layer.amplitude * 2
    layer.freeze()
    torch.testing.assert_close(layer(x), 2 * x, atol=1e-5, rtol=0)
    torch.testing.assert_close(layer.eval()(x), 2 * x, atol=1e-5, rtol=0)


def test_a_new_site_takes_the_profile_of_its_batch() -> None:
    layer, new = ProfileNorm(radial_bins=4, per="site"), torch.rand(8, 3, 16, 16) ** 2
    layer(torch.rand(4, 3, 16, 16))
    layer.freeze()
    layer.own = torch.zeros(0)
    out = layer.eval()(new)
    torch.testing.assert_close(out, with_profile(new, layer.amplitude, profile(new, 4).mean(dim=0)))
    assert layer.own.numel() == 0


def test_state_dict_holds_everything() -> None:
    layer, other = ProfileNorm(radial_bins=4, per="site"), ProfileNorm(radial_bins=4, per="site")
    layer(torch.rand(4, 3, 16, 16))
    layer.freeze()
    other.load_state_dict(layer.state_dict())
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(layer.eval()(x), other.eval()(x))


def test_gradients_flow() -> None:
    x = torch.rand(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    target, own = profile(torch.rand(1, 1, 5, 4, dtype=torch.float64), 2)[0], profile(x.detach(), 2)[0]
    assert torch.autograd.gradcheck(lambda x: with_profile(x, target, own), (x,))


def test_half_precision_is_transformed_in_float32() -> None:
    x = torch.rand(2, 1, 64, 64)
    out = with_profile(x.bfloat16(), profile(x, 4).mean(dim=0))
    assert out.dtype == torch.bfloat16
    assert out.isfinite().all()
    assert functional.mse_loss(out.float(), x) < 0.01


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"radial_bins": 0}, "radial_bins must be"),
        ({"radial_bins": 2.5}, "radial_bins must be"),
        ({"per": "x"}, "per must be"),
        ({"strength": 2}, "strength must be"),
        ({"decay": -1}, "decay must be"),
    ],
)
def test_out_of_range(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProfileNorm(**options)


def test_another_number_of_channels_is_refused() -> None:
    layer = ProfileNorm(radial_bins=4)
    layer(torch.rand(4, 3, 16, 16))
    with pytest.raises(ShapeError, match="3 channels"):
        layer(torch.rand(4, 1, 16, 16))


@pytest.mark.parametrize("layer", [AmplitudeNorm(), ProfileNorm(4), ProfileNorm(4, "site")], ids=["A", "R", "R_i"])
def test_a_state_holds_no_names_of_files(layer: AmplitudeNorm) -> None:
    """MONAI's images carry where they came from, which may name a patient."""
    data = pytest.importorskip("monai.data", reason="needs MONAI: pip install 'harmofl[monai]'")
    x = data.MetaTensor(torch.rand(2, 3, 8, 8), meta={"filename_or_obj": "smith_john.nii.gz"})
    layer(x)
    assert all(type(value) is torch.Tensor for value in layer.state_dict().values())
    kept = io.BytesIO()
    torch.save(layer.state_dict(), kept)
    assert b"smith" not in kept.getvalue()
