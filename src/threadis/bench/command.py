"""The command ``threadis bench``: its subcommands."""

from threadis.bench import run_commands, suite_commands
from threadis.config.usage import Command, typer_app

app = typer_app(help="Compare thREaDIS with the same server running alone.")

app.command(cls=Command)(run_commands.run)
app.command(cls=Command)(run_commands.quick)
app.command("figures", cls=Command)(suite_commands.figures_command)
app.command(cls=Command)(run_commands.full)
app.command("scale", cls=Command)(suite_commands.scale_command)
app.command("multikey", cls=Command)(suite_commands.multikey_command)
app.command("latency", cls=Command)(suite_commands.latency_command)
app.command("clients", cls=Command)(suite_commands.clients_command)
app.command(cls=Command)(run_commands.idle)
