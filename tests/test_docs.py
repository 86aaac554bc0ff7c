"""The code of README and docs: every command line is understood, those of the first hour run in a tiny world.

A line that needs what is not there (released weights, an archive, best tracks) is refused at once, with its name.
"""

import ast
import importlib
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import xarray as xr
from matplotlib import pyplot

import ladcast
import ladcast.cli
import ladcast.released
from data_pipelines.cli import app as data_app
from ladcast.cli import app
from ladcast.data.normalization import Normalizer
from ladcast.fields import ChannelSet
from ladcast.forecasts import WHOLE, ExportFormat
from ladcast.forecasts.export import export
from worlds import own_model

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
PROGRAMS = {"ladcast": app, "ladcast-data": data_app}
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
WORLD = Normalizer(
    ChannelSet(
        ("geopotential", "temperature"),
        (
            "10m_u_component_of_wind",
            "10m_v_component_of_wind",
            "2m_temperature",
            "mean_sea_level_pressure",
            "total_precipitation_6hr",
        ),
        (500, 850),
    ),
    torch.tensor([55_000.0, 14_000.0, 255.0, 270.0, 0.0, 0.0, 285.0, 1e5, 1e-3]),
    torch.tensor([2_000.0, 1_000.0, 10.0, 12.0, 5.0, 5.0, 12.0, 1e3, 2e-3]),
)
NOT_RUN = {
    "ladcast weights fetch": "needs the network",
    "ladcast weights show": "needs the network, or a registry",
    "ladcast analysis": "needs the network",
    "ladcast view": "serves a page until it is stopped",
    "ladcast-data simulate": "takes hours",
    "ladcast plan forecast --members 50 --days 15": "times the networks",
    "ladcast plan forecast --members 50 --fit-batch": "times the networks",
    "ladcast forecast --members 50": "takes a minute",
    "ladcast plot fc.zarr": "is drawn in tests/plots",
    "ladcast track forecast.zarr --all": "needs a finer grid than that of the tiny model",
}
STORES = {"fc.zarr": "fields", "fc.latents.zarr": "latents", "forecast.zarr": "fields"}
"""What lies in the world: of three members and seven days."""
RUN = ("README.md", "outputs.md", "latent_store.md", "training.md", "one_call.md", "verification.md", "cyclones.md")


def blocks(page: Path, *languages: str) -> list[str]:
    return [code for language, code in BLOCK.findall(page.read_text()) if language in languages]


def lines(page: Path) -> Iterator[list[str]]:
    """Yields the command lines of our programs on a page, as words."""
    for code in blocks(page, "bash", "console"):
        for line in code.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            if words and words[0] in PROGRAMS and "..." not in words:
                yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_line_is_understood(page: Path):
    for program, *words in lines(page):
        _, bound, *_ = PROGRAMS[program].parse_args(words, exit_on_error=False, print_error=False)
        assert bound.arguments or not words[2:], words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_import_is_of_what_exists(page: Path):
    for code in blocks(page, "python"):
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("ladcast"):
                module = importlib.import_module(str(node.module))
                assert not [name.name for name in node.names if not hasattr(module, name.name)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of models where the embedded one is tiny, and its forecast in both kinds of store."""
    folder = tmp_path_factory.mktemp("models")
    model = own_model(folder / "nature-t31", WORLD, step_hours=12)
    for output, keep in STORES.items():
        if output != "forecast.zarr":
            request = {"keep": keep, "output": folder / output, "device": "cpu"}
            ladcast.forecast(model=model.path, members=3, days=7, **request)
    return folder


@pytest.fixture
def world(models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with forecasts and the configurations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ladcast.released, "PRETRAINED", models)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for output, keep in STORES.items():
        made = next(name for name, kept in STORES.items() if kept == keep)
        shutil.copytree(models / made, tmp_path / output)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("name", RUN)
def test_what_a_page_shows_runs_or_is_refused_for_what_is_not_there(
    name: str, world: Path, capsys: pytest.CaptureFixture[str]
):
    page = next(page for page in PAGES if page.name == name)
    if name == "latent_store.md":  # which makes it
        shutil.rmtree("fc.zarr")
    succeeded = 0
    for line in dict.fromkeys(shlex.join(words) for words in lines(page)):
        program, *words = shlex.split(line)
        if any(line.startswith(prefix) for prefix in NOT_RUN) or line == "ladcast forecast":  # which others run
            continue
        code = 0
        try:
            ladcast.cli.run(PROGRAMS[program], words)
        except SystemExit as end:
            code = int(end.code or 0)
        said = capsys.readouterr().err
        # Of a refusal: it is for a file or a model that the line names and that is not there.
        absent = [word for word in re.split(r"[\s=]", line) if re.search(r"[./]", word) and not Path(word).exists()]
        named = absent or re.search(r"\bNo\b|Nothing|not exist|expected a ", said)
        assert code == 0 or (code == 3 and named), f"{line}: {code}\n{said}"
        succeeded += code == 0
    assert succeeded or name in ("training.md", "one_call.md", "verification.md", "cyclones.md")


@pytest.mark.slow
def test_python_of_the_first_hour_runs(world: Path):
    export(Path("fc.zarr"), Path("forecast.nc"), WHOLE, ExportFormat())
    for name in ("README.md", "latent_store.md", "outputs.md"):
        page = next(page for page in PAGES if page.name == name)
        for code in blocks(page, "python"):
            exec(code.replace("ladcast.track(", "str("), {"xr": xr})  # the tiny grid is too coarse for tracks
    pyplot.close("all")  # which `.plot()` of xarray opens
