"""The command `ladcast`: its commands by name, each imported when it is asked for.

Files in `ladcast.commands` import what takes long when a command runs, so that `--help` answers at once.
"""

from __future__ import annotations

from typing import Any

from cyclopts import App, Group, Parameter

from ladcast.run import JSON_FLAG, run, strictly

__all__ = ["app", "main", "run"]

app = App(
    name="ladcast",
    help="Calibrated global ensemble forecasts from one analysis.",
    help_epilogue=f"{JSON_FLAG} with any command: results become one JSON object on stdout, all else goes to stderr.",
    result_action="return_value",
    default_parameter=Parameter(consume_multiple=True, converter=strictly, negative_iterable=()),  # as in --source A B
    suppress_keyboard_interrupt=False,
)
COMMANDS = {
    "forecast": ("forecast:forecast", "Make an ensemble forecast; score and draw it."),
    "analysis": ("forecast:analysis", "Put a start state together from archives and open data."),
    "redraw": ("forecast:redraw", "Make members of a past forecast again, bit for bit."),
    "plan forecast": ("forecast:plan_forecast", "Predict time, memory and bytes on disk of a forecast."),
    "plan train": ("train:plan_train", "Predict shapes, memory and time of a training run."),
    "show": ("show:show", "Say what a model, an output or any other data is."),
    "view": ("show:view", "Look at forecasts in the browser."),
    "plot": ("products:plot", "Draw a page, or a map of any field."),
    "track": ("track:track", "Track cyclones, verify them and draw them."),
    "ask": ("products:ask", "Say how likely something is, at a place, in an area, over time."),
    "export": ("products:export", "Write a forecast as netCDF4, GRIB2 or Zarr."),
    "decode": ("products:decode", "Decode a forecast that was kept as latents."),
    "products mean": ("products:mean", "Write the ensemble mean and spread."),
    "products quantiles": ("products:quantiles", "Write quantiles of the members."),
    "products probability": ("products:probability", "Write the share of members in which something happens."),
    "products points": ("products:points", "Write series of all members at places as CSV."),
    "products weekly": ("products:weekly", "Write weekly means of all members."),
    "products quintiles": ("products:quintiles", "Write how likely each fifth of the climatology is in a week."),
    "score": ("score:score", "Score forecasts beside persistence, climatology and other systems."),
    "evaluate": ("score:evaluate", "Make and score forecasts of many dates without keeping them."),
    "merge": ("score:merge", "Merge the sums of parts to scores."),
    "season": ("season:season", "Verify the cyclones of many forecasts, of one or several systems."),
    "verify": ("show:verify", "Check a store or a model against its checksums."),
    "train autoencoder": ("train:autoencoder", "Train an autoencoder on states."),
    "train forecaster": ("train:forecaster", "Train a forecaster on latents."),
    "submit train": ("train:submit_train", "Check a training run and submit it."),
    "weights fetch": ("show:fetch", "Fetch a released model from the hub and install it."),
    "weights import": ("show:import_", "Install a released model from two folders."),
    "weights join": ("show:join", "Give a model further steppers and a table of their skill."),
    "weights verify": ("show:verify", "Check a model against its checksums."),
    "weights show": ("show:list_weights", "List the models at hand, or those in a repository."),
}
"""By its words, the function of each command, and what a list of commands says of it."""
GROUPS = {
    "plan": "Predict what a command will take, before it runs.",
    "products": "Write mean and spread, quantiles, probabilities, weekly means, or series at places.",
    "train": "Train a model that a YAML configuration describes.",
    "submit": "Hand a job to the SLURM queue of a cluster.",
    "weights": "Install released weights, join measured models, check them and list what there is.",
}
PURPOSES = {
    "Forecast": ("forecast", "analysis", "redraw", "plan"),
    "Look, track and hand on": ("show", "view", "plot", "ask", "track", "products", "export", "decode"),
    "Score and check": ("score", "evaluate", "merge", "season", "verify"),
    "Models": ("train", "submit", "weights"),
}
"""How `ladcast --help` groups commands."""


def _register() -> None:
    titles = {title: Group(title, sort_key=place) for place, title in enumerate(PURPOSES)}
    purpose = {name: titles[title] for title, names in PURPOSES.items() for name in names}
    groups = {name: App(name=name, help=summary, group=purpose[name]) for name, summary in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for words, (function, summary) in COMMANDS.items():
        of, _, name = words.rpartition(" ")
        about: dict[str, Any] = {"name": name, "help": summary} | ({} if of else {"group": purpose[name]})
        groups.get(of, app).command(f"ladcast.commands.{function}", **about)


_register()
app.register_install_completion_command(help="Install completion of commands and options for your shell.")
_own = Group("ladcast", sort_key=len(PURPOSES))
for _flag in ("--help", "--version", "--install-completion"):
    app[_flag].group = _own


def main() -> None:
    """Runs `ladcast`."""
    run(app)


if __name__ == "__main__":
    main()
