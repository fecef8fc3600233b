"""MLflow, in the run's folder or on a server, with the pictures and tables of the run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger, MLFlowLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from ocrnet_pl.tracking.files import ShowsFiles


class MLflowTracker(Logger, ShowsFiles):
    """Logs to MLflow, which without a server writes into ``mlflow/`` of the run's folder.

    Besides all figures, it gets the configuration, the pictures of validations, the curves and the tables of the run.
    ``mlflow ui --backend-store-uri sqlite:////path/to/run/mlflow/mlflow.db`` shows what is in a folder.

    Args:
        experiment_name: Name of the experiment that the run belongs to.
        tracking_uri: Address of a server; null for that of the environment variable ``MLFLOW_TRACKING_URI``, or,
            without one, for the run's folder.

    Raises:
        ValueError: MLflow is not installed.
    """

    def __init__(self, experiment_name: str = "ocrnet-pl", tracking_uri: str | None = None) -> None:
        super().__init__()
        if find_spec("mlflow") is None or find_spec("sqlalchemy") is None:
            raise ValueError("trainer.logger: MLflow is not installed; run `pip install mlflow`")
        self.experiment_name = experiment_name
        self.tracking_uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
        self._inner: MLFlowLogger | None = None

    def use_folder(self, folder: Path, name: str) -> None:
        """Open the server's store, or one in the run's folder."""
        address, artifacts = self.tracking_uri, None
        if address is None:
            store = folder.resolve() / "mlflow"
            store.mkdir(exist_ok=True)
            address, artifacts = f"sqlite:///{store / 'mlflow.db'}", (store / "artifacts").as_uri()
        self._inner = MLFlowLogger(self.experiment_name, name, address, artifact_location=artifacts)

    @property
    def name(self) -> str:
        """Name of the experiment."""
        return self.experiment_name

    @property
    def version(self) -> str | None:
        """Id of the run; None before it begins."""
        return None if self._inner is None else self._inner.run_id

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log figures."""
        if self._inner is not None:
            self._inner.log_metrics(metrics, step)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run's configuration says it all."""

    @rank_zero_only
    def log_config(self, config: dict[str, Any]) -> None:
        """Store the configuration, as parameters to compare runs by and as a file."""
        if self._inner is not None:
            self._inner.log_hyperparams(config)
            self._inner.experiment.log_dict(self._inner.run_id, config, "config.yaml")

    @rank_zero_only
    def show_file(self, name: str, path: Path, step: int) -> None:
        """Store a picture or a table."""
        if self._inner is not None:
            self._inner.experiment.log_artifact(self._inner.run_id, str(path), name.rpartition("/")[0] or None)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run."""
        if self._inner is not None:
            self._inner.finalize(status)
