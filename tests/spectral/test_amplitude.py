import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from harmofl.errors import ConfigError, ShapeError
from harmofl.spectral import kernels
from harmofl.spectral.amplitude import AmplitudeNorm, amplitude, with_amplitude
from harmofl.spectral.radial_profile import ProfileNorm


def naive(x: np.ndarray, A: np.ndarray, L: float) -> np.ndarray:
    """Eq 2 and 4 with the whole complex spectrum, one image or volume and channel at a time."""
    size = x.shape[2:]
    b = max(size) if L == 1 else int(np.floor(min(size) * L))
    out = np.empty_like(x)
    along = np.meshgrid(*(np.abs(np.fft.fftfreq(n, 1 / n).round()) for n in size), indexing="ij")
    window = np.max(along, axis=0) <= b
    for n, c in np.ndindex(x.shape[:2]):
        F = np.fft.fftn(x[n, c])
        tiny = np.finfo(x.dtype).eps * np.log2(max(np.prod(size), 2)) * np.linalg.norm(x[n, c])
        P = np.where(np.abs(F) > tiny, np.angle(F), 0)
        out[n, c] = np.real(np.fft.ifftn(np.where(window, A[c] * np.exp(1j * P), F)))
    return out


def images(dtype: type = np.float64, axes: int = 2) -> st.SearchStrategy[np.ndarray]:
    shape = st.tuples(st.integers(1, 3), st.integers(1, 3), *[st.integers(1, 9)] * axes)
    levels = st.integers(0, 8).map(lambda v: v / 8)
    return shape.flatmap(lambda s: hnp.arrays(dtype, s, elements=levels))


@settings(max_examples=150)
@given(images() | images(axes=3), st.sampled_from([0, 0.1, 0.25, 0.5, 0.8, 1.0]))
def test_equals_a_naive_reference(x: np.ndarray, L: float) -> None:
    A = np.abs(np.fft.fftn(x[::-1], axes=range(2, x.ndim))).mean(axis=0) + 0.5
    result = with_amplitude(torch.from_numpy(x), torch.from_numpy(A), L)
    np.testing.assert_allclose(result.numpy(), naive(x, A, L), atol=1e-9)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("size", [(32, 33, 40), (9, 40, 21), (25, 64), (33, 35)], ids=str)
