"""Shared fixtures: where real data lies, a seeded generator, and a hub of released weights.

Libraries are imported where they are used: the process that hands tests out to others reads this file, and runs none.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch
    import xarray as xr

    from ladcast.data.analysis import Analysis
    from ladcast.forecasting.ensemble import EnsembleOptions
    from ladcast.forecasting.forecaster import Forecaster
    from ladcast.released import Assets, ModelFolder
    from worlds import Kept

    Run = Callable[[Analysis | Sequence[Analysis], EnsembleOptions], xr.Dataset]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("gpu"):
            import torch

            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a GPU"))


STEERING = ("LADCAST", "SLURM", "OMP", "CUDA", "RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER", "HOME", "PATH", "TMPDIR")
"""How variables begin that steer what tests call; libraries set others when they are imported."""


@pytest.fixture(scope="module", autouse=True)
def nothing_left() -> Iterator[None]:
    """Fails in the file that leaves something in its process, not in one that happens to follow it there."""
    before = process_state()
    yield
    assert process_state() == before


def process_state() -> dict[str, object]:
    """Returns what tests share whether they want to or not."""
    pyplot, torch = sys.modules.get("matplotlib.pyplot"), sys.modules.get("torch")
    handlers = {signum.name: signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    return {
        "folder": str(Path.cwd()),
        **{f"${name}": text for name, text in os.environ.items() if name.startswith(STEERING)},
        "figures": pyplot.get_fignums() if pyplot else [],
        "double precision": torch is not None and torch.get_default_dtype() != torch.float32,
        **handlers,
    }


@pytest.fixture(scope="session")
def forks() -> None:
    """Starts what `processes` forks its programs from."""
    from processes import start_server

    start_server()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden numbers beside the checkout, or the one `LADCAST_SHARED` names."""
    folder = Path(os.environ.get("LADCAST_SHARED", Path(__file__).parents[2] / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder} (set LADCAST_SHARED)")
    return folder


@pytest.fixture
def interpreted() -> Callable[[str], None]:
    """Runs a program whose GPU kernels Triton interprets on the CPU."""
    pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA wheels")
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": paths}

    def run(program: str) -> None:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr

    return run


@pytest.fixture
def generator() -> torch.Generator:
    import torch

    return torch.Generator().manual_seed(0)


class Hub:
    """Serves a folder as one repository at one commit, and remembers what was asked for."""

    name = "someone/weather"
    commit = "0123456789abcdef0123456789abcdef01234567"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.fetched: list[str] = []
        self.stated: dict[str, str] = {}
        """Hashes that the hub states wrongly, by path."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                hub.answer(self, body=False)

            def do_GET(self) -> None:
                hub.answer(self, body=True)

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"

    def answer(self, request: BaseHTTPRequestHandler, *, body: bool) -> None:
        path = request.path.partition("?")[0]
        if path in {f"/api/models/{self.name}/revision/{revision}" for revision in ("main", self.commit)}:
            return self.send(request, json.dumps(self.description()).encode(), body, {})
        prefix = f"/{self.name}/resolve/{self.commit}/"
        if path.startswith(prefix) and (self.root / path.removeprefix(prefix)).is_file():
            name = path.removeprefix(prefix)
            content = (self.root / name).read_bytes()
            if body:
                self.fetched.append(name)
            etag = f'"{self.sha256(name)}"'
            return self.send(
                request, content, body, {"ETag": etag, "X-Linked-ETag": etag, "X-Repo-Commit": self.commit}
            )
        code = "RevisionNotFound" if path.startswith(f"/api/models/{self.name}/") else "RepoNotFound"
        return self.send(request, b"{}", body, {"X-Error-Code": code, "X-Error-Message": "not here"}, status=404)

    def send(
        self,
        request: BaseHTTPRequestHandler,
        content: bytes,
        body: bool,
        headers: dict[str, str],
        *,
        status: int = 200,
    ) -> None:
        request.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            request.send_header(name, value)
        request.end_headers()
        if body:
            request.wfile.write(content)

    def description(self) -> dict[str, object]:
        files = [path.relative_to(self.root).as_posix() for path in sorted(self.root.rglob("*")) if path.is_file()]
        siblings = [{"rfilename": name, "size": (self.root / name).stat().st_size, **self.lfs(name)} for name in files]
        return {
            "id": self.name,
            "modelId": self.name,
            "sha": self.commit,
            "siblings": siblings,
            "tags": [],
            "private": False,
        }

    def lfs(self, name: str) -> dict[str, object]:
        if not name.endswith(".safetensors"):
            return {"blobId": "0" * 40}
        size = (self.root / name).stat().st_size
        return {"blobId": "0" * 40, "lfs": {"sha256": self.sha256(name), "size": size, "pointerSize": 130}}

    def sha256(self, name: str) -> str:
        return self.stated.get(name, hashlib.sha256((self.root / name).read_bytes()).hexdigest())


@pytest.fixture
def released(shared: Path, tmp_path: Path) -> Path:
    """A folder as a repository of the hub holds it: two small networks in folders of their own, and other files."""
    for kind in ("transformer", "autoencoder"):
        folder = tmp_path / "repository" / "V9" / kind
        folder.mkdir(parents=True)
        shutil.copyfile(shared / "golden" / f"{kind}_config.json", folder / "config.json")
        shutil.copyfile(shared / "golden" / f"{kind}.safetensors", folder / "diffusion_pytorch_model.safetensors")
        (folder / "other.bin").write_bytes(b"\x80\x04 a pickle")
    (tmp_path / "repository" / "README.md").write_text("about")
    return tmp_path / "repository"


@pytest.fixture
def hub(released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The hub, played by a server on this machine that answers as the real one does."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    hub = Hub(released)
    yield hub
    hub.server.shutdown()
    hub.server.server_close()


RELEASED_CHANNELS = {
    "upper_air": [
        "geopotential",
        "specific_humidity",
        "temperature",
        "u_component_of_wind",
        "v_component_of_wind",
        "vertical_velocity",
    ],
    "levels": [500],
    "surface": [
        "10m_u_component_of_wind",
        "10m_v_component_of_wind",
        "2m_temperature",
        "mean_sea_level_pressure",
        "sea_surface_temperature",
        "total_precipitation_6hr",
    ],
}


@pytest.fixture
def assets(tmp_path: Path) -> Assets:
    import yaml

    from ladcast.released import Assets

    (tmp_path / "channels.yaml").write_text(yaml.safe_dump(RELEASED_CHANNELS))
    latent = {"mean": [0.1] * 12, "std": [0.5] * 12}
    (tmp_path / "latent.json").write_text(json.dumps(latent))
    return Assets(channels=str(tmp_path / "channels.yaml"), grid="64x32", latent_statistics=tmp_path / "latent.json")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of installed models, empty."""
    monkeypatch.setenv("LADCAST_MODELS", str(tmp_path / "models"))
    return tmp_path / "models"


@pytest.fixture
def forecaster() -> Forecaster:
    from worlds import tiny_forecaster

    return tiny_forecaster()


@pytest.fixture
def analysis(forecaster: Forecaster) -> Analysis:
    from worlds import tiny_analysis

    return tiny_analysis(forecaster)


@pytest.fixture
def run(forecaster: Forecaster) -> Run:
    """Makes a whole forecast in memory, from one analysis or from those of the hours before an initial time, too."""
    import xarray as xr

    from ladcast.data.analysis import Analysis
    from ladcast.forecasting.ensemble import decode_step, member_batches, staggered

    def make(analyses: Analysis | Sequence[Analysis], options: EnsembleOptions) -> xr.Dataset:
        conditions = staggered([analyses] if isinstance(analyses, Analysis) else analyses)
        rows: dict[int, list[xr.Dataset]] = {}
        for batch in member_batches(forecaster, conditions, options):
            rows.setdefault(batch.number, []).extend(decode_step(batch, step) for step in batch.forecast())
        leads = [xr.concat(row, "prediction_timedelta").sortby("prediction_timedelta") for row in rows.values()]
        return xr.concat(leads, "number")

    return make


@pytest.fixture(scope="session")
def kept_once(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """3 members in batches of 2, 8 lead times, made by a model that lies in a folder."""
    from ladcast.forecasting.checkpoints import load_forecaster, save_forecaster
    from ladcast.forecasting.ensemble import EnsembleOptions
    from worlds import keep, tiny_analysis, tiny_forecaster

    folder = tmp_path_factory.mktemp("kept")
    forecaster, model = tiny_forecaster(), folder / "models" / "tiny"
    save_forecaster(forecaster, model, {}, dtype=None)
    loaded = load_forecaster(model, "cpu")
    options = EnsembleOptions(3, 2, 0, batch_size=2)
    return keep(loaded, model, tiny_analysis(forecaster), options, folder)


@pytest.fixture(scope="session")
def weather_model(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """A tiny model of few channels and all kinds of them, with start states and the truth after them."""
    from worlds import WEATHER, own_model

    return own_model(tmp_path_factory.mktemp("models") / "weather", WEATHER)


@pytest.fixture
def kept(kept_once: Kept, tmp_path: Path) -> Kept:
    """Copies of the stores of `kept_once`, which a test may spoil."""
    stores = {name: tmp_path / getattr(kept_once, name).name for name in ("latents", "fields")}
    for name, path in stores.items():
        shutil.copytree(getattr(kept_once, name), path)
    return replace(kept_once, **stores)
