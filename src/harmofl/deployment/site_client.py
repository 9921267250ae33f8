"""The client of a site: it trains and scores the server's model on images that never leave the site."""

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from harmofl.backends.answering import Answering
from harmofl.backends.relayed import answer_relays, listen
from harmofl.backends.supervision import SiteProcess
from harmofl.data.site import Site
from harmofl.deployment.certificates import check_dates, private_key
from harmofl.deployment.folders import NVFLARE, RELAY, SiteKit, experiment_of
from harmofl.deployment.site_descriptions import STATISTICS
from harmofl.deployment.update_protection import Cover
from harmofl.errors import ConfigError, HarmoFLError, RunError, StorageError
from harmofl.experiment.client_states import read_state, write_state
from harmofl.experiment.privacy_policy import statement, tells_statistics
from harmofl.experiment.recording_choice import remark
from harmofl.experiment.setup import Setup
from harmofl.federated.client import run_client
from harmofl.federated.compression import RESIDUAL, kept_residual
from harmofl.federated.messages import Broadcast, ClientState, ClientUpdate
from harmofl.federated.model import trained_names
from harmofl.federated.wire import Scalars
from harmofl.models.bn_calibration import as_lists, of_site
from harmofl.types import Progress
from harmofl.utils.atomic_files import locked

log = logging.getLogger("harmofl")
VERSION = version("harmofl")
KEPT = 3
"""Most rounds whose states a server may have a site keep."""


def run_site(
    folder: Path,
    data: Path,
    progress: Progress = lambda site, done, total: None,
    min_images: int = 0,
    force: bool = False,
    **changes: Any,
) -> None:
    """Take part in a federation until it is over.

    Args:
        folder: the site's folder, from `harmofl deploy init`.
        data: a folder of sites that holds this site's folder, or the folder with images/ and masks/ of this site.
        progress: called with the site, the number of images read and the number of all images.
        min_images: smallest number of images from which an amplitude may be sent, if above the agreed number.
        force: join even if the folder of the images has the name of another site of the federation.
        changes: changes to the site's own settings, such as {"data.cache": ..., "run.device": "cuda"}.

    Raises:
        HarmoFLError: if a file or setting is invalid, or the server refuses the site.
    """
    place = SiteKit.open(folder)
    ask = "ask who made the folders for a new one, of harmofl deploy renew"
    certificate = folder / ("nvflare/startup/client.crt" if place.engine == NVFLARE else "ca.pem")
    for line in check_dates(certificate, ask) if not place.attach else ():
        log.warning(line)
    with locked(folder, "taking part from"):
        experiment, digest = experiment_of(folder, {"data.folder": str(data), "run.workers": 1, **changes})
        privacy = experiment.privacy
        stricter = privacy.model_copy(update={"min_images": max(min_images, privacy.min_images)})
        setup = Setup.prepare(experiment.model_copy(update={"privacy": stricter}), progress, None, log.info)
        table, params = experiment.training, trained_names(setup.training.model)
        cover = Cover(place, private_key(place.key), privacy, table.rounds, table.updates, params)
        desk = Desk(place, digest, setup, _site_of(setup, place, force), cover)
        asked = remark(setup.experiment, setup.method, setup.training.device)
        for line in (*statement(setup.experiment, setup.method, deployed=True), *asked):
            log.info(line)
        _answer_requests(place, Answering(desk.train, desk.describe, desk.evaluate, desk.check), lambda: desk.over)
        log.info("the federation is over")


def _answer_requests(place: SiteKit, answer: Callable[[str, bytes], bytes], over: Callable[[], bool]) -> None:
    """Answer the server's requests until `over` returns True."""
    relay = place.folder / RELAY
    with listen(relay) as listener, _engine(place, relay) as process:

        def ended() -> bool:
            if process and process.fault:
                raise ConfigError(process.fault)
            return over()

        answer_relays(listener, answer, ended)


