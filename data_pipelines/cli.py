"""The command `ladcast-data`: one subcommand per stage, each imported when it runs."""

from __future__ import annotations

from cyclopts import App, Parameter

from ladcast.run import run, strictly

STAGES = {
    "plan": "Say what a download would move and need, before anything moves.",
    "download": "Copy states of an archive or of local files into a store.",
    "regrid": "Regrid a store conservatively.",
    "derive": "Add six-hour precipitation from hourly sums, and vorticity.",
    "static-fields": "Write land, height and roughness of the ground on a model's grid.",
    "statistics": "Write the mean and standard deviation of every channel of a store.",
    "climatology": "Write the mean and standard deviation of a store by day of the year.",
    "encode": "Encode a store to latents with a trained autoencoder.",
    "excerpt": "Cut start states and the truth that follows them out of a store.",
    "simulate": "Simulate years of weather, or ensembles, with an atmospheric model (extra [simulate]).",
    "validate": "Check the files of a product against their checksums, and its fields.",
    "status": "Show what is made, being made and missing in a folder.",
    "run": "Run the stages that a YAML file lists; the same command goes on where it stopped.",
}

app = App(
    name="ladcast-data",
    help="Make the data sets that ladcast is trained and judged on.",
    result_action="return_value",
    default_parameter=Parameter(consume_multiple=True, converter=strictly),  # as in --at A B
    suppress_keyboard_interrupt=False,
)
for stage, summary in STAGES.items():
    function = stage.replace("-", "_")
    app.command(f"data_pipelines.{function}:{function}", name=stage, help=summary)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


def main() -> None:
    """Runs `ladcast-data`."""
    run(app)
