"""The words of `ladcast-data`."""

from pathlib import Path

import pytest
import xarray as xr
import yaml
from cyclopts import CycloptsError

from data_pipelines import Execution
from data_pipelines.cli import app, read_calls, run
from data_pipelines.manifest import read_manifest
from ladcast.checkpoint import checkpoint_hash
from ladcast.data.normalization import Normalizer
from ladcast.fields import ERA5_CHANNELS

LISTS = {
    "times": ("simulate e.zarr --at 1994-01-09T00 1994-01-17T00 --members 2 --from-store n.zarr", "options", "at"),
    "numbers": ("climatology s.zarr o.nc --quantiles 0.1 0.9 --hourly", None, "quantiles"),
    "settings": ("download local o.zarr --setting a=1 b=2", "origin", "setting"),
}


@pytest.mark.slow
def test_shells_can_complete_the_stages():
    assert "climatology" in app.generate_completion(shell="bash")


def test_whole_numbers_are_not_rounded():
    with pytest.raises(CycloptsError, match=r"2\.5"):
        app.parse_args(["simulate", "e.zarr", "--members", "2.5"], exit_on_error=False, print_error=False)


@pytest.mark.parametrize("command", LISTS)
def test_options_take_several_values(command: str):
    words, group, name = LISTS[command]
    _, found, _ = app.parse_args(words.split(), exit_on_error=False, print_error=False)
    arguments = found.arguments
    values = arguments[name] if group is None else getattr(arguments[group], name)
    assert len(values) == 2


CONFIGS = Path(__file__).parents[2] / "configs/data"
HERE = Execution(workers=0)
PRODUCTS = ("states.zarr", "static.nc", "statistics.json", "climatology.nc", "latents.zarr")


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """The published chain, with a climatology that ten days can give."""
    content = yaml.safe_load((CONFIGS / "nature_run.yaml").read_text())
    for step in content["stages"]:
        if step["stage"] == "climatology":
            step |= {"window_days": 365, "step_days": 61}
    content["paths"] = {name: str((CONFIGS / place).resolve()) for name, place in content["paths"].items()}
    path = tmp_path / "chain.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.slow
def test_a_nature_run_becomes_latents_with_one_command(chain: Path, shared: Path, tmp_path: Path):
    products = tmp_path / "products"
    nature = shared / "nature_run/sample_t31_64x33_10d.nc"
    words = ["run", str(chain), "--path", f"nature={nature}", "--path", f"products={products}", "--workers", "0"]
    app(words, exit_on_error=False)
    assert all(read_manifest(products / name)["status"] == "complete" for name in PRODUCTS)
    latents = xr.open_zarr(products / "latents.zarr", chunks=None)
    assert latents.sizes["time"] == 40
    model = Path(yaml.safe_load(chain.read_text())["paths"]["autoencoder"])
    assert latents.attrs["autoencoder"] == checkpoint_hash(model)
    assert Normalizer.load(products / "statistics.json", ERA5_CHANNELS).std.min() > 0
    before = {path: path.stat().st_mtime_ns for path in products.rglob("*")}
    app(words, exit_on_error=False)
    assert {path: path.stat().st_mtime_ns for path in products.rglob("*")} == before


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_shipped_chains_have_stages_and_arguments_that_exist(config: Path):
    for step in read_calls(config, {}):
        command, _, _ = app.parse_args(step.tokens(HERE), exit_on_error=False, print_error=False)
        assert command.__name__ == step.stage.replace("-", "_")


def write(path: Path, content: dict) -> Path:
    path.write_text(yaml.safe_dump(content))
    return path


def test_execution_goes_to_the_stages_that_work_in_units(tmp_path: Path):
    stages = [{"stage": "regrid", "workers": 3}, {"stage": "statistics"}, {"stage": "status", "folder": "{data}"}]
    steps = read_calls(write(tmp_path / "a.yaml", {"paths": {"data": "d"}, "stages": stages}), {})
    execution = Execution(2, "slurm", "site")
    assert steps[0].tokens(execution) == ["regrid", "--workers", "3", "--cluster", "slurm", "--profile", "site"]
    assert steps[1].tokens(execution) == ["statistics", "--workers", "2", "--cluster", "slurm", "--profile", "site"]
    assert steps[2].tokens(execution) == ["status", "--folder", str(tmp_path / "d")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"stages": []}, r"expected the keys 'paths' and 'stages', got \['stages'\]"),
        ({"paths": {}, "stages": [{"stage": "regird"}]}, r"step 1: unknown stage 'regird'\. Known: plan, download"),
        ({"paths": {"a": "b"}, "stages": [{"stage": "status", "folder": "{c}"}]}, r"'\{c\}' names no known path"),
        ({"paths": {"a": "b"}, "stages": [{"stage": "status", "folder": "{a.x}"}]}, r"'\{a.x\}' names no known path"),
        ({"paths": {"a": "b"}, "stages": [{"stage": "run", "config": "a.yaml"}]}, r"step 1: unknown stage 'run'"),
        ({"paths": {"a": "b"}, "stages": ["status"]}, r"step 1: expected a stage and its arguments, got 'status'"),
        ({"paths": {"a": "b"}, "stages": {"stage": "status"}}, r"expected 'stages' as a list, got a dict"),
        ({"paths": ["a"], "stages": []}, r"expected 'paths' as names of folders and files"),
        ([1, 2], r"expected a mapping of names to values, got list"),
        ({"paths": {}, "stages": [{"stage": "status", "folder": [["a"]]}]}, r"step 1: expected a value or a list"),
    ],
)
def test_wrong_files_are_refused(content: dict, message: str, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        read_calls(write(tmp_path / "a.yaml", content), {})


def test_a_file_that_is_no_yaml_is_named(tmp_path: Path):
    (tmp_path / "a.yaml").write_text("paths: [")
    with pytest.raises(ValueError, match=r"a\.yaml cannot be read as YAML"):
        read_calls(tmp_path / "a.yaml", {})


@pytest.mark.parametrize(
    ("path", "message"), [("data", "Expected --path NAME=PLACE"), ("dta=x", r"has no path 'dta'\. It has data")]
)
def test_wrong_places_are_refused(path: str, message: str, tmp_path: Path):
    config = write(tmp_path / "a.yaml", {"paths": {"data": "d"}, "stages": []})
    with pytest.raises(ValueError, match=message):
        run(config, path=(path,), execution=HERE)
