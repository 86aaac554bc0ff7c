"""The command `ladcast-data`: one subcommand per stage, each imported when it runs."""

from __future__ import annotations

from cyclopts import App, Parameter

from ladcast.run import run, strictly

STAGES = {
    "plan": ("plan", "Say what a download would move and need, before anything moves."),
    "download": ("transfer", "Copy states of an archive or of local files into a store."),
    "regrid": ("transfer", "Regrid a store conservatively."),
    "derive": ("transfer", "Add six-hour precipitation from hourly sums, and vorticity."),
    "static-fields": ("static_fields", "Write land, height and roughness of the ground on a model's grid."),
    "statistics": ("statistics", "Write the mean and standard deviation of every channel of a store."),
    "climatology": ("statistics", "Write the mean and standard deviation of a store by day of the year."),
    "encode": ("encode", "Encode a store to latents with a trained autoencoder."),
    "excerpt": ("excerpt", "Cut start states and the truth that follows them out of a store."),
    "simulate": ("simulate", "Simulate years of weather, or ensembles, with an atmospheric model (extra [simulate])."),
    "validate": ("inspection", "Check the files of a product against their checksums, and its fields."),
    "status": ("inspection", "Show what is made, being made and missing in a folder."),
    "run": ("run", "Run the stages that a YAML file lists; the same command goes on where it stopped."),
}
"""By name, the module of each stage and what it does."""

app = App(
    name="ladcast-data",
    help="Make the data sets that ladcast is trained and judged on.",
    result_action="return_value",
    default_parameter=Parameter(consume_multiple=True, converter=strictly),  # as in --at A B
    suppress_keyboard_interrupt=False,
)
for stage, (module, summary) in STAGES.items():
    app.command(f"data_pipelines.{module}:{stage.replace('-', '_')}", name=stage, help=summary)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


def main() -> None:
    """Runs `ladcast-data`."""
    run(app)
