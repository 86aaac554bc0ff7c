"""The command `ladcast`: arguments only. Heavy libraries are imported when a command runs, not for `--help`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cyclopts import App, Parameter

from ladcast.cli import forecast, models, outputs, verify
from ladcast.commands.track import track
from ladcast.run import JSON_FLAG, run, strictly

__all__ = ["app", "main", "run"]

app = App(
    name="ladcast",
    help="Calibrated global ensemble forecasts from one analysis.",
    help_epilogue=f"{JSON_FLAG} with any command: results become one JSON object on stdout, all else goes to stderr.",
    result_action="return_value",
    default_parameter=Parameter(converter=strictly),
    suppress_keyboard_interrupt=False,
)
plan_app = App(name="plan", help="Predict what a command will take, before it runs.")
products_app = App(name="products", help="Mean and spread, quantiles, probabilities, and series at places.")
train_app = App(name="train", help="Train a model that a YAML configuration describes.")
submit_app = App(name="submit", help="Hand a job to the SLURM queue of a cluster.")
weights_app = App(name="weights", help="Install released weights, check them and list what there is.")

COMMANDS: tuple[tuple[App, dict[str, Callable[..., Any]]], ...] = (
    (
        app,
        {
            "forecast": forecast.forecast,
            "analysis": forecast.analysis,
            "score": verify.score,
            "evaluate": verify.evaluate,
            "merge": verify.merge,
            "track": track,
            "plot": outputs.plot,
            "export": outputs.export,
            "decode": outputs.decode,
            "show": outputs.show,
        },
    ),
    (plan_app, {"forecast": forecast.plan_forecast}),
    (
        products_app,
        {
            "mean": outputs.mean,
            "quantiles": outputs.quantiles,
            "probability": outputs.probability,
            "points": outputs.points,
        },
    ),
    (train_app, {"autoencoder": models.autoencoder, "forecaster": models.forecaster}),
    (submit_app, {"train": models.submit_train}),
    (
        weights_app,
        {
            "fetch": models.fetch,
            "import": models.import_,
            "verify": models.verify,
            "show": models.show_weights,
        },
    ),
)
for group, commands in COMMANDS:
    for name, command in commands.items():
        group.command(command, name=name)
    if group is not app:
        app.command(group)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


def main() -> None:
    """Runs `ladcast`."""
    run(app)
