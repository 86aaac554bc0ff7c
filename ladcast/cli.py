"""The command `ladcast`: its commands by name, each imported when it is asked for.

Files in `ladcast.commands` import what takes long when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from cyclopts import App, Parameter

from ladcast.run import JSON_FLAG, run, strictly

__all__ = ["app", "main", "run"]

app = App(
    name="ladcast",
    help="Calibrated global ensemble forecasts from one analysis.",
    help_epilogue=f"{JSON_FLAG} with any command: results become one JSON object on stdout, all else goes to stderr.",
    result_action="return_value",
    default_parameter=Parameter(consume_multiple=True, converter=strictly),  # as in --source A B
    suppress_keyboard_interrupt=False,
)
COMMANDS = {
    "forecast": "forecast:forecast",
    "analysis": "forecast:analysis",
    "score": "score:score",
    "evaluate": "score:evaluate",
    "merge": "score:merge",
    "track": "track:track",
    "redraw": "redraw:redraw",
    "ask": "ask:ask",
    "plot": "products:plot",
    "view": "view:view",
    "export": "products:export",
    "decode": "products:decode",
    "show": "show:show",
    "verify": "show:verify",
}
GROUPS = {
    "plan": ("Predict what a command will take, before it runs.", {"forecast": "forecast:plan_forecast"}),
    "products": (
        "Mean and spread, quantiles, probabilities, and series at places.",
        {
            "mean": "products:mean",
            "quantiles": "products:quantiles",
            "probability": "products:probability",
            "points": "products:points",
        },
    ),
    "train": (
        "Train a model that a YAML configuration describes.",
        {"autoencoder": "train:autoencoder", "forecaster": "train:forecaster"},
    ),
    "submit": ("Hand a job to the SLURM queue of a cluster.", {"train": "train:submit_train"}),
    "weights": (
        "Install released weights, check them and list what there is.",
        {"fetch": "show:fetch", "import": "show:import_", "verify": "show:verify", "show": "show:list_weights"},
    ),
}


def _register(group: App, commands: dict[str, str]) -> None:
    for name, function in commands.items():
        group.command(f"ladcast.commands.{function}", name=name)


_register(app, COMMANDS)
for _name, (_help, _commands) in GROUPS.items():
    _group = App(name=_name, help=_help)
    _register(_group, _commands)
    app.command(_group)
app.register_install_completion_command(help="Install completion of commands and options for your shell.")


def main() -> None:
    """Runs `ladcast`."""
    run(app)


if __name__ == "__main__":
    main()
