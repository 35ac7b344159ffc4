"""What all commands share: the options `--config` and `--json`, and what a person is told when something goes wrong."""

from __future__ import annotations

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import click
import structlog

from consumers.errors import KafkaUnavailableError
from consumers.manifest import ManifestError
from stores.errors import StoreError, StoreUnavailableError
from stores.model import PositionOverflowError
from worker.config import ConfigError, load_settings
from worker.dead_letter_guard import TopicHeldError
from worker.safe_errors import safe_traceback
from worker.settings import Settings

OK, FAILED, WRONG_USAGE, REJECTED = 0, 1, 2, 3
"""The exit status of every command; `REJECTED` is for one that is done where the data was partly bad."""
INTERRUPTED = 130

Function = TypeVar("Function", bound=Callable[..., Any])


class CommandError(Exception):
    """A command can't do what was asked. The text says why and what to do, and ends the process with 1."""


_EXPECTED = (StoreError, KafkaUnavailableError, CommandError, PositionOverflowError, TopicHeldError, OSError)

config_option = click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="The configuration.  [default: $COHORT_SYNC_CONFIG, else cohort-sync.yaml]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="One JSON object a line, for programs.")


def with_settings(function: Function) -> Function:
    """Gives a command `--config`, and calls it with what it holds as `settings`."""

    @functools.wraps(function)
    def call(*args: Any, config_file: Path | None, **kwargs: Any) -> Any:
        settings = load_settings(config_file, os.environ)
        try:
            return function(*args, settings=settings, **kwargs)
        except* (StoreUnavailableError, KafkaUnavailableError) as group:
            said = dict.fromkeys(with_address(each, settings) for each in _leaves(group))
            raise CommandError("\n".join(said)) from group

    return cast("Function", config_option(call))


def with_address(exc: BaseException, settings: Settings) -> str:
    """What the error says; of a server that is not available, its address and the setting that has it too."""
    if isinstance(exc, KafkaUnavailableError):
        return f"Kafka at {settings.kafka.bootstrap_servers} (kafka.bootstrap_servers) is not available: {exc.cause}"
    if isinstance(exc, StoreUnavailableError) and exc.store == "PostgreSQL":
        name = "postgres.dsn" if settings.postgres.dsn else "postgres.dsn_file"
        return f"PostgreSQL at {settings.postgres.address()} ({name}) is not available: {exc.cause}"
    if isinstance(exc, StoreUnavailableError):
        return f"{exc}; `projections` in the configuration says where it is"
    return str(exc)


def run_command_line(cli: click.Command, arguments: Sequence[str] | None = None) -> int:
    """Runs the command that the arguments name, and returns its exit status. Nothing is raised."""
    # Its errors become a sentence of our own; `run` sets up its logs, and with them this, for itself.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)
    # Standard output is for what a command shows.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    try:
        status = cli.main(list(arguments) if arguments is not None else None, "cohort-sync", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        return _reader_left()
    except click.ClickException as exc:
        return _wrong_usage(exc)
    except (ConfigError, ManifestError) as exc:
        return _said(WRONG_USAGE, f"the configuration can't be used:\n{exc}")
    except (click.Abort, KeyboardInterrupt):
        return INTERRUPTED
    except BaseException as exc:  # noqa: BLE001 - the last place where an error can be made readable
        return _failed(exc)
    return status if isinstance(status, int) else OK


def _failed(exc: BaseException) -> int:
    """Errors that were to be expected are a sentence each; all others are told with the places in the code."""
    if isinstance(exc, SystemExit):
        return exc.code if isinstance(exc.code, int) else FAILED
    errors = list(_leaves(exc))
    if all(isinstance(error, _EXPECTED) for error in errors):
        return _said(FAILED, "\n".join(dict.fromkeys(map(_sentence, errors))))
    return _said(FAILED, f"an error that nobody expected; please report it:\n{safe_traceback(exc)}")


def _leaves(exc: BaseException) -> Iterator[BaseException]:
    if isinstance(exc, BaseExceptionGroup):
        for inner in exc.exceptions:
            yield from _leaves(inner)
    else:
        yield exc


def _sentence(exc: BaseException) -> str:
    if isinstance(exc, OSError) and exc.strerror:
        return f"{exc.filename}: {exc.strerror}" if exc.filename else exc.strerror
    return str(exc)


def _wrong_usage(exc: click.ClickException) -> int:
    if isinstance(exc, click.exceptions.NoArgsIsHelpError):
        exc.show()
        return WRONG_USAGE
    context = exc.ctx if isinstance(exc, click.UsageError) else None
    hint = f"\nTry `{context.command_path} --help`." if context else ""
    return _said(WRONG_USAGE, f"{exc.format_message()}{hint}")


def _said(status: int, text: str) -> int:
    print(f"cohort-sync: {text}", file=sys.stderr)  # noqa: T201 - this is the command line
    return status


def _reader_left() -> int:
    """Whoever read our output has seen enough, as `head` does: not a word about it, and nothing more to flush."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return FAILED
