"""Reads the settings: one YAML file, overridden by environment variables, checked as a whole.

Whatever is wrong is said at once, each with its place, what is wrong there, and the name that was probably meant.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from worker.config.checks import check_together
from worker.config.document import Document
from worker.config.environment import CONFIG_VARIABLE, overlay
from worker.config.problems import ConfigError, Place, Problem, from_validation, path_text
from worker.settings import Settings

__all__ = ["CONFIG_VARIABLE", "DEFAULT_PATH", "ConfigError", "config_path", "load", "load_settings"]

DEFAULT_PATH = Path("cohort-sync.yaml")


def config_path(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Path:
    """The file to read: the one given, or the one in $COHORT_SYNC_CONFIG, or cohort-sync.yaml."""
    return given or Path(environ.get(CONFIG_VARIABLE) or DEFAULT_PATH)


def load_settings(given: Path | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings as every command finds them: from `config_path`. Raises `ConfigError`."""
    return load(config_path(given, environ), environ)


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in this file, overridden by the environment. Raises `ConfigError` with everything that is wrong."""
    document = Document.read(path)
    problems = [*document.problems, *overlay(document, environ)]
    settings: Settings | None = None
    try:
        settings = Settings.model_validate(document.values, context={"folder": path.parent})
    except ValidationError as exc:
        problems += from_validation(exc)
    problems += check_together(document.values, path.parent)
    if problems or settings is None:
        placed = [(problem.place or document.place(problem.location), problem) for problem in problems]
        placed.sort(key=lambda pair: pair[0].order)
        raise ConfigError(_line(place, problem) for place, problem in placed)
    return settings


def _line(place: Place, problem: Problem) -> str:
    path = path_text(problem.location)
    return f"{place.text}: {path}: {problem.text}" if path else f"{place.text}: {problem.text}"
