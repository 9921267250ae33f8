"""The sites of a federation as its server knows them: who is connected, what each says of itself, who is refused."""

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any
from uuid import uuid4

from harmofl.backends.downloads import Downloads
from harmofl.backends.remote import RemoteRounds
from harmofl.deployment.folders import WAITING, ServerFolder
from harmofl.deployment.site_descriptions import form, misfit
from harmofl.experiment.tables import Experiment
from harmofl.federated.transport import Transport
from harmofl.utils.atomic_files import write_atomic

log = logging.getLogger("harmofl")
GREETING_S = 60.0
"""Time limit in seconds for the description of a site."""
LOOK = 0.2
"""Seconds between checks of who is there."""
VERSION = version("harmofl")


@dataclass
class SiteRegistry:
    """The sites of one federation, and what every message to them says.

    Args:
        place: the server's folder.
        experiment: what is trained, as agreed on; resolved once the task is known.
        digest: of what was agreed on.
        transport: the connection to the sites.
        run: names this run, so that sites know what they kept for it.
        card: the model card of the run.
        described: what sites said of themselves, by name.
        refused: why sites may not take part, likewise.
        greeted: the connection of a site when it was asked, and when to ask it again.
        kept: rounds whose states sites must still have.
        counted: the last round of which each site's update was averaged.
        told: the last line that `say` logged.
        downloads: the weights that each site holds, if changes are sent.
    """

    place: ServerFolder
    experiment: Experiment
    digest: str
    transport: Transport
    run: str = ""
    card: Mapping[str, Any] = field(default_factory=dict)
    described: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    greeted: dict[str, tuple[object, float]] = field(default_factory=dict)
    kept: tuple[int, ...] = ()
    counted: dict[str, int] = field(default_factory=dict)
    told: str = ""
    downloads: Downloads | None = None

    def line(self, timeout: float, quorum: int = 0, **more: Any) -> RemoteRounds:
        """Return the connection to the sites; every message names its run, version and experiment."""
        head = {
            "run": self.run,
            "version": VERSION,
            "digest": self.digest,
            "keep": list(self.kept),
            "sites": list(self.counted),
            "counted": list(self.counted.values()),
            **more,
        }
        sends_changes = self.experiment.training.downlink != "float32"
        self.downloads = self.downloads or (Downloads(self.transport) if sends_changes else None)
        return RemoteRounds(
            self.transport, timeout, quorum, head, masked=self.experiment.privacy.masks, downloads=self.downloads
        )

    def first_description(self, card: Mapping[str, Any] | None) -> Mapping[str, Any]:
        """Wait for enough equal site descriptions and return one; in a resumed run return its card."""
        if card:
            self.run = str(card["run"])
            return card
        self.run = uuid4().hex
        while True:
            self.greet()
            for said in self.described.values():
                alike = [name for name, other in self.described.items() if form(other) == form(said)]
                if len(alike) >= self.place.min_sites:
                    self.waits_no_more()
                    return said
            odd = "" if len({str(form(said)) for said in self.described.values()}) < 2 else self._odds()
            need = self.place.min_sites
            line = f"waiting for sites: {len(self.described)} there, {need} {'alike ' if odd else ''}needed{odd}"
            if odd and line != self.told:
                self.line(GREETING_S, waits=line).describe(sorted(self.described))
            self.say(line)
            time.sleep(LOOK)

    def _odds(self) -> str:
        said = "; ".join(f"{name} {form(self.described[name])}" for name in sorted(self.described))
        fix = "correct the images, or set data.channels and data.size in every experiment.toml"
        return f"; they differ in task, classes, channels or size: {said}; {fix}"

    def greet(self) -> None:
        """Request the descriptions of newly connected sites; refuse unsuitable sites with a reason in one line."""
        since, now = self.connected(), time.monotonic()
        new = [name for name, when in since.items() if self.greeted.get(name, (None, 0.0))[0] != when]
        silent = [name for name in since if now > self.greeted.get(name, (0, now))[1] and name in self.refused]
        if not (asked := sorted({*new, *silent})):
            return
        line = self.line(GREETING_S)
        answers = line.describe(asked)
        for name in asked:
            before = self.refused.pop(name, None)
            again = time.monotonic() + GREETING_S if name in line.left_out else float("inf")
            self.greeted[name] = since[name], again
            fault = line.left_out.get(name) or misfit(name, answers[name], self.card or None)
            if fault:
                self._refuse(name, fault, new=fault != before, answers=name in answers)
            elif name not in self.described or name in new:
                log.info("%s is there: %d images to train on", name, answers[name]["num_images"][0])
            if not fault:
                self.described[name] = answers[name]

    def refuse_others(self) -> None:
        """Refuse the sites that were described before there was a card and do not fit it."""
        for name, said in sorted(self.described.items()):
            if fault := misfit(name, said, self.card):
                del self.described[name]
                self._refuse(name, fault)

    def _refuse(self, name: str, fault: str, new: bool = True, answers: bool = True) -> None:
        self.refused[name] = fault
        if new:
            log.warning("refused: %s", fault)
        if answers:
            self.line(GREETING_S, refused=fault).describe([name])

    def present(self) -> list[str]:
        """Return the names of the connected sites that are not refused."""
        self.greet()
        return sorted(name for name in self.connected() if name in self.described and name not in self.refused)

    def connected(self) -> dict[str, object]:
        """Return the connected sites of this federation; one whose key was taken out of sites/ is none."""
        return {name: since for name, since in self.transport.connected().items() if name in self.place.keys}

    def say(self, line: str) -> None:
        """Log what the server waits for, unless it was the last line logged here, and write it down for `status`."""
        if line != self.told:
            log.info(line)
            self.told = line
            write_atomic(self.place.folder / WAITING, line.encode())

    def waits_no_more(self) -> None:
        """Delete what `say` wrote down."""
        (self.place.folder / WAITING).unlink(missing_ok=True)
