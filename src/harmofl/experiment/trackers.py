"""Callbacks that log a run to TensorBoard and MLflow; their failures neither end a run nor change its result."""

import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harmofl.errors import ConfigError
from harmofl.experiment.callbacks import Callback
from harmofl.experiment.round_record import RoundRecord
from harmofl.experiment.setup import Setup
from harmofl.utils.toml_values import flat_settings


class Writer(Callback):
    """Base class of callbacks that log a run's numbers; a failure prints one line and ends the log, not the run.

    Args:
        folder: the run folder.
    """

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._broken = False
        self._metric = ""

    def on_train_begin(self, setup: Setup, first_round: int) -> None:
        """Open the log and write the configuration."""
        self._metric = setup.metric
        settings = {key: str(value) for key, value in flat_settings(setup.experiment.model_dump(mode="json"))}
        self._safely(lambda: self.open(settings, first_round))

    def on_round_end(self, record: RoundRecord) -> None:
        """Write the numbers of a round."""
        self._safely(lambda: self.write(numbers(record, self._metric), record.round))

    def on_train_end(self, result: Mapping[str, Any]) -> None:
        """Write the test scores of the chosen model, and close the log."""
        self._safely(lambda: self.close(tested(result), int(result["rounds"])))

    def open(self, settings: Mapping[str, str], first_round: int) -> None:
        """Begin the log, or continue it at `first_round`."""
        raise NotImplementedError

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of one round."""
        raise NotImplementedError

    def close(self, values: Mapping[str, float], step: int) -> None:
        """Write the last numbers."""
        raise NotImplementedError

    def _safely(self, work: Callable[[], None]) -> None:
        if self._broken:
            return
        try:
            with warnings.catch_warnings(action="ignore"):
                work()
        except Exception as error:
            self._broken = True
            reason = (str(error) or type(error).__name__).splitlines()[0]
            print(f"harmofl: logging to {self.name} has stopped, the run continues: {reason}", file=sys.stderr)


class TensorBoard(Writer):
    """Event files in RUN/tensorboard; a resumed run purges the events after its checkpoint."""

    name = "TensorBoard"

    def open(self, settings: Mapping[str, str], first_round: int) -> None:
        """Begin the log, or continue it at `first_round`."""
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(
            str(self.folder / "tensorboard"), purge_step=first_round if first_round > 1 else None
        )
        text = "\n".join(f"    {key} = {value}" for key, value in settings.items())
        self._writer.add_text("configuration", text)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of one round."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def close(self, values: Mapping[str, float], step: int) -> None:
        """Write the last numbers."""
        self.write(values, step)
        self._writer.close()


class MLflow(Writer):
    """A run of the experiment `harmofl`, on the server that MLFLOW_TRACKING_URI names or in RUN/mlflow/mlflow.db."""

    name = "MLflow"

    def open(self, settings: Mapping[str, str], first_round: int) -> None:
        """Begin an MLflow run, or continue the one whose id is in the run folder."""
        from mlflow.tracking import MlflowClient

        own = self.folder / "mlflow"
        own.mkdir(exist_ok=True)
        with _quick():
            self._client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{own / 'mlflow.db'}")
            known = own / "run_id"
            if known.exists():
                self._id = known.read_text(encoding="utf-8")
                history = self._client.get_metric_history(self._id, "seconds")
                self._last = max((metric.step for metric in history), default=0)
                return
            found = self._client.get_experiment_by_name("harmofl")
            experiment = (
                found.experiment_id if found else self._client.create_experiment("harmofl", str(own / "artifacts"))
            )
            self._id, self._last = self._client.create_run(experiment, run_name=self.folder.name).info.run_id, 0
            known.write_text(self._id, encoding="utf-8")
            for key, value in settings.items():
                self._client.log_param(self._id, key, value[:500])

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Write the numbers of one round, unless a resumed run has written them before."""
        from mlflow.entities import Metric

        if step <= self._last:
            return
        with _quick():
            metrics = [Metric(_plain(name), value, 0, step) for name, value in values.items()]
            self._client.log_batch(self._id, metrics=metrics)

    def close(self, values: Mapping[str, float], step: int) -> None:
        """Write the last numbers."""
        with _quick():
            for name, value in values.items():
                self._client.log_metric(self._id, _plain(name), value, step=step)
            self._client.set_terminated(self._id)


WRITERS: Mapping[str, tuple[type[Writer], str]] = {
    "tensorboard": (TensorBoard, "tensorboard"),
    "mlflow": (MLflow, "mlflow"),
}
"""Name -> writer class and the package that it needs."""


def writers(names: Sequence[str], folder: Path) -> list[Writer]:
    """Return the writers with these names.

    Raises:
        ConfigError: if there is no such writer, or its package is not installed.
    """
    for name in names:
        if name not in WRITERS:
            raise ConfigError(f"--log must be one of {', '.join(WRITERS)}, got {name!r}")
        if find_spec(WRITERS[name][1]) is None:
            raise ConfigError(f"--log {name} needs a package that is not installed; pip install 'harmofl[{name}]'")
    return [WRITERS[name][0](folder) for name in dict.fromkeys(names)]


def numbers(record: RoundRecord, metric: str) -> dict[str, float]:
    """Return the numbers of a round by name, such as `loss/SITE` and `validation/SITE`."""
    found = {f"loss/{site}": float(loss) for site, loss in record.train_loss.items()}
    found |= {f"validation/{site}": scores[metric] for site, scores in (record.val or {}).items()}
    if summary := record.summary(metric):
        found |= {"validation/mean": summary.mean, "validation/worst": summary.worst}
    found |= {
        "seconds": record.seconds,
        "megabytes/up": record.bytes_up / 1e6,
        "megabytes/down": record.bytes_down / 1e6,
    }
    return {name: value for name, value in found.items() if value == value}


def tested(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the test scores of the chosen model."""
    metric = result["main_metric"]
    found = {f"test/{site}": scores[metric] for site, scores in {**result["test"], **result["unseen"]}.items()}
    found |= {"test/mean": result["summary"]["mean"], "test/worst": result["summary"]["worst"]}
    return {name: value for name, value in found.items() if value is not None and value == value}


def _plain(name: str) -> str:
    """Replace characters that MLflow does not allow in names."""
    return "".join(c if c.isalnum() or c in "_-./ " else "_" for c in name)


@contextmanager
def _quick() -> Iterator[None]:
    """Limit MLflow's retries and timeouts, so that an unreachable server does not delay training for minutes."""
    waits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in waits}
    os.environ.update({name: value for name, value in waits.items() if before[name] is None})
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
