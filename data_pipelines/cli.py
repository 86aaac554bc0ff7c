"""The command `ladcast-data`: one subcommand per stage, each imported when it runs."""

from __future__ import annotations

from cyclopts import App

from ladcast.tasks.outcome import run

STAGES = {
    "simulate": "Simulate years of weather, or ensembles, with an atmospheric model (extra [simulate]).",
    "statistics": "Write the mean and standard deviation of every channel of a store.",
    "climatology": "Write the mean and standard deviation of a store by day of the year.",
    "encode": "Encode a store to latents with a trained autoencoder.",
    "excerpt": "Cut start states and the truth that follows them out of a store.",
}

app = App(
    name="ladcast-data",
    help="Make the data sets that ladcast is trained and judged on.",
    result_action="return_value",
    suppress_keyboard_interrupt=False,
)
for stage, summary in STAGES.items():
    app.command(f"data_pipelines.{stage}:{stage}", name=stage, help=summary)


def main() -> None:
    """Runs `ladcast-data`."""
    run(app)
