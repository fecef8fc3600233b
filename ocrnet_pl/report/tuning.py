"""A search for better settings: short trainings, of which those that fall behind are ended early."""

from __future__ import annotations

import csv
import math
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ocrnet_pl.drawing.plots import new_figure, save_figure, style_axes
from ocrnet_pl.drawing.progress import duration
from ocrnet_pl.errors import RunError
from ocrnet_pl.report.runs import environment_of_runs, last_error, terminable
from ocrnet_pl.report.search_space import Setting, Value, present_values, with_values
from ocrnet_pl.storage.files import complete_file
from ocrnet_pl.storage.secrets import hidden

if TYPE_CHECKING:
    import optuna

_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_END = 60.0
_SETTINGS = (
    *("--early_stopping.patience", "1000000", "--checkpoint.save_last", "false"),
    *("--pictures.enabled", "false", "--report.in_training", "false", "--trainer.enable_progress_bar", "false"),
)


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        output: Folder of the results and the runs.
        name: Name of the study; jobs with the same name and storage share their trials.
        seconds: Time of this job in seconds.
        trials: Largest number of trials of the whole study; None for no limit.
        storage: Address of a database that several jobs share; None for a file in the folder.
        metric: The figure to improve, such as ``val/score``.
        maximize: Whether higher is better.
        seed: Seed of the choices.
    """

    output: Path
    name: str
    seconds: float
    trials: int | None
    storage: str | None
    metric: str
    maximize: bool
    seed: int

    def open(self) -> optuna.Study:
        """Open the study, with the trials of earlier jobs.

        Raises:
            ValueError: The database cannot be opened.
        """
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.output.mkdir(parents=True, exist_ok=True)
        log = str(self.output / "study.log")
        storage: Any = JournalStorage(JournalFileBackend(log)) if self.storage is None else _database(self.storage)
        study = optuna.create_study(
            storage=storage,
            study_name=self.name,
            direction="maximize" if self.maximize else "minimize",
            load_if_exists=True,
            pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0),
        )
        # A job that goes on does not make the choices of the one before again.
        seed = self.seed + len(study.trials)
        study.sampler = optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True)
        return study


def _database(address: str) -> optuna.storages.BaseStorage:
    """Open a database that jobs share, whose libraries each have errors of their own."""
    import optuna

    try:
        return optuna.storages.get_storage(address)
    except Exception as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(
            hidden(
                f"storage {address!r}: it cannot be opened ({lines[0]}); give the address of a database, such as "
                "sqlite:////shared/study.db"
            )
        ) from error


def run_search(
    search: Search, config: Mapping[str, Any], space: Mapping[str, Setting], dump: Callable[[Any], str]
) -> optuna.Study:
    """Train trials until the time is over, and write ``best.yaml``, ``trials.csv`` and ``trials.png``.

    The first trial is the config itself. A trial that is below the median of the earlier ones, after as many
    validations, is ended. None is begun that would probably not end in time.

    Args:
        search: How to search.
        config: The whole config, as plain values.
        space: The settings to vary.
        dump: Writes a config as YAML.

    Returns:
        The study, with at least one finished trial.

    Raises:
        RunError: The first trial failed, or did not end in time.
    """
    import optuna

    study, began = search.open(), time.monotonic()
    complete = optuna.trial.TrialState.COMPLETE
    if not study.trials:
        study.enqueue_trial(present_values(config, space))
    longest = 0.0
    while search.trials is None or len(study.trials) < search.trials or _waiting(study):
        left = search.seconds - (time.monotonic() - began)
        if left <= longest:
            break
        trial = study.ask()
        values = {name: setting.suggest(trial, name) for name, setting in space.items()}
        start = time.monotonic()
        training = _Trial(search, trial, study)
        state, score = training.run(dump(with_values(config, values)), began + search.seconds)
        if state == complete:
            longest = max(longest, time.monotonic() - start)
        study.tell(trial, score if state == complete else None, state)
        _say(study, training, state, score, time.monotonic() - start)
        _write_results(search, study, space, config, dump)
    if not any(each.state == complete for each in study.trials):
        raise RunError(
            f"no trial ended in {duration(search.seconds)}; give more --budget, or shorter trials (--trial_steps)"
        )
    return study


def _waiting(study: optuna.Study) -> bool:
    return any(each.state.name == "WAITING" for each in study.trials)


class _Trial:
    """One training in a process of its own, which is watched.

    Attributes:
        failure: Why it failed, in one line with its log; empty if it did not.
    """

    def __init__(self, search: Search, trial: optuna.Trial, study: optuna.Study) -> None:
        self.search, self.trial, self.study = search, trial, study
        self.name = f"trial_{trial.number:04d}"
        self.folder = search.output / "runs" / "tune" / self.name
        self.log = self.folder.with_name(f"{self.name}.log")
        self.scores: list[float] = []
        self.failure = ""

    def run(self, config: str, deadline: float) -> tuple[Any, float | None]:
        """Train, and return the state of the trial and its last score."""
        from optuna.trial import TrialState

        path = self.folder.with_name(f"{self.name}.yaml")
        path.parent.mkdir(parents=True, exist_ok=True)
        with complete_file(path) as unfinished:
            unfinished.write_text(config, encoding="utf-8")
        with terminable(), self.log.open("wb") as log:
            process = subprocess.Popen(
                self._command(path), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment_of_runs()
            )
            try:
                behind = self._watch(process, deadline)
            except BaseException:
                _end(process)
                raise
        self._look()
        if behind:
            return TrialState.PRUNED, self.scores[-1] if self.scores else None
        if process.returncode != 0 or not self.scores:
            self.failure = f"{last_error(self.log) or 'there was no validation'}; its log: {self.log}"
            if self.trial.number == 0:
                raise RunError(f"the first trial failed: {self.failure}")
            return TrialState.FAIL, None
        return TrialState.COMPLETE, self.scores[-1]

    def _command(self, config: Path) -> list[str]:
        place = ("--trainer.default_root_dir", str(self.search.output / "runs"), "--name", "tune")
        command = [sys.executable, "-m", "ocrnet_pl", "fit", "--config", str(config), *place]
        return [*command, "--version", self.name, *_SETTINGS]

    def _watch(self, process: subprocess.Popen[bytes], deadline: float) -> bool:
        """Wait for the end, and return whether the trial was ended early."""
        while process.poll() is None:
            if self._look() and self.trial.should_prune():
                _end(process)
                return True
            if time.monotonic() > deadline:
                _end(process)
                return True
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        return False

    def _look(self) -> bool:
        """Report new validations; return whether there are any."""
        found = scores_in(self.folder / "metrics.csv", self.search.metric)
        new = found[len(self.scores) :]
        for score in new:
            self.trial.report(score, len(self.scores))
            self.scores.append(score)
        return bool(new)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def scores_in(table: Path, metric: str) -> list[float]:
    """Return the finite values of a figure in a run's table so far, in order; none if there is no table yet."""
    try:
        with table.open(newline="", encoding="utf-8") as file:
            cells = [row.get(metric) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []
    scores = []
    for cell in cells:
        try:
            scores.append(float(cell or "nan"))
        except ValueError:  # a row that is being written
            continue
    return [score for score in scores if math.isfinite(score)]


def _say(study: optuna.Study, training: _Trial, state: Any, score: float | None, seconds: float) -> None:
    text = {"COMPLETE": "finished", "PRUNED": "ended early", "FAIL": "failed"}[state.name]
    shown = "" if score is None else f", {score:.4f}"
    finished = [each for each in study.trials if each.state.name == "COMPLETE"]
    best = f"; best {study.best_value:.4f} (trial {study.best_trial.number})" if finished else ""
    why = f": {training.failure}" if training.failure else ""
    print(f"trial {training.trial.number}: {text}{shown} in {duration(seconds)}{best}{why}", flush=True)


def _write_results(
    search: Search,
    study: optuna.Study,
    space: Mapping[str, Setting],
    config: Mapping[str, Any],
    dump: Callable[[Any], str],
) -> None:
    trials = [each for each in study.trials if each.state.is_finished()]
    finished = [each for each in trials if each.state.name == "COMPLETE"]
    with complete_file(search.output / "trials.csv") as unfinished, unfinished.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["trial", "state", search.metric, "seconds", *space])
        for each in trials:
            took = "" if each.duration is None else round(each.duration.total_seconds(), 1)
            last = each.value if each.value is not None else each.intermediate_values.get(each.last_step or 0, "")
            writer.writerow([each.number, each.state.name.lower(), last, took, *map(each.params.get, space)])
    if finished:
        values: dict[str, Value] = {name: study.best_params[name] for name in space}
        with complete_file(search.output / "best.yaml") as unfinished:
            unfinished.write_text(dump(with_values(config, values)), encoding="utf-8")
        _draw(search, study, finished, space)


def _draw(search: Search, study: optuna.Study, finished: list[Any], space: Mapping[str, Setting]) -> None:
    """Draw each setting's values against the score."""
    picture = new_figure(3.4 * len(space), 3.2)
    for place, (name, setting) in enumerate(space.items(), 1):
        axes = picture.add_subplot(1, len(space), place)
        values = [each.params[name] for each in finished]
        if setting.values:
            labels = [str(value) for value in setting.values]
            axes.plot([setting.values.index(value) for value in values], [each.value for each in finished], "o", ms=4)
            axes.set_xticks(range(len(labels)), labels)
        else:
            axes.plot(values, [each.value for each in finished], "o", ms=4)
            if setting.log:
                axes.set_xscale("log")
        style_axes(axes, name.replace(".init_args", "").rpartition("model.")[2], search.metric if place == 1 else "")
    save_figure(picture, search.output / "trials.png")