@pytest.mark.parametrize("strength", [1.0, 0.3])
@pytest.mark.parametrize("L", [0.05, 0.1, 0.4])
def test_a_low_band_is_the_whole_transform_with_a_mask(
    L: float, strength: float, size: tuple[int, ...], dtype: torch.dtype, atol: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bands of up to 13 cycles, of images and volumes of unequal, odd axes, by products with few waves."""
    axes, x = tuple(range(2, 2 + len(size))), np.random.default_rng(0).random((2, 2, *size))
    F = np.fft.fftn(x, axes=axes)
    A = 0.8 * np.abs(F).min(axis=0)  # grows no bin, so that the error of float32 does not grow
    along = np.meshgrid(*(np.abs(np.fft.fftfreq(n, 1 / n).round()) for n in size), indexing="ij")
    inside = np.max(along, axis=0) <= int(min(size) * L)
    expected = np.fft.ifftn(np.where(inside, F * (A / np.abs(F)) ** strength, F), axes=axes).real
    monkeypatch.setattr(torch.fft, "rfftn", None)  # it is not taken
    given = torch.from_numpy(x).to(dtype), torch.from_numpy(A).to(dtype)
    np.testing.assert_allclose(with_amplitude(*given, L, strength).numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize("size", [(14, 18), (12, 14, 16)], ids=str)
def test_gradients_pass_a_low_band_as_the_whole_transform(size: tuple[int, ...]) -> None:
    x = torch.rand(1, 2, *size, dtype=torch.float64, requires_grad=True)
    A, weight = amplitude(torch.rand(2, *size, dtype=torch.float64), len(size)), torch.rand(1, 2, *size)
    inside = kernels.window(kernels.reach(0.2, x), x)
    masked = kernels._with_spectrum(x, A, inside, 1.0)
    expected = torch.autograd.grad((masked * weight).sum(), x)[0]
    got = torch.autograd.grad((with_amplitude(x, A, 0.2) * weight).sum(), x)[0]
    torch.testing.assert_close(got, expected)


@settings(max_examples=50)
@given(images(np.float32) | images(np.float32, axes=3))
def test_amplitude_is_the_half_spectrum(x: np.ndarray) -> None:
    W, axes = x.shape[-1], x.ndim - 2
    expected = np.abs(np.fft.fftn(x, axes=range(2, x.ndim)))[..., : W // 2 + 1]
    np.testing.assert_allclose(amplitude(torch.from_numpy(x), axes).numpy(), expected, atol=1e-4)


def test_axes_before_those_of_an_image_are_one_after_the_other() -> None:
    """An amplitude with three axes is of images, whatever their number of axes."""
    x = torch.rand(2, 3, 2, 6, 5)
    A = amplitude(torch.rand(2, 6, 5))
    torch.testing.assert_close(with_amplitude(x, A)[1], with_amplitude(x[1], A))
    torch.testing.assert_close(with_amplitude(x, A)[1, 2], with_amplitude(x[1, 2], A))


@pytest.mark.parametrize("band", [0, 1.0])  # the cube of others would be that of the one slice
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_a_layer_learns_from_volumes_what_it_learns_from_images(band: float, strength: float) -> None:
    """Volumes of one slice: both transforms are the same."""
    x = torch.rand(4, 2, 12, 9)
    flat, deep = AmplitudeNorm(band=band, strength=strength), AmplitudeNorm(band=band, strength=strength)
    for batch in x.split(2):
        flat(batch)
        deep(batch[:, :, None])
    torch.testing.assert_close(deep.amplitude[:, 0], flat.amplitude)
    torch.testing.assert_close(deep.eval()(x[:, :, None])[:, :, 0], flat.eval()(x))
    loaded = AmplitudeNorm(band=band, strength=strength).eval()
    loaded.load_state_dict(deep.state_dict())
    assert torch.equal(loaded(x[:, :, None]), deep(x[:, :, None]))


def test_volumes_of_another_depth_are_refused_and_channels_last_stays() -> None:
    layer = AmplitudeNorm()
    layer(torch.rand(2, 1, 4, 6, 8))
    with pytest.raises(ShapeError, match=r"images must be 1x4x6x8 \(C x D x H x W\).* got 1x5x6x8"):
        layer(torch.rand(2, 1, 5, 6, 8))
    with pytest.raises(ShapeError, match=r"the amplitude must be \(1, 4, 6, 9\) or its half \(1, 4, 6, 5\)"):
        with_amplitude(torch.rand(2, 1, 4, 6, 9), layer.amplitude[..., :3])
    last = torch.rand(2, 3, 4, 6, 8).to(memory_format=torch.channels_last_3d)
    assert AmplitudeNorm()(last).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("L", [1.0, 0.3, 0])
def test_special_images(L: float) -> None:
    A = amplitude(torch.rand(1, 6, 5, dtype=torch.float64))
    kinds = [torch.zeros(6, 5), torch.full((6, 5), 0.7), torch.eye(6, 5), -torch.ones(6, 5)]
    special = torch.stack(kinds)[:, None].double()
    full = torch.cat([A, A[:, [0, 5, 4, 3, 2, 1]].flip(-1)[..., :2]], dim=-1)  # A(-f) = A(f) for real images
    np.testing.assert_allclose(with_amplitude(special, A, L), naive(special.numpy(), full.numpy(), L), atol=1e-12)
    assert with_amplitude(special, A, L).isfinite().all()


def test_one_pixel_images_take_the_amplitude() -> None:
    result = with_amplitude(torch.tensor([[[[0.2]]], [[[-0.2]]]]), torch.tensor([[[3.0]]]))
    assert result.flatten().tolist() == [3.0, -3.0]


@pytest.mark.shared("reference/amplitude_released.npz")
@pytest.mark.parametrize(("dtype", "atol"), [(np.float32, 1e-5), (np.float64, 1e-12)], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("prefix", "L"), [(p, L) for p, bands in (("", "0 0.1 0.25 0.5"), ("odd_", "0 0.1 0.25")) for L in bands.split()]
)
def test_equals_the_released_operator(shared_path, prefix: str, L: str, dtype: type, atol: float) -> None:
    """Of the whole amplitude and of its half; images of even and odd sizes."""
    z = np.load(shared_path / "reference/amplitude_released.npz")
    A = torch.from_numpy(z["odd_amplitude" if prefix else "running_amplitude_after_batch1"].astype(dtype))
    x = torch.from_numpy(z[f"{prefix}images"].astype(dtype))
    for given_A in (A, A[..., : A.shape[-1] // 2 + 1]):
        np.testing.assert_allclose(
            with_amplitude(x, given_A, float(L)), z[f"{prefix}normalized_L{L}"], atol=atol, rtol=0
        )


@pytest.mark.shared("reference/amplitude_released.npz")
def test_layer_equals_the_released_layer_where_that_learns(shared_path) -> None:
    """The released layer keeps the first batch's amplitude (decay truncated to 0) and replaces the DC bin."""
    z = np.load(shared_path / "reference/amplitude_released.npz")
    layer = AmplitudeNorm(band=0, decay=0)
    first = layer(torch.from_numpy(z["images"][:2]))
    np.testing.assert_allclose(first, z["round1_batch1_out"], atol=1e-5)
    half = z["running_amplitude_after_batch1"][..., : z["images"].shape[-1] // 2 + 1]
    np.testing.assert_allclose(layer.amplitude, half, atol=1e-4, rtol=1e-5)
    np.testing.assert_allclose(layer(torch.from_numpy(z["images"][2:])), z["round1_batch2_out"], atol=1e-5)


def test_whole_amplitude_is_replaced_and_phase_kept() -> None:
    x, other = torch.rand(2, 3, 16, 12, dtype=torch.float64), torch.rand(3, 16, 12, dtype=torch.float64)
    result = with_amplitude(x, amplitude(other), 1.0)
    torch.testing.assert_close(amplitude(result), amplitude(other).expand_as(amplitude(x)))
    before, after = torch.fft.rfft2(x), torch.fft.rfft2(result)
    torch.testing.assert_close(before / before.abs(), after / after.abs())


def test_own_amplitude_changes_nothing() -> None:
    x = torch.rand(1, 2, 9, 10)
    for L in (1.0, 0.2, 0):
        torch.testing.assert_close(with_amplitude(x, amplitude(x[0]), L), x)


@pytest.mark.parametrize(
    ("turn", "commutes"),
    [
        (lambda x: x.rot90(2, (-2, -1)), True),
        (lambda x: x.roll(5, -1), True),
        (lambda x: x.flip(-1), False),
        (lambda x: x.flip(-2), False),
        (lambda x: x.rot90(1, (-2, -1)), False),
    ],
)
def test_a_whole_amplitude_commutes_with_half_turns_and_shifts_alone(turn, commutes: bool) -> None:
    """An amplitude is symmetric about its origin, not about its axes; so images are normalized after augmentation."""
    random = torch.Generator().manual_seed(0)
    x, other = torch.rand(8, 3, 32, 32, generator=random), torch.rand(8, 3, 32, 32, generator=random)
    A = amplitude(other).mean(0)
    apart = (with_amplitude(turn(x), A) - turn(with_amplitude(x, A))).abs().max()
    assert apart < 1e-6 if commutes else apart > 0.1


def test_input_is_not_changed_in_place() -> None:
    x = torch.rand(2, 3, 8, 8)
    before = x.clone()
    for band in (1.0, 0.2, 0, "off"):
        layer = AmplitudeNorm(band=band)
        layer(x)
        layer(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("L", [1.0, 0.3, 0])
def test_gradients_flow_to_images_and_amplitude(L: float) -> None:
    x = torch.rand(2, 1, 5, 4, dtype=torch.float64, requires_grad=True)
    A = amplitude(torch.rand(1, 5, 4, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x, A: with_amplitude(x, A, L), (x, A))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_images_are_transformed_in_float32(dtype: torch.dtype) -> None:
    x = torch.rand(1, 1, 384, 384)
    A = amplitude(x[0]) * 1.1
    result = with_amplitude(x.to(dtype), A)
    assert result.dtype == dtype
    torch.testing.assert_close(result.float(), x * 1.1, atol=0.02, rtol=0.02)


def test_autocast_leaves_the_spectrum_in_float32() -> None:
    x = torch.rand(2, 3, 16, 16)
    layer = AmplitudeNorm()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = layer(x)
    assert layer.amplitude.dtype == torch.float32
    assert torch.equal(inside, with_amplitude(x, layer.amplitude))


def test_running_average_by_hand() -> None:
    """Constant images of level a on 2 x 2 pixels have DC 4a and nothing else.

    Batches of levels 1, 2, 4 with v = 0.5: raw A_1 = 2, A_2 = 1 + 4 = 5, A_3 = 2.5 + 8 = 10.5; divided by
    1 - 0.5^k = 0.5, 0.75, 0.875: 4, 6.6667, 12.
    """
    layer = AmplitudeNorm(decay=0.5)
    for level, expected in ((1.0, 4.0), (2.0, 20 / 3), (4.0, 12.0)):
        out = layer(torch.full((3, 1, 2, 2), level))
        assert float(layer.amplitude[0, 0, 0]) == pytest.approx(expected)
        torch.testing.assert_close(out, torch.full_like(out, expected / 4))
    assert int(layer.count) == 3


def test_learns_from_clean_training_batches_alone() -> None:
    layer = AmplitudeNorm()
    x = torch.rand(2, 1, 8, 8)
    layer.eval()
    assert torch.equal(layer(x), x)  # nothing learnt yet
    layer.train()
    layer(x)
    learnt = layer.amplitude.clone()
    with layer.held():
        layer(x * 3)
    layer.eval()
    layer(x * 3)
    layer.train()
    layer.freeze()
    layer(x * 3)
    assert torch.equal(layer.amplitude, learnt)
    assert int(layer.count) == 1


def test_state_dict_holds_everything() -> None:
    layer = AmplitudeNorm()
    layer(torch.rand(2, 3, 7, 5))
    layer.freeze()
    other = AmplitudeNorm()
    other.load_state_dict(layer.state_dict())
    x = torch.rand(2, 3, 7, 5)
    assert bool(other.frozen)
    assert int(other.count) == 1
    assert torch.equal(other(x), layer(x))


@pytest.mark.parametrize("layer", [AmplitudeNorm(), ProfileNorm(radial_bins=2)], ids=["amplitude", "profile"])
def test_channels_last_stays_so(layer: AmplitudeNorm) -> None:
    x = torch.rand(2, 3, 9, 8)
    layer(x)
    layer.eval()
    last = x.to(memory_format=torch.channels_last)
    assert layer(last).is_contiguous(memory_format=torch.channels_last)
    assert layer(x).is_contiguous()
    assert torch.equal(layer(last), layer(x))


def test_half_model_keeps_the_amplitude_in_float32() -> None:
    layer = AmplitudeNorm()
    layer(torch.ones(1, 1, 512, 512))
    layer.half()
    assert layer.amplitude.dtype == torch.float32
    assert layer.amplitude.isfinite().all()


@pytest.mark.parametrize("band", [1.0, 0.3, 0])
def test_evaluation_normalizes_with_what_was_learnt(band: float) -> None:
    layer = AmplitudeNorm(band=band)
    layer(torch.rand(4, 3, 8, 8))
    layer.eval()
    x = torch.rand(2, 3, 8, 8) * 3
    assert torch.equal(layer(x), with_amplitude(x, layer.amplitude, band))
    assert not torch.allclose(layer(x), x, atol=0.1)


@pytest.mark.parametrize("decay", [1e-17, 1e-12])
def test_a_tiny_decay_is_the_plain_mean(decay: float) -> None:
    """v -> 0 of the bias-corrected average: every batch counts the same."""
    layer = AmplitudeNorm(decay=decay)
    for level in (1.0, 2.0, 6.0):
        layer(torch.full((1, 1, 2, 2), level))
    assert float(layer.amplitude[0, 0, 0]) == pytest.approx(12)


def test_integer_images_come_back_as_numbers_that_do_not_wrap() -> None:
    x = torch.full((1, 1, 2, 2), 200, dtype=torch.uint8)
    assert with_amplitude(x, torch.full((1, 2, 2), 2000.0), 0).unique().tolist() == [500.0]
    with pytest.raises(ShapeError, match="floating-point"):
        AmplitudeNorm()(x)


def test_flags_stay_on_the_cpu() -> None:
    with torch.device("meta"):
        layer = AmplitudeNorm()
    assert {layer.count.device.type, layer.frozen.device.type, layer.width.device.type} == {"cpu"}


def test_off_passes_images_through() -> None:
    x = torch.rand(2, 3, 8, 8)
    assert AmplitudeNorm(band="off")(x) is x


@pytest.mark.parametrize("size", [(3, 16, 8), (1, 8, 8), (3, 8, 9)])
@pytest.mark.parametrize("training", [True, False])
def test_another_image_size_is_refused(size: tuple[int, ...], training: bool) -> None:
    layer = AmplitudeNorm()
    layer(torch.rand(2, 3, 8, 8))
    layer.train(training)
    with pytest.raises(ShapeError, match=r"resize the images"):
        layer(torch.rand(2, *size))
    with pytest.raises(ShapeError, match=r"images must be \(N, C, H, W\)"):
        layer(torch.rand(3, 8, 8))
    assert int(layer.count) == 1


@pytest.mark.parametrize(
    "options",
    [{"band": band} for band in (-0.1, 1.5, "low", float("nan"), True)]
    + [{"decay": decay} for decay in (-1, 1.1, float("nan"), "a", True)],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} must be"):
        AmplitudeNorm(**options)


@pytest.mark.parametrize("band", [1.0, 0.1, 0.4, 0])
def test_many_images_are_normalized_as_each_by_itself(band: float) -> None:
    x, A = torch.rand(40, 3, 96, 96), amplitude(torch.rand(3, 96, 96))
    together = with_amplitude(x, A, band)
    for k in (0, 9, 39):
        torch.testing.assert_close(together[k : k + 1], with_amplitude(x[k : k + 1], A, band), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    "layer", [AmplitudeNorm(band=0, decay=0), ProfileNorm(radial_bins=2, decay=0)], ids=["band", "rings"]
)
def test_with_decay_0_only_the_first_batch_is_learnt_from(
    layer: AmplitudeNorm, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = torch.rand(2, 3, 8, 8)
    layer(x)
    first = layer.amplitude.clone()
    monkeypatch.setattr(type(layer), "statistic", None)  # not to be called again
    layer(torch.rand(2, 3, 8, 8))
    assert torch.equal(layer.amplitude, first) and int(layer.count) == 2
