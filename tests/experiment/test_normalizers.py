"""Every normalizer in whole runs: training, use at a site that did not train, export."""

from pathlib import Path

import numpy as np
import pytest
import torch
from experiments import same_end, small

from harmofl import resume, run
from harmofl.data.site import open_federation, undivided
from harmofl.errors import ExportError, HarmoFLError
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.run_dir import RunDir
from harmofl.experiment.trained_model import TrainedModel
from harmofl.inference.export.graph import exported, images_like, output_difference, write_onnx
from harmofl.ingest.synthetic.federation import write_federation


class StoppedError(Exception):
    """The end of a run that is not finished."""


class Stop(Callback):
    """Ends a run after its first round."""

    def on_round_end(self, *_: object) -> None:
        """Raise an error."""
        raise StoppedError


PARTS = {
    "zscore": "",
    "zscore:per=site": "mean and deviation",
    "histogram": "percentiles",
    "reinhard": "color statistics",
    "macenko": "stain colors and strengths",
    "stain-jitter": "",
    "amplitude-jitter": "",
    "amplitude:per=site:band=0.2": "amplitude",
    "profile:space=density": "radial profile",
    "profile:radial_bins=6:spacing=[3,1]": "radial profile",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_run_whose_images_are_normalized_so(federation: Path, tmp_path: Path, part: str) -> None:
    changes = {"method__name": f"fedavg+{part}+sam", "network__norm": "group", "training__participation": 0.5}
    run(small(federation, training__rounds=4, **changes), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run")
    site = undivided(open_federation(federation).sites[1])
    whole = model.outputs(site, "test", batch_size=9)
    np.testing.assert_array_equal(whole, model.outputs(site, "test", batch_size=1))
    said = [line for line in model.said("newcomer", "sites") if line.endswith("as fixed in training")]
    assert said == [f"{PARTS[part]}: the average over site-1, site-2, as fixed in training"] * bool(PARTS[part])
    sent = RunDir(tmp_path / "run").load_model()[0]["amplitude_norm.amplitude"]
    assert bool(sent.numel()) == bool(PARTS[part]) and sent.isfinite().all()


@pytest.mark.parametrize("part", ["stain-jitter", "amplitude-jitter", "macenko"])
def test_resumed_runs_end_the_same(federation: Path, tmp_path: Path, part: str) -> None:
    whole = small(federation, method__name=f"harmofl+{part}", network__norm="group")
    run(whole, tmp_path / "whole")
    stopped = tmp_path / "stopped"
    with pytest.raises(StoppedError):
        run(whole, stopped, callbacks=[Stop()])
    resume(stopped)
    same_end(tmp_path / "whole", stopped)


@pytest.mark.parametrize("part", PARTS)
def test_a_file_that_runs_elsewhere_says_the_same(federation: Path, tmp_path: Path, part: str) -> None:
    run(small(federation, method__name=f"fedavg+{part}", network__norm="group", training__rounds=2), tmp_path / "run")
    model = TrainedModel.open(tmp_path / "run")
    images, module = images_like(model, 3), exported(model, "site-1")
    if part == "macenko":
        with pytest.raises(ExportError, match="the network cannot be written as ONNX"):
            write_onnx(module, images, tmp_path / "model.onnx")
        return
    with torch.no_grad():
        assert output_difference(model, "site-1", images, write_onnx(module, images, tmp_path / "model.onnx")) < 1e-4


def test_colors_on_grey_images_are_one_line(tmp_path: Path) -> None:
    write_federation(tmp_path / "mri", kind="mri", sites=2, images=6, size=32)
    with pytest.raises(
        HarmoFLError, match=r"^\+reinhard is for color images, .* got \(\d+, 1, 32, 32\); choose another normalizer$"
    ):
        run(small(tmp_path / "mri", method__name="fedavg+reinhard", network__norm="group"), tmp_path / "run")
