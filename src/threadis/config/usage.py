"""The command line's help, which fits 80 columns, and its errors in one line."""

from typing import Any

import typer
from typer.core import TyperCommand

WIDTH = 100  # columns at most; long lines are hard to read


def typer_app(**options: Any) -> typer.Typer:
    """Create a group of commands with this kind of help."""
    return typer.Typer(
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": WIDTH},
        **options,
    )


class Command(TyperCommand):
    """A command whose help lists its flags in groups."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the flags, group by group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            group = getattr(param, "rich_help_panel", None) or "Options"
            if record := param.get_help_record(ctx):
                name, text = record
                if param.param_type_name == "argument":
                    name = name.split()[0]  # its type says nothing
                groups.setdefault(group, []).append((name, text))
        for title, records in groups.items():
            with formatter.section(title):
                formatter.write_dl(records)


def mistake(error: Exception) -> str | None:
    """Return the error in one line; None if it is not about the arguments."""
    message = getattr(error, "format_message", None)
    if not callable(message):
        return None
    context = getattr(error, "ctx", None)
    text = " ".join(str(message()).split()).rstrip(".")
    return f"{text}; see {context.command_path} --help" if context else text
