import re
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.checksums import CHECKSUMS
from ladcast.cli import app, run
from ladcast.commands.products import decode, export
from ladcast.forecasting.codec import LatentCodec
from ladcast.forecasts import ExportFormat, Selection
from ladcast.forecasts.export import write_whole
from ladcast.forecasts.formats import ZarrWriter
from ladcast.forecasts.open import open_part
from ladcast.run import ExitCode
from worlds import Kept, full_disk

EUROPE = Selection(("temperature", "msl"), (500, 850), (6, 24), (2, 0), "-10,35,30,70")
LONG_NAMES = {"t": "temperature", "msl": "mean_sea_level_pressure"}


@pytest.fixture
def kept(kept_once: Kept) -> Kept:
    return kept_once


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
@pytest.mark.parametrize("selection", [Selection(), EUROPE], ids=["whole", "part"])
def test_decoded_fields_are_those_of_the_forecast(selection, kept, tmp_path: Path):
    decode(kept.latents, tmp_path / "part.zarr", selection=selection)
    written = xr.open_zarr(tmp_path / "part.zarr", chunks=None)
    expected = open_part(kept.fields, selection)
    assert set(written.data_vars) == set(expected.data_vars)
    for name, field in expected.data_vars.items():
        np.testing.assert_array_equal(written[name].values, field.values)
    np.testing.assert_array_equal(written["longitude"], expected["longitude"])


@pytest.mark.slow
def test_netcdf_holds_the_same(kept, tmp_path: Path):
    decode(kept.latents, tmp_path / "part.nc", selection=EUROPE)
    written = xr.open_dataset(tmp_path / "part.nc", decode_timedelta=False)
    for short, name in LONG_NAMES.items():
        np.testing.assert_array_equal(written[short].values, open_part(kept.fields, EUROPE)[name].values)


@pytest.mark.slow
def test_the_command_takes_options_of_part_model_and_format(kept, tmp_path: Path):
    part = ["--variables", "msl", "--leads", "6", "24", "--members", "2", "--region=-10,35,30,70"]
    decoder = ["--model", str(kept.model), "--device", "cpu"]
    run(app, ["decode", str(kept.latents), str(tmp_path / "x.zarr"), *part, *decoder, "--zarr-format", "2"])
    written = xr.open_zarr(tmp_path / "x.zarr", chunks=None)
    expected = open_part(kept.fields, Selection(("msl",), (), (6, 24), (2,), "-10,35,30,70"))
    np.testing.assert_array_equal(written["mean_sea_level_pressure"], expected["mean_sea_level_pressure"])


class Killed(BaseException):
    """Plays the kill of the process."""


@pytest.mark.slow
@pytest.mark.parametrize("frames", [1, 3])
def test_a_killed_decoding_goes_on_to_the_same_bytes(frames, kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    decode(kept.latents, tmp_path / "whole.zarr", selection=Selection(("msl", "t")))
    original = ZarrWriter._write

    def killed(self, start, lead, frame):
        if lead == frames:
            raise Killed
        original(self, start, lead, frame)

    with monkeypatch.context() as patched:
        patched.setattr(ZarrWriter, "_write", killed)
        with pytest.raises(Killed):
            decode(kept.latents, tmp_path / "killed.zarr", selection=Selection(("msl", "t")))
    assert not (tmp_path / "killed.zarr").exists()
    counted: list[int] = []
    decode_frames = LatentCodec.decode
    monkeypatch.setattr(
        LatentCodec,
        "decode",
        lambda self, latent, ocean=None: (counted.append(len(latent)), decode_frames(self, latent))[1],
    )
    decode(kept.latents, tmp_path / "killed.zarr", selection=Selection(("msl", "t")))
    assert contents(tmp_path / "killed.zarr") == contents(tmp_path / "whole.zarr")
    assert sum(counted) == (8 - frames) * 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["part.nc", "part.zarr"])