def _engine(place: SiteKit, relay: Path) -> AbstractContextManager[SiteProcess | None]:
    """Return the process of an engine at a site."""
    if place.attach:
        log.info("waits for %s, whose process here must know %s", place.engine, relay.resolve())
        return nullcontext()
    if place.engine == NVFLARE:
        from harmofl.backends.nvflare.engine_processes import NVFlareClient

        return NVFlareClient(place.folder, relay, place.server)
    from harmofl.backends.flower.superlink import SuperNode

    return SuperNode(place.folder, relay, place.server, place.key)


def _site_of(setup: Setup, place: SiteKit, force: bool) -> Site:
    name, sites = place.name, {site.name: site for site in setup.federation.sites}
    if name in sites:
        return sites[name]
    if len(sites) > 1:
        raise ConfigError(
            f"--data must hold the site {name!r} or one site alone, got {', '.join(sites)}; name the folder of this "
            "site"
        )
    ((other, site),) = sites.items()
    if other.casefold() in {key.casefold() for key in place.keys.keys() - {name}} and not force:
        raise ConfigError(
            f"{place.folder}: is the folder of {name!r}, but --data that of {other!r}, another site of the "
            f"federation; give the images of {name!r}, or add --force if these are"
        )
    return site


@dataclass
class Desk:
    """Answers the server's messages.

    Args:
        place: the site's folder.
        digest: digest of the agreed experiment.
        setup: the site's setup of method, network and training.
        site: the site's images.
        cover: noise and masks for updates.
        over: whether the server has ended the run.
        head: header of the current message.
    """

    place: SiteKit
    digest: str
    setup: Setup
    site: Site
    cover: Cover
    over: bool = False
    head: Scalars = field(default_factory=dict)

    def check(self, head: Scalars) -> None:
        """Raise ConfigError if the server has another version or experiment, or refuses this site; keep the header."""
        name = self.place.name
        if head.get("version") != VERSION:
            raise ConfigError(
                f"{name}: server and sites must run one version, but this site has {VERSION} and the server "
                f"{head.get('version')}; install the same"
            )
        if head.get("digest") != self.digest:
            raise ConfigError(
                f"{name}: experiment.toml must be the server's, but this site has {self.digest} and the server "
                f"{head.get('digest')}; agree on one and put it into both folders"
            )
        run = str(head.get("run", ""))
        if not run.isalnum():
            raise ConfigError(f"{name}: a message must name its run, got {run!r}")
        if reason := head.get("refused"):
            raise ConfigError(f"refused by the server: {reason}")
        if waits := head.get("waits"):
            log.warning("the server is %s", waits)
        self.head = dict(head)
        self.over = self.over or bool(head.get("over"))

    def describe(self) -> Scalars:
        """Return the description that the server needs to build the model, and the number of images by split."""
        info, split = self.setup.federation.info, self.site.train
        return {
            "site": self.place.name,
            "task": info.task,
            "classes": list(info.classes),
            "channels": int(split.shape[0]),
            "size": [int(n) for n in split.shape[1:]],
            "images": info.images,
            "bits": split.bits,
            "num_images": [len(self.site.split(split)) for split in ("train", "val", "test")],
            "threads": self.setup.experiment.run.threads,
        }

    def train(self, broadcast: Broadcast) -> ClientUpdate:
        """Train the site's share of a round; the client state is saved before the answer is sent.

        A repeated round, as after the server resumed from its last checkpoint, starts from the client state before
        that round, and therefore gives a bitwise equal update.
        """
        begin, setup = time.perf_counter(), self.setup
        state = self._before(broadcast.round - 1)
        named = self._named(self.site)
        training = replace(setup.training, protect=None, updates="float32")  # as `cover` does both
        update, kept = run_client(setup.method, named, broadcast, state, training)
        run, among, before = str(self.head["run"]), self.head.get("among", ()), state.get(RESIDUAL, {})
        try:
            update, left = self.cover.put(update, broadcast, run, among, self._folder, before)
            write_state(self._file(broadcast.round), {**kept, **kept_residual(left)})
            self._tidy(broadcast.round)
        except (OSError, StorageError) as error:
            raise self._kept_here(error) from None
        seconds = time.perf_counter() - begin
        log.info(
            "round %d: trained on %d images, loss %.4f, %.1f s", broadcast.round, len(named.train), update.loss, seconds
        )
        return update

    def evaluate(self, broadcast: Broadcast, split: str) -> Scalars:
        """Score the global weights with the personal weights of that round on "val" or "test"."""
        if split == STATISTICS:
            return self._statistics(broadcast)
        if split not in ("val", "test"):
            raise ConfigError(f"{self.place.name}: scores are of val or test, got {split!r}")
        own = self.setup.method.personal_weights(self._before(broadcast.round)) or {}
        named = self._named(self.site)
        scores = self.setup.score(named, split, {**broadcast.weights, **own})
        log.info("round %d: %s on %s images", broadcast.round, self._main(scores), split)
        return scores

    def _statistics(self, broadcast: Broadcast) -> Scalars:
        """Return means and variances in the layers that normalize by batches, over training images, for inference."""
        model, device = self.setup.training.model, self.setup.training.device
        if not tells_statistics(self.setup.experiment.privacy, model):
            raise ConfigError(f"{self.place.name}: under privacy.noise or masks no statistics leave a site")
        own = self.setup.method.personal_weights(self._before(broadcast.round)) or {}
        model.load_state_dict({**broadcast.weights, **own})
        found = as_lists(of_site(model.to(device), self.site.train, device))
        log.info("sent means and variances of the chosen model's layers over training images")
        return found

    def _main(self, scores: Scalars) -> str:
        return f"{self.setup.metric} {scores[self.setup.metric]:.4f}"

    def _named(self, site: Site) -> Site:
        """Return the site under its name in the federation."""
        return Site(self.place.name, site.task, site.classes, site.train, site.val, site.test)

    @property
    def _folder(self) -> Path:
        return self.place.folder / "state" / str(self.head["run"])

    def _file(self, round_number: int) -> Path:
        return self._folder / f"{round_number:08d}.safetensors"

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.safetensors"))

    def _before(self, round_number: int) -> ClientState:
        """Return the client state of the latest round, up to this one, whose update was aggregated."""
        past = [number for number in self._rounds() if number <= min(round_number, self._counted())]
        try:
            return read_state(self._file(past[-1])) if past else {}
        except HarmoFLError as error:
            raise self._kept_here(error) from None

    def _kept_here(self, error: Exception) -> RunError:
        """Log an error that names a path of this site; return an error without the path for the server."""
        log.warning("%s", error)
        return RunError(f"{self.place.name}: must keep its state on its disk, but cannot; its own log says why")

    def _counted(self) -> int:
        """Return the last round in which the server aggregated this site's update; 0 if none."""
        pairs = zip(self.head.get("sites", ()), self.head.get("counted", ()), strict=False)
        return int(dict(pairs).get(self.place.name, 0))

    def _tidy(self, round_number: int) -> None:
        """Delete client states that neither the next round, the server's checkpoint nor the chosen round needs.

        States of later rounds than this one are from before the server resumed from a checkpoint.
        """
        others = sorted(self._folder.parent.iterdir(), key=lambda folder: folder.stat().st_mtime)
        for folder in [folder for folder in others if folder != self._folder][:-1]:  # of runs before the last one
            shutil.rmtree(folder, ignore_errors=True)
        rounds, wanted = self._rounds(), {round_number}
        for number in (*self.head.get("keep", ())[:KEPT], self._counted()):
            wanted |= {max((past for past in rounds if past <= number), default=round_number)}
        for number in set(rounds) - wanted:
            self._file(number).unlink(missing_ok=True)
