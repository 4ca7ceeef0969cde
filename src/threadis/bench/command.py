"""The command ``threadis bench``: its subcommands."""

import typer

from threadis.bench import run_commands, suite_commands

app = typer.Typer(
    no_args_is_help=True,
    help="Measure thREaDIS beside bare stock servers of the same binary, alternating, in one run.",
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.command()(run_commands.run)
app.command()(run_commands.quick)
app.command("figures")(suite_commands.figures_command)
app.command()(run_commands.full)
app.command("scale")(suite_commands.scale_command)
app.command("multikey")(suite_commands.multikey_command)
app.command("latency")(suite_commands.latency_command)
app.command("clients")(suite_commands.clients_command)
app.command()(run_commands.idle)
