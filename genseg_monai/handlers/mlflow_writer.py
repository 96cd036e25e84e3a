"""Curves and pictures of a run for MLflow, through the same calls as TensorBoard's writer."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from genseg_monai._atomic import whole_file
from genseg_monai._optional import require

__all__ = ["MlflowWriter"]

_AT_ONCE = 500  # values in one call; MLflow takes 1000
_SECONDS = 5.0  # between two calls


class MlflowWriter:
    """Log to the server that ``MLFLOW_TRACKING_URI`` names, else to a database in the run's folder.

    Nothing is sent before there is something to log. A resumed run goes on with the MLflow run of its first start,
    which is noted in ``logs/mlflow_run.txt``. MLflow's own reports of its use are switched off unless
    ``MLFLOW_DISABLE_TELEMETRY`` says otherwise.

    Args:
        output_dir: the run's folder; its name is the run's name.
        experiment: where the run is filed; ``MLFLOW_EXPERIMENT_NAME``, else "genseg".

    Raises:
        UserError: MLflow is not installed.
    """

    def __init__(self, output_dir: str | Path, experiment: str | None = None) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported
        self._mlflow: Any = require("mlflow", "tracking with MLflow")
        self.root = Path(output_dir)
        self.experiment = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "genseg"
        self.run_id: str | None = None
        self._client: Any = None
        self._waiting: list[Any] = []
        self._sent = time.monotonic()

    def add_scalar(self, tag: str, value: float, step: int) -> None:
        """Log one value of one curve, together with others a little later."""
        metric = self._mlflow.entities.Metric(tag, float(value), int(time.time() * 1000), int(step))
        self._waiting.append(metric)
        if len(self._waiting) >= _AT_ONCE:
            self._send()

    def add_image(self, tag: str, pixels: np.ndarray, step: int) -> None:
        """Log a picture, H W 3 of uint8."""
        self._opened().log_image(self.run_id, pixels, key=tag.replace("/", "_"), step=int(step))

    def add_facts(self, facts: dict[str, Any]) -> None:
        """Log settings that do not change during the run."""
        params = [self._mlflow.entities.Param(name, str(value)[:500]) for name, value in facts.items()]
        self._opened().log_batch(self.run_id, params=params)

    def add_file(self, path: Path, folder: str) -> None:
        """Log a file."""
        self._opened().log_artifact(self.run_id, str(path), folder)

    def flush(self) -> None:
        """Send what waits, unless the last time was a moment ago."""
        if time.monotonic() - self._sent > _SECONDS:
            self._send()

    def close(self) -> None:
        """Send what waits and call the run finished."""
        if self._waiting or self.run_id is not None:
            self._send()
            self._client.set_terminated(self.run_id)

    def _send(self) -> None:
        client = self._opened()
        while self._waiting:
            part, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
            client.log_batch(self.run_id, metrics=part)
        self._sent = time.monotonic()

    def _opened(self) -> Any:
        if self._client is None:
            logs = (self.root / "logs").resolve()
            logs.mkdir(parents=True, exist_ok=True)
            given = os.environ.get("MLFLOW_TRACKING_URI")
            self._client = self._mlflow.MlflowClient(tracking_uri=given or f"sqlite:///{logs / 'mlflow.db'}")
            self.run_id = self._found_again(logs / "mlflow_run.txt") or self._created(logs, own=not given)
        return self._client

    def _created(self, logs: Path, *, own: bool) -> str:
        held = self._client.get_experiment_by_name(self.experiment)
        place = (logs / "mlruns").as_uri() if own else None
        identifier = held.experiment_id if held else self._client.create_experiment(self.experiment, place)
        run = self._client.create_run(identifier, run_name=self.root.resolve().name)
        with whole_file(logs / "mlflow_run.txt") as temporary:
            temporary.write_text(run.info.run_id + "\n", encoding="utf-8")
        return str(run.info.run_id)

    def _found_again(self, note: Path) -> str | None:
        """Return the MLflow run that an earlier start of this run has begun, if its server still has it."""
        if not note.is_file():
            return None
        identifier = note.read_text(encoding="utf-8").strip()
        try:
            self._client.update_run(identifier, status="RUNNING")
        except self._mlflow.exceptions.MlflowException:
            return None
        return identifier