def test_a_full_disk_ends_it_with_4_and_it_goes_on_when_there_is_space(name, kept, tmp_path: Path, capfd):
    tokens = ["decode", str(kept.latents), str(tmp_path / name), "--variables", "msl", "t"]
    with full_disk(3000), pytest.raises(SystemExit) as caught:
        run(app, tokens)
    assert caught.value.code == ExitCode.OUTPUT
    assert re.search("No more can be written|Free some space", capfd.readouterr().err)
    assert not (tmp_path / name).exists()
    run(app, tokens)
    opened = xr.open_dataset(tmp_path / name) if name.endswith("nc") else xr.open_zarr(tmp_path / name)
    variable = "msl" if name.endswith("nc") else "mean_sea_level_pressure"
    np.testing.assert_array_equal(opened[variable], open_part(kept.fields, Selection())["mean_sea_level_pressure"])
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("write", [decode, partial(export, form=ExportFormat(overwrite=True))])
def test_a_forecast_is_not_written_over_itself(write, kept):
    before = contents(kept.latents)
    with pytest.raises(ValueError, match="is read or written too"):
        write(kept.latents, kept.latents, selection=Selection())
    assert contents(kept.latents) == before


@pytest.mark.slow
@pytest.mark.parametrize("write", [decode, partial(export, form=ExportFormat())])
def test_every_frame_is_decoded_once_whatever_the_cache(write, kept, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    counted: list[int] = []
    decode_frames = LatentCodec.decode
    monkeypatch.setattr(
        LatentCodec,
        "decode",
        lambda self, latent, ocean=None: (counted.append(len(latent)), decode_frames(self, latent))[1],
    )
    monkeypatch.setattr("ladcast.forecasts.open.CACHE_BYTES", 0)
    write(kept.latents, tmp_path / "fields.zarr", selection=Selection(("msl", "t"), (500,)))
    assert sum(counted) == 24


@pytest.mark.slow
def test_times_are_chosen_or_listed(kept):
    (time,) = open_part(kept.latents, Selection())["time"].values
    assert open_part(kept.latents, Selection(times=(str(time)[:13],))).sizes["time"] == 1
    with pytest.raises(ValueError, match=f"from 1812-01-01T00; it has {str(time)[:13]}"):
        open_part(kept.latents, Selection(times=("1812-01-01T00",)))


WRONG = {
    "variable": (Selection(("wind",)), "no variable wind"),
    "level": (Selection(levels=(501,)), "501"),
    "lead": (Selection(leads=(7,)), "7 h"),
    "member": (Selection(members=(3,)), "3"),
}


@pytest.mark.parametrize(("selection", "message"), WRONG.values(), ids=WRONG)
def test_a_part_that_is_not_there_is_named_and_nothing_is_written(selection, message, kept, tmp_path: Path):
    with pytest.raises(ValueError, match=message):
        decode(kept.latents, tmp_path / "part.zarr", selection=selection)
    assert not list(tmp_path.iterdir())


def test_fields_need_no_decoding(kept, tmp_path: Path):
    with pytest.raises(ValueError, match="no latent store"):
        decode(kept.fields, tmp_path / "part.zarr", selection=Selection())


@pytest.mark.slow
def test_a_damaged_store_stops_and_goes_on_when_repaired(kept, tmp_path: Path):
    store = Path(shutil.copytree(kept.latents, tmp_path / "fc.latents.zarr"))
    (store / CHECKSUMS).unlink()  # or the store would be refused before
    chunk = store / "latent/c/0/2/0/0/0/0"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"member 0 of .*, lead 18 h, is damaged"):
        decode(store, tmp_path / "part.zarr", selection=Selection(("msl",)))
    chunk.write_bytes(content)
    decode(store, tmp_path / "part.zarr", selection=Selection(("msl",)))
    assert np.isfinite(xr.open_zarr(tmp_path / "part.zarr")["mean_sea_level_pressure"].values).all()


@pytest.mark.slow
def test_an_existing_output_is_kept_unless_told(kept, tmp_path: Path):
    decode(kept.latents, tmp_path / "part.zarr", selection=Selection(("sst",)))
    with pytest.raises(FileExistsError, match="overwrite"):
        decode(kept.latents, tmp_path / "part.zarr", selection=Selection(("msl",)))
    decode(kept.latents, tmp_path / "part.zarr", selection=Selection(("msl",)), form=ExportFormat(overwrite=True))
    assert "mean_sea_level_pressure" in xr.open_zarr(tmp_path / "part.zarr")


def test_a_failed_write_leaves_no_trace(tmp_path: Path):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(tmp_path / "x.csv", fail)
    assert not list(tmp_path.iterdir())
