"""Stage `simulate`: years of model weather, or ensembles of it, in the layout of the ERA5 store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from data_pipelines.gcm.ensemble import Ensemble
from data_pipelines.gcm.nature_run import NatureRun
from data_pipelines.gcm.timeline import KeptStates, SimulationOptions
from data_pipelines.manifest import MANIFEST, check_unchanged, read_manifest
from data_pipelines.options import Execution
from data_pipelines.product import produce


def simulate(store: Path, options: Annotated[SimulationOptions | None, Parameter(name="*")] = None) -> None:
    """Simulates into a Zarr store; the same call again goes on where an interrupted one stopped.

    The result of an interrupted run equals that of an uninterrupted one. The store holds the standard
    variables and the surface pressure, 6-hourly, on pressure levels.

    Raises:
        ImportError: JCM is not installed in the version that is needed.
        ValueError: options contradict each other or those that the store was begun with; or the model became
            unstable, as the message then says.
    """
    options = options or SimulationOptions()
    if _finished_by_an_earlier_version(store, options):
        print(f"{store} is complete already.")
        return
    recipe = NatureRun(options) if options.from_store is None else _ensemble(options, options.from_store)
    produce(recipe, store, Execution(workers=0))  # one compiled model, which uses all cores or the GPU by itself


def _finished_by_an_earlier_version(store: Path, options: SimulationOptions) -> bool:
    """Says whether a store is one of those that grew under their own name and have no checksums.

    Raises:
        ValueError: it is one, but unfinished or of other options.
    """
    found = read_manifest(store)
    if "options" not in found:
        return False
    check_unchanged(store, {"arguments": found["options"]}, {"arguments": options.to_dict()})
    if found["status"] == "running":
        raise ValueError(
            f"{store} was begun by an earlier version, and this one cannot go on with it. "
            "Finish it with that version, or delete it and run this again."
        )
    return True


def _ensemble(options: SimulationOptions, nature: Path) -> Ensemble:
    made = read_manifest(nature)
    if made.get("stage") != "simulate":
        raise ValueError(
            f"Expected a nature run as from_store, but {nature / MANIFEST} does not say that `simulate` made it."
        )
    truncation = (made.get("arguments") or made["options"])["truncation"]
    if truncation != options.truncation:
        raise ValueError(
            f"{nature} has truncation={truncation}, the ensemble {options.truncation}: "
            "states fit one truncation only. Use the same."
        )
    return Ensemble(options, KeptStates.scan(nature))
