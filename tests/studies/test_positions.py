"""The study of position encodings on tiny data: it resumes, measures what it says, and reports with intervals."""

import json
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from data_pipelines.encode import encode
from ladcast.config import ConfigError, load_config
from ladcast.grid import Grid
from ladcast.models.transformer import TransformerConfig
from ladcast.released import find_model
from worlds import states_between_starts

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "studies/positions/positions.yaml"
FRAMES = 20


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> dict[str, ModuleType]:
    monkeypatch.syspath_prepend(ROOT)
    return {name: import_module(f"studies.positions.{name}") for name in ("study", "measures", "report")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five days on the way from one start state of the embedded model to the other, and their latents."""
    store = states_between_starts(tmp_path_factory.mktemp("data") / "nature.zarr", FRAMES)
    encode(store, find_model("nature-t31").path, store.parent / "latents.zarr", device="cpu")
    return store.parent


def run(scripts: dict[str, ModuleType], data: Path, monkeypatch: pytest.MonkeyPatch, *settings: str) -> list[Any]:
    """Runs the study for a few steps of a small network and returns the lines of its results."""
    training = ["training.steps=3", "training.batch_size=2", "training.checkpoint_every=2", "data_on_gpu=false"]
    size = ["model.heads=2", "model.head_dim=16", "model.rope_axes_dim=[4,6,6]"]
    size += ["model.dual_blocks=0", "model.single_blocks=1", "model.refiner_blocks=0"]
    source = [f"latents={data / 'latents.zarr'}", f"autoencoder={find_model('nature-t31').path}"]
    period = ["train.start=2001-01-01", "train.end=2001-01-31", "training.optimizer.warmup_steps=1", "sampling.steps=4"]
    measures = {
        "measures.test.start": "2001-01-01",
        "measures.test.end": "2001-01-31",
        "measures.truth.path": data / "nature.zarr",
        "measures.starts": "[2001-01-01T00]",
        "measures.members": 2,
        "measures.days": "[1]",
        "measures.frames": "[4,8]",
        "measures.windows": 4,
        "output": data / "study",
        "overrides": json.dumps([*training, *size, *source, *period]),
    }
    override = [f"{key}={value}" for key, value in measures.items()]
    arguments = [text for setting in (*override, *settings) for text in ("--set", setting)]
    monkeypatch.setattr(sys, "argv", ["study.py", str(CONFIG), "--device", "cpu", *arguments])
    scripts["study"].main()
    results = data / "study/results.jsonl"
    return [json.loads(line) for line in results.read_text().splitlines()] if results.is_file() else []


def test_cells_are_run_once_and_compared_over_seeds(
    scripts: dict[str, ModuleType], data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert run(scripts, data, monkeypatch, "encodings=[geo]", "seeds=[0]") != []
    first = run(scripts, data, monkeypatch, "encodings=[geo,geo_seamless+area]", "seeds=[0]")
    rows = run(scripts, data, monkeypatch, "encodings=[geo,geo_seamless+area]", "seeds=[0,1]")
    assert [(row["encoding"], row["seed"]) for row in rows] == [
        *(("geo", 0), ("geo_seamless+area", 0)),
        *(("geo", 1), ("geo_seamless+area", 1)),
    ]
    assert rows[:2] == first
    for row in rows:
        assert all(np.isfinite(value) for value in row.values() if isinstance(value, float))
        assert {"train_loss", "test_loss_8f", "other_grid_loss", "seam_jump", "q700_crps_4d_8f"} < row.keys()
        assert {"z500_crps_1d_4f_seam", "z500_crps_1d_4f_polar"} < row.keys()
        assert row["z500_decoded"] < 100 < row["z500_crps_1d_4f"]  # what is trained has the scale of what is decoded
    assert rows[0]["z500_crps_1d_4f"] != rows[2]["z500_crps_1d_4f"]
    table = (data / "study/table.md").read_text()
    assert table.strip() in capsys.readouterr().out
    assert "\n| `geo` | " in table
    assert "\n| `geo_seamless+area` | " in table
    assert " ± " in table
    assert (data / "study/figure.png").stat().st_size > 10_000
    assert not list((data / "study").glob("*/resume"))


def test_a_cell_of_another_process_is_left_to_it(
    scripts: dict[str, ModuleType], data: Path, monkeypatch: pytest.MonkeyPatch
):
    study = data / "shared"
    settings = ("encodings=[none]", "seeds=[0]", f"output={study}")
    monkeypatch.setattr(scripts["study"], "run_cell", lambda *arguments: {"test_loss_4f": 1.0})
    with scripts["study"].claimed(study / "held") as first, scripts["study"].claimed(study / "held") as second:
        assert first
        assert not second
    run(scripts, data, monkeypatch, *settings)
    (line,) = (study / "results.jsonl").read_text().splitlines()
    (study / "results.jsonl").unlink()
    with scripts["study"].claimed(study / f"none-0-{json.loads(line)['study']}"):
        run(scripts, data, monkeypatch, *settings)
    assert not (study / "results.jsonl").exists()
    run(scripts, data, monkeypatch, *settings)
    assert (study / "results.jsonl").read_text() == line + "\n"


@pytest.mark.parametrize("name", ["positions.yaml", "positions_cpu.yaml"])
def test_the_configurations_fit_and_name_every_encoding(scripts: dict[str, ModuleType], name: str):
    study = load_config(CONFIG.with_name(name), scripts["study"].PositionStudy)
    assert len(study.seeds) >= 3
    known = set(scripts["study"].POSITION_ENCODINGS)
    assert known <= set(study.encodings)
    with pytest.raises(ConfigError, match=r"relative_4.*got \['rope'\]"):
        load_config(CONFIG, scripts["study"].PositionStudy, ["encodings=[geo,rope]"])


def test_a_study_is_the_same_wherever_it_lies(scripts: dict[str, ModuleType], monkeypatch: pytest.MonkeyPatch):
    absolute = load_config(CONFIG, scripts["study"].PositionStudy).digest
    monkeypatch.chdir(CONFIG.parent)
    assert load_config(Path(CONFIG.name), scripts["study"].PositionStudy).digest == absolute
    setting = '["training.optimizer.learning_rate=0.01"]'
    assert load_config(CONFIG, scripts["study"].PositionStudy, [f"overrides={setting}"]).digest != absolute


def test_what_failed_or_is_not_whole_is_left_out_and_said(
    scripts: dict[str, ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    rows = [{"study": "x", "encoding": "geo", "seed": seed, "gib": 1.0} for seed in (0, 1)]
    rows[1]["failed"] = "Expected latents of weather"
    (tmp_path / "results.jsonl").write_text("\n".join(map(json.dumps, rows)) + '\n{"study": "x", "enc')
    read = scripts["report"].read_rows(tmp_path / "results.jsonl", "x")
    assert read == rows
    assert "not whole" in capsys.readouterr().out
    assert "Seeds: geo 2 (1 without forecasts)." in scripts["report"].tables(read)


def test_a_network_that_fails_has_its_losses(
    scripts: dict[str, ModuleType], data: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(measures: object) -> dict[str, float]:
        raise FloatingPointError("members 3 failed")

    monkeypatch.setattr(scripts["measures"].Measures, "forecasts", fail)
    rows = run(scripts, data, monkeypatch, "encodings=[none]", "seeds=[7]")
    assert rows[-1]["failed"] == "members 3 failed"
    assert np.isfinite(rows[-1]["other_grid_loss"])


def test_results_of_other_settings_do_not_count(scripts: dict[str, ModuleType]):
    study, more, longer = (
        load_config(CONFIG, scripts["study"].PositionStudy, settings)
        for settings in ([], ["seeds=[0,1,2,3]"], ["measures.members=9"])
    )
    assert study.digest == more.digest != longer.digest


def test_intervals_are_those_of_student(scripts: dict[str, ModuleType]):
    mean, half = scripts["report"].interval(np.array([1.0, 2.0, 6.0]))
    assert mean == pytest.approx(3.0)
    assert half == pytest.approx(4.302653 * np.sqrt(7 / 3))
    rows = [
        {"encoding": name, "seed": seed, "gib": value}
        for name, values in (("geo", (1.0, 2.0)), ("alibi", (1.1, 2.2)))
        for seed, value in enumerate(values)
    ]
    np.testing.assert_allclose(scripts["report"].difference(rows, "alibi", "gib"), (10.0, 0.0), atol=1e-9)
    assert scripts["report"].tables(rows).splitlines()[2:4] == ["| `geo` | 1.5 |", "| `alibi` | 1.65 (+10.0 ± 0.0 %) |"]


def test_refined_latents_have_no_seam_and_keep_what_is_constant(scripts: dict[str, ModuleType]):
    latents = torch.randn(2, 3, 1, 4, 8)
    refine = scripts["measures"].refine
    assert refine(latents, 1.5).shape == (2, 3, 1, 6, 12)
    torch.testing.assert_close(refine(latents.roll(2, -1), 1.5), refine(latents, 1.5).roll(3, -1))
    torch.testing.assert_close(refine(torch.ones_like(latents), 2.0), torch.ones(2, 3, 1, 8, 16))


def test_the_finer_grid_is_that_of_smaller_patches(scripts: dict[str, ModuleType]):
    coarse, fine = (Grid.parse("64x33-south").coarsen(factor) for factor in (8, 4))
    ends = [
        {"latitude_deg": (g.latitude[0], g.latitude[-1]), "longitude_deg": (g.longitude[0], g.longitude[-1])}
        for g in (coarse, fine)
    ]
    config = scripts["measures"].finer(TransformerConfig(4, **ends[0]), coarse, 2.0)
    assert config == TransformerConfig(4, **ends[1], spacing_deg=45.0)


def test_a_jump_at_the_seam_is_measured_against_the_globe(scripts: dict[str, ModuleType]):
    grid = Grid.parse("8x5")
    truth = torch.sin(torch.arange(8) * (2 * torch.pi / 8)).expand(5, 8)
    step = torch.zeros(8)
    step[0] = 1.0
    found = dict(scripts["measures"].jumps((truth + step)[None], truth, grid))
    assert found["jump_seam_truth"] == pytest.approx(np.sqrt(0.5), rel=1e-5)
    assert found["jump_seam_forecast"] == pytest.approx(np.sqrt(0.5) + 1, rel=1e-5)
