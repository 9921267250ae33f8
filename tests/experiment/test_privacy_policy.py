"""What a site tells of its images for the use of the model, and when it tells nothing."""

from pathlib import Path

import pytest

pytest.importorskip("cryptography", reason="needs cryptography: pip install 'harmofl[flower]'")
from cryptography.hazmat.primitives.asymmetric import ec
from experiments import small

from harmofl.deployment.folders import SiteKit
from harmofl.deployment.site_client import Desk
from harmofl.deployment.site_descriptions import STATISTICS
from harmofl.deployment.update_protection import Cover
from harmofl.errors import ConfigError
from harmofl.experiment.privacy_policy import tells_statistics
from harmofl.experiment.setup import Setup
from harmofl.federated.messages import Broadcast

NOISE = {"privacy.clip": 1.0, "privacy.noise": 1.0}


def told(federation: Path, folder: Path, **changes: object) -> bool:
    """Whether a site answers the server with statistics, and the server would ask for them."""
    setup = Setup.prepare(small(federation, **{"method.name": "fedavg", **changes}), lambda site, done, total: None)
    place = SiteKit(folder, "site-1", "localhost:1", "nvflare", False, b"", {})
    cover = Cover(place, ec.generate_private_key(ec.SECP384R1()), setup.experiment.privacy, 1)
    desk = Desk(place, "", setup, setup.federation.sites[0], cover, head={"run": "r"})
    asked = tells_statistics(setup.experiment.privacy, setup.training.model)
    try:
        desk.evaluate(Broadcast(1, dict(setup.training.model.state_dict())), STATISTICS)
    except ConfigError as error:
        assert "no statistics leave a site" in str(error)
        assert not asked
        return False
    assert asked
    return True


def test_a_site_tells_statistics(federation: Path, tmp_path: Path) -> None:
    assert told(federation, tmp_path)


@pytest.mark.parametrize("changes", [{"privacy.masks": True}, NOISE, {"network.norm": "group"}])
def test_a_site_tells_none_under_masks_or_noise_or_without_need(
    federation: Path, tmp_path: Path, changes: dict[str, object]
) -> None:
    assert not told(federation, tmp_path, **changes)
