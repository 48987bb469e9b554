"""Several seeds of one run, one after the other in this process."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from netopt_cli import failures, seeds
from netopt_cli.errors import InputError, NetoptError, RunError
from netopt_cli.progress import reporter_for
from netopt_cli.run_dir import (
    LOG,
    discard_unstarted,
    has_record,
    held,
    is_complete,
    recorded_rows,
    refuse_another_config,
    use_run_dir,
)
from netopt_cli.seed_record import SeedRecord, folder_name
from netopt_cli.tables import Row
from netopt_cli.terminal import native_output_to

RunOne = Callable[..., Sequence[Row]]
"""Does one run as `experiment.run` does, with the same arguments, and returns its rows."""


def run(
    config: DictConfig,
    directory: Path,
    run_one: RunOne,
    *,
    allow: tuple[str, ...],
    command: list[str],
    messages: Console,
    quiet: bool,
    started: Callable[[], object] | None = None,
    group: str | None = None,
) -> list[Row]:
    """Runs each seed of `config.seeds` in a directory of its own inside `directory`.

    A seed that fails does not take the others along. Those that are complete, of a run that was
    interrupted, are not done again. The arguments are those of `experiment.run`.

    Returns:
        The rows of all seeds, see `seed_rows.summed_up`.

    Raises:
        ConfigError: Another process works there, or seeds of another config have begun there.
        InputError: The config cannot work: the first seed was refused.
        RunError: Seeds have failed; the record has the others.
    """
    config_yaml = OmegaConf.to_yaml(config, resolve=True)
    wanted = seeds.listed(config.seeds)
    reporter = reporter_for(messages, quiet=quiet, log=directory / LOG)
    given = {"allow": allow, "command": command, "messages": messages, "quiet": quiet}
    given["group"] = f"{group}/{directory.name}" if group else directory.name
    record = SeedRecord(
        directory,
        wanted,
        config=OmegaConf.to_container(config, resolve=True),  # type: ignore[arg-type]
        config_yaml=config_yaml,
        command=command,
    )

    def begin(seed: int) -> None:
        is_first = not record.has_begun
        record.begin(seed)
        if is_first and started is not None:
            started()

    with held(directory), _closing(record):
        if has_record(directory):
            refuse_another_config(directory, config_yaml)
        for number, seed in enumerate(wanted, start=1):
            reporter.say(f"seed {seed}, {number} of {len(wanted)}")
            folder = directory / folder_name(seed)
            if is_complete(folder):
                begin(seed)
                record.add(seed, recorded_rows(folder))
                reporter.say(f"seed {seed} was completed before")
                continue
            use_run_dir(folder)
            start = time.monotonic()
            try:
                rows = _run_one(
                    partial(run_one, seeds.alone(config, seed), folder, **given),
                    folder,
                    partial(begin, seed),
                )
            except Exception as error:
                if number == 1 and isinstance(error, InputError):
                    raise  # what the user wrote, not this seed
                with redirect_stderr(messages.file):
                    failures.report(error, log=folder / LOG, where=folder.name)
                record.fail(seed, _message(error))
            else:
                record.add(seed, rows)
                reporter.say(f"seed {seed} completed in {time.monotonic() - start:.1f} s")
            # Networks and their functions refer to one another, and would pile up until Python
            # happens to look for that.
            gc.collect()
        if record.failed:
            raise _summary(record, wanted)
    return record.rows


@contextmanager
def _closing(record: SeedRecord) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        record.finish("interrupted")
        raise
    except Exception as error:
        record.finish("failed", _message(error))
        raise
    record.finish("completed")


def _run_one(work: RunOne, folder: Path, started: Callable[[], object]) -> Sequence[Row]:
    """Runs one seed; one that is refused or interrupted before it began leaves no directory."""
    try:
        with native_output_to(folder / LOG):
            return work(started=started)
    except (InputError, KeyboardInterrupt):
        discard_unstarted(folder)
        raise


def _summary(record: SeedRecord, wanted: Sequence[int]) -> RunError:
    others = "the table is made of the others" if record.rows else "none is left for a table"
    return RunError(
        f"{len(record.failed)} of {len(wanted)} seeds failed: {', '.join(record.failed)}; {others}"
    )


def _message(error: Exception) -> str:
    return str(error) if isinstance(error, NetoptError) else f"{type(error).__name__}: {error}"
