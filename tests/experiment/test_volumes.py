"""Runs on whole volumes: learnt, resumed, side by side, pooled, estimated, evaluated; and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import same_end
from volumes_on_disk import needs_monai, of_volumes, write_volumes

from harmofl import resume, run
from harmofl.data.site import merged, open_federation
from harmofl.errors import ConfigError, HarmoFLError
from harmofl.evaluation.scoring import WINDOWS, window_logits
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.config import load_experiment
from harmofl.experiment.cost_estimate import estimate_cost
from harmofl.experiment.finished_run import load_run
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trained_model import TrainedModel
from harmofl.federated.client_context import build_context
from harmofl.inference.evaluate import evaluate_site
from harmofl.models import build_network
from harmofl.report.run_page import compose, render_run_page

pytestmark = needs_monai


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_volumes(tmp_path_factory.mktemp("volumes"))


@pytest.fixture(scope="module")
def finished(volumes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two rounds that nothing disturbed."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    run(of_volumes(volumes, method__name="harmofl"), folder)
    return folder


@pytest.mark.parametrize("method", ["fedavg", "fedavg+profile:radial_bins=1+sam"])
def test_a_run_learns(method: str, volumes: Path, tmp_path: Path) -> None:
    """All background scores 0."""
    changes = {"training__rounds": 8, "data__patches_per_volume": 4, "network__options": {"features": [8] * 6}}
    result = run(of_volumes(volumes, method__name=method, **changes), tmp_path / "run")
    assert result["summary"]["mean"] > 0.6
    assert set(result["test"]["site-0"]) == {"dice", "iou"}


class Interrupted(Callback):
    """Stops a run after its first round."""

    def on_round_end(self, record: object) -> None:
        raise KeyboardInterrupt


def test_a_resumed_run_ends_with_the_same_bits(volumes: Path, finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(of_volumes(volumes, method__name="harmofl"), tmp_path / "run", [Interrupted()])
    resume(tmp_path / "run")
    same_end(finished, tmp_path / "run")


def test_processes_give_the_same_bits(volumes: Path, finished: Path, tmp_path: Path) -> None:
    run(of_volumes(volumes, method__name="harmofl", run__workers=2), tmp_path / "run")
    same_end(finished, tmp_path / "run")


def test_the_cache_gives_the_same_bits(volumes: Path, finished: Path, tmp_path: Path) -> None:
    changes = {"method__name": "harmofl", "data__cache": str(tmp_path / "cache")}
    run(of_volumes(volumes, **changes), tmp_path / "run")
    same_end(finished, tmp_path / "run")


@pytest.mark.parametrize(
    ("spacing", "given", "used"),
    [
        ([2, 1, 1], {}, (2.0, 1.0, 1.0)),
        ([1, 1, 1], {}, ()),
        ([2, 1, 1], {"method.spacing": [3, 1, 1]}, (3.0, 1.0, 1.0)),
    ],
)
def test_a_radial_profile_takes_the_spacing_of_the_voxels(
    spacing: list[float], given: dict[str, object], used: tuple[float, ...], volumes: Path, tmp_path: Path
) -> None:
    method = {"method.name": "fedavg+profile", "training.rounds": 1}
    run(of_volumes(volumes, **method, **{"data.spacing": spacing}, **given), tmp_path / "run")
    assert TrainedModel.open(tmp_path / "run").model.get_submodule("amplitude_norm").spacing == used
    again = load_experiment(tmp_path / "run/config.toml", {})
    assert tuple(again.hyperparameters["spacing"]) == used


def test_what_a_run_keeps(finished: Path) -> None:
    card, config = RunDir.open(finished).card(), load_experiment(finished / "config.toml", {}).data
    assert card["size"] == [16, 16, 16] and card["images"] == "volumes" and card["bits"] == 16
    assert card["volumes"] == {
        "patch_size": [16, 16, 16],
        "spacing": [2.0, 1.0, 1.0],
        "intensity": "zscore",
        "window": None,
    }
    assert config.spacing == (2.0, 1.0, 1.0) and config.patches_per_volume == 2 and config.intensity == "zscore"
    cases = json.loads((finished / "cases.json").read_text())
    samples = load_run(finished).samples
    for name in ("site-0", "site-1"):
        assert len(cases[name]["scores"]) == 1
        assert samples[name].images.ndim == 4 and samples[name].targets.shape == samples[name].predictions.shape
        assert samples[name].targets[0].any() and samples[name].images.dtype == np.float32
    page = render_run_page(compose([load_run(finished)]))
    assert page.count("axial above, coronal below, sagittal at the right") == 1
    assert "three planes of the volume" in page


def test_evaluation_of_a_run_gives_its_scores(volumes: Path, finished: Path) -> None:
    model, result = TrainedModel.open(finished), RunDir.open(finished).result()
    for site in model.sites(volumes):
        assert evaluate_site(model, site).scores == pytest.approx(result["test"][site.name], nan_ok=True)


def test_pooled_batches_are_patches_of_one_site(volumes: Path, tmp_path: Path) -> None:
    result = run(of_volumes(volumes, method__name="pooled", training__rounds=1), tmp_path / "run")
    assert set(result["test"]) == {"site-0", "site-1"}


@pytest.mark.parametrize("method", ["fedbn", "fedfa", "scaffold", "harmofl-released"])
def test_other_methods_take_volumes(method: str, volumes: Path, tmp_path: Path) -> None:
    changes = {"method__name": method, "training__rounds": 1, "network__norm": "batch"}
    assert set(run(of_volumes(volumes, **changes), tmp_path / "run")["test"]) == {"site-0", "site-1"}


NORMALIZERS = [
    "zscore",
    "zscore:per=site",
    "histogram",
    "amplitude-jitter",
    "amplitude:per=site",
    "profile:space=density",
]


@pytest.mark.parametrize("normalizer", NORMALIZERS)
def test_normalizers_of_grey_images_take_volumes(normalizer: str, volumes: Path, tmp_path: Path) -> None:
    changes = {"method__name": f"fedavg+{normalizer}", "training__rounds": 1}
    assert set(run(of_volumes(volumes, **changes), tmp_path / "run")["test"]) == {"site-0", "site-1"}


def test_batch_statistics_are_estimated_for_use(volumes: Path, tmp_path: Path) -> None:
    changes = {"network__norm": "batch-stats", "data__unseen": ["site-1"], "training__rounds": 1}
    result = run(of_volumes(volumes, **changes), tmp_path / "run")
    assert set(result["unseen"]) == {"site-1"}
    model = TrainedModel.open(tmp_path / "run")
    assert set(model.moments) == {"site-0"}
    scored = evaluate_site(model, model.sites(volumes)[1])
    assert scored.scores == pytest.approx(result["unseen"]["site-1"])


def test_an_epoch_is_drawn_by_seed_round_site_and_epoch_alone(volumes: Path) -> None:
    from harmofl.experiment.setup import Setup

    setup = Setup.prepare(of_volumes(volumes, training__epochs=2), lambda site, done, total: None)
    site, broadcast = setup.training_sites[0], setup.method.broadcast(setup.start())

    def batches() -> list[torch.Tensor]:
        context = build_context(site, broadcast, {}, setup.training)
        assert context.total_steps == 2 * site.train.items / 2
        return [batch.images for batch in context.batches()]

    first, again = batches(), batches()
    assert len(first) == 2 * site.train.items / 2
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(torch.equal(first[0], other) for other in first[1:])
    pooled = merged(setup.training_sites).train
    assert sum(pooled.parts) == pooled.items


def test_the_cost_is_estimated(volumes: Path) -> None:
    forecast = estimate_cost(of_volumes(volumes), lambda what, done, total: None, budget=1.0)
    assert forecast.seconds > 0 and forecast.sites == 2


def test_windows_cover_a_volume_of_any_shape() -> None:
    """A network of single voxels gives the same logits as without windows, whatever the weights of their sum."""
    network = torch.nn.Conv3d(1, 3, kernel_size=1)
    seen = []

    def counted(windows: torch.Tensor) -> torch.Tensor:
        seen.append(windows.shape)
        found: torch.Tensor = network(windows)
        return found

    for shape in ((9, 30, 21), (3, 5, 30)):
        volume = np.random.default_rng(0).random(shape).astype(np.float16)
        with torch.no_grad():
            found = window_logits(counted, volume, (8, 8, 8), torch.device("cpu"))
            whole = network(torch.from_numpy(volume.astype(np.float32))[None, None])
        torch.testing.assert_close(found, whole, rtol=1e-4, atol=1e-5)
    assert all(shape[2:] == (8, 8, 8) and shape[0] <= WINDOWS for shape in seen)


@pytest.mark.parametrize("norm", ["batch", "instance", "group", "batch-stats"])
@pytest.mark.parametrize("name", ["unet", "monai.networks.nets.SegResNet"])
def test_networks_for_volumes(name: str, norm: str) -> None:
    options = {"features": [4] * 6} if name == "unet" else {"init_filters": 8, "norm": "batch"}
    network = build_network(
        name,
        channels=1,
        classes=3,
        norm=norm,
        seed=0,
        options=options,
        spatial_dims=3,  # type: ignore[arg-type]
    )
    assert network(torch.rand(2, 1, 16, 24, 16)).shape == (2, 3, 16, 24, 16)
    kinds = {type(layer).__name__ for layer in network.modules() if "Norm" in type(layer).__name__}
    assert kinds == {
        {"batch": "BatchNorm3d", "batch-stats": "BatchNorm3d", "group": "GroupNorm"}.get(norm, "InstanceNorm")
    }


REFUSED = [
    ({"data.mode": "volumes", "data.size": [8, 8]}, "data.size: has no effect with data.mode"),
    ({"data.mode": "volumes", "data.channels": 3}, "data.channels: has no effect with data.mode"),
    ({"data.mode": "volumes", "data.split": "images"}, "data.split: has no effect with data.mode"),
    ({"data.spacing": [1, 1, 1]}, 'data.spacing: needs data.mode = "volumes"'),
    ({"data.patch_size": 32}, 'data.patch_size: needs data.mode = "volumes"'),
    ({"data.mode": "volumes", "data.spacing": [1, 0, 1]}, "data.spacing must be one or three positive numbers"),
    (
        {"data.mode": "volumes", "method.name": "fedavg+profile", "method.spacing": [3, 1]},
        "method.spacing must have 3 numbers for volumes (D, H, W), got [3, 1]",
    ),
    (
        {"method.name": "fedavg+profile", "method.spacing": [3, 1, 1]},
        "method.spacing must have 2 numbers for images (H, W), got [3, 1, 1]",
    ),
    ({"data.mode": "volumes", "data.patch_size": [32, 32]}, "data.patch_size must be one or three whole numbers"),
    ({"data.mode": "volumes", "data.intensity": "window"}, "data.window: must be given with"),
    ({"data.mode": "volumes", "data.window": [0, 1]}, "data.window: must be given with"),
    ({"data.mode": "volumes", "data.intensity": "window", "data.window": [2, 1]}, "the lower one first"),
    ({"data.mode": "2.5d", "data.channels": 1}, 'data.channels: must be 3, 5, ... with data.mode = "2.5d"'),
    ({"data.mode": "cubes"}, "data.mode"),
]


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_settings_without_a_meaning_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_experiment(None, {"data.folder": "x", **changes})
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"training__augment": "flips-released"}, 'training.augment must be "flips" or "none"'),
        ({"evaluation__validation": "batches"}, 'evaluation.validation must be "images"'),
        ({"evaluation__metric": "slice_dice_released"}, 'evaluation.metric must be "dice" or "iou"'),
        ({"method__name": "feddg"}, "method.name: feddg is for images"),
        ({"method__name": "fedavg+macenko"}, "+macenko is for color images"),
        ({"data__patch_size": [8, 8, 8], "network__norm": "instance"}, "the network must take a batch of"),
        ({"network__name": "densenet", "network__options": {}}, "densenet is for classification"),
    ],
)
def test_what_volumes_cannot_do_is_refused(changes: dict[str, object], message: str, volumes: Path) -> None:
    from harmofl.experiment.setup import Setup

    with pytest.raises(HarmoFLError) as caught:
        Setup.prepare(of_volumes(volumes, **changes), lambda site, done, total: None)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_patches_of_padding_are_told(volumes: Path) -> None:
    from harmofl.experiment.setup import Setup

    for size, told in (([16, 16, 16], False), ([32, 32, 32], True)):
        setup = Setup.prepare(of_volumes(volumes, data__patch_size=size), lambda site, done, total: None)
        assert any("of a patch of 32x32x32 voxels is padding" in line for line in setup.remarks()) is told


def test_neighbouring_slices_are_three_by_default(volumes: Path, federation: Path) -> None:
    from harmofl.experiment.taking_part import open_images

    def opened(folder: Path) -> object:
        experiment = load_experiment(None, {"data.folder": str(folder), "data.mode": "2.5d"})
        return open_images(experiment, lambda site, done, total: None, None, None).sites[0].train.shape

    assert opened(volumes) == (3, 26, 24)
    with pytest.raises(ConfigError, match="needs volumes alone"):
        opened(federation)


def test_a_model_of_slices_does_not_take_volumes(finished: Path, volumes: Path) -> None:
    slices = open_federation(volumes).sites[0]
    with pytest.raises(ConfigError, match="site-0: volumes must be the model's"):
        TrainedModel.open(finished).check(slices)
