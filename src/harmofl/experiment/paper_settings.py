"""The settings of the paper's experiments, which are part of the package, and the remarks in them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Version = Literal["paper", "released"]
TASKS: Final = ("nuclei", "camelyon17", "prostate")
VERSIONS: Final[tuple[Version, ...]] = ("paper", "released")
FROM_MEMORY: Final = "from memory"
"""Words of the remark on a setting that was recalled and not checked against the paper."""
_TABLE = re.compile(r"\[(\w+)\]")
_SETTING = re.compile(r"(\w+) = (.+?)\s+# (.+)")


@dataclass(frozen=True)
class SettingRemark:
    """A setting with the remark behind it in its file."""

    key: str
    value: str
    text: str

    @property
    def recalled(self) -> bool:
        """True if the value was recalled and not checked against the paper."""
        return FROM_MEMORY in self.text


def paper_config(task: str, version: str) -> Path:
    """Return the file with the settings of a task, as published ("paper") or as the released code runs."""
    return Path(__file__).parent / "paper" / f"{task}-{version}.toml"


def setting_remarks(config: Path) -> Iterator[SettingRemark]:
    """Yield the settings of a file that have a remark, with dotted keys and values as written."""
    table = ""
    for line in config.read_text(encoding="utf-8").splitlines():
        if head := _TABLE.fullmatch(line.strip()):
            table = head[1]
        elif found := _SETTING.fullmatch(line.strip()):
            yield SettingRemark(f"{table}.{found[1]}", found[2], found[3])
