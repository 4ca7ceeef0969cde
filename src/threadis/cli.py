"""The command line: arguments become one Config, then one call. No logic."""

import asyncio
import inspect
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from threadis import __version__
from threadis.bench.command import app as bench
from threadis.config import config, usage
from threadis.errors import ThreadisError
from threadis.system import logs, loops

app = usage.typer_app(name="threadis")

INTERRUPTED = 130  # exit status after Ctrl-C
DIRECTIVES_HELP = "Pass a directive through to every instance, as --set hz=50; may be repeated."


def _flag(name: str, default: Any, knob: config.Knob) -> inspect.Parameter:
    """Convert a knob to a parameter that typer turns into a flag."""
    option = typer.Option(
        "--" + name.replace("_", "-"),
        metavar=knob.metavar,
        help=knob.help + _default_text(default, knob),
        rich_help_panel=knob.panel,
    )
    kind = list[str] | None if knob.is_list else str | None
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind, option]
    )


def _default_text(default: Any, knob: config.Knob) -> str:
    """Format the default as the user would write it."""
    if isinstance(default, bool):
        return f" (default: {'yes' if default else 'no'})"
    if default is None or knob.is_list:
        return " (default: auto)" if "auto" in knob.metavar else ""
    return f" (default: {default})"


def _with_flags(command: Callable[[config.Config], None]) -> Callable[..., None]:
    """Add a flag for every knob, ``--set`` and ``--config`` to a command."""

    def run(**given: Any) -> None:
        directives, file = given.pop("set_") or [], given.pop("config_")
        command(config.load(given, directives, file))

    set_option = typer.Option(
        "--set", metavar="NAME=VALUE", help=DIRECTIVES_HELP, rich_help_panel=config.SERVER
    )
    file_option = typer.Option(
        "--config",
        metavar="FILE",
        help="TOML file; same names as the flags, which take precedence.",
    )
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter(
            "config_", keyword, default=None, annotation=Annotated[str | None, file_option]
        ),
        *(_flag(name, default, knob) for name, default, knob in config.knobs() if knob.is_flag),
        inspect.Parameter(
            "set_", keyword, default=None, annotation=Annotated[list[str] | None, set_option]
        ),
    ]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    return run


def serve(settings: config.Config) -> None:
    """Serve one port with every core: stock servers behind one proxy.

    Examples:

      threadis serve                         # 127.0.0.1:6379, all cores

      threadis serve --port 7000 --instances 4 --appendonly yes

      threadis serve --maxmemory 8gb --maxmemory-policy allkeys-lru --save ""

      threadis serve --config threadis.toml --set hz=50
    """
    from threadis.supervisor.supervisor import Supervisor

    logs.set_up()

    async def run() -> int:
        return await Supervisor(settings, _say).run()

    with asyncio.Runner(loop_factory=loops.new) as runner:
        raise typer.Exit(runner.run(run()))


def plan(settings: config.Config) -> None:
    """Print what would run on which core."""
    from threadis.supervisor.checks import dry_run

    for line in dry_run(settings).render():
        _say(line)


def where(
    key: Annotated[
        str, typer.Argument(metavar="KEY", show_default=False, help="The key, as clients name it.")
    ],
    db: Annotated[int, typer.Option("--db", metavar="N", min=0, help="Its database.")] = 0,
    databases: Annotated[
        str | None,
        typer.Option("--databases", metavar="N", help="How many there are (default: 16)"),
    ] = None,
    directory: Annotated[
        str | None,
        typer.Option("--dir", metavar="DIR", help="Data directory (default: threadis-data)"),
    ] = None,
    file: Annotated[
        str | None, typer.Option("--config", metavar="FILE", help="TOML file that may name it.")
    ] = None,
) -> None:
    """Print the instance of a key.

    Also its slot, and the placement rule that decides.

    Reads the data directory; thREaDIS may run or not, and the key need not exist.

    Examples:

      threadis where user:1000

      threadis where bull:emails:7 --dir /var/lib/threadis

      threadis where session:42 --db 3
    """
    from threadis.data.where import describe

    settings = config.load({"dir": directory, "databases": databases}, [], file)
    for line in describe(Path(settings.dir), key, db, settings.databases):
        _say(line)


app.command(cls=usage.Command)(_with_flags(serve))
app.command(cls=usage.Command)(_with_flags(plan))
app.command(cls=usage.Command)(where)
app.add_typer(bench, name="bench")


def _say(line: str) -> None:
    """Print a line on standard output; it does not matter if that is closed."""
    try:
        print(line, flush=True)
    except OSError:
        logging.getLogger("threadis").debug("nobody reads standard output")


def _print_version(wanted: bool) -> None:
    if wanted:
        _say(f"threadis {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", callback=_print_version, is_eager=True
        ),
    ] = False,
) -> None:
    """One ordinary Redis that uses every core: stock servers behind one smart proxy."""


def main() -> None:
    """The console command ``threadis``."""
    try:
        Path.cwd()
    except OSError:
        fail("the current directory does not exist any more; change to another one", 1)
    try:
        status = app(sys.argv[1:] or ["--help"], prog_name="threadis", standalone_mode=False)
    except ThreadisError as error:
        fail(str(error), error.exit_status)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except Exception as error:
        if (text := usage.mistake(error)) is None:
            raise
        fail(text, 2)
    else:
        sys.exit(status if isinstance(status, int) else 0)


def fail(text: str, status: int) -> NoReturn:
    """Print one line that says why, and exit."""
    print(f"threadis: {text}", file=sys.stderr)
    sys.exit(status)
