"""GFS, ECMWF open data and the CDS: what they are asked for, and what becomes of what they deliver."""

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from ladcast.data.sources.cds import ClimateDataStore
from ladcast.data.sources.ecmwf import EcmwfOpenData
from ladcast.data.sources.gfs import Gfs, byte_ranges
from ladcast.data.sources.grib import read_headers
from ladcast.data.store import open_store
from ladcast.fields import ERA5_CHANNELS, LEVELS_HPA, PRECIPITATION, SST, ChannelSet
from ladcast.times import parse_time

NOON = np.array([parse_time("2020-01-01T12")])
SURFACE = ("2m_temperature", "mean_sea_level_pressure", SST, PRECIPITATION)
CHANNELS = ChannelSet(("geopotential", "temperature", "specific_humidity"), SURFACE, (500, 850))
GRIB_STATE = ["t", "q", "2t", "skt", "lsm"]


def nearly(amount: float) -> np.ndarray:
    """A field of one amount, but for what tells it from a lost chunk."""
    return amount * (1 + 2e-5 * np.eye(9, 16))


def rain(write_grib, path: Path, hour: int, amount: float, window=(0, 6)) -> Path:
    keys = {"productDefinitionTemplateNumber": 8, "typeOfLevel": "surface", "paramId": 228228, "dataTime": 100 * hour}
    keys |= {"stepType": "accum", "startStep": window[0], "endStep": window[1]}
    return write_grib(path, [(keys, nearly(amount))])


class TestEcmwfOpenData:
    def test_the_requests_of_one_state(self):
        upper, surface, precipitation = EcmwfOpenData().deliveries(NOON, ERA5_CHANNELS)
        assert upper.request["param"] == ["gh", "q", "t", "u", "v", "w"]
        assert upper.request["levelist"] == list(LEVELS_HPA)
        assert {key: upper.request[key] for key in ("date", "time", "step", "type")} == {
            "date": "20200101", "time": 12, "step": 0, "type": "fc"
        }  # fmt: skip
        assert surface.request["param"] == ["10u", "10v", "2t", "msl", "skt", "lsm"]
        assert [precipitation.request[key] for key in ("date", "time", "step", "param")] == ["20200101", 6, 6, ["tp"]]

    def test_the_aifs_has_the_geopotential_itself(self):
        delivery = next(EcmwfOpenData(model="aifs-single").deliveries(NOON, CHANNELS))
        assert delivery.request["param"] == ["z", "t", "q"]

    def test_the_cycle_before_midnight_is_of_the_day_before(self):
        midnight = np.array([parse_time("2020-03-01T00")])
        *_, last = EcmwfOpenData().deliveries(midnight, CHANNELS)
        request = last.request
        assert (request["date"], request["time"], request["step"]) == ("20200229", 18, 6)

    @pytest.mark.slow
    def test_fetched_once_then_opened(self, tmp_path, monkeypatch, write_grib, state_fields):
        asked = []

        class Client:
            def __init__(self, **options):
                assert options["maximum_retries"] < 10

            def retrieve(self, request, target):
                asked.append(request)
                if request["param"] == ["tp"]:
                    rain(write_grib, Path(target), 6, 3.0)
                else:
                    write_grib(Path(target), state_fields(request["param"], (500, 850), dataTime=1200))

        monkeypatch.setitem(sys.modules, "ecmwf.opendata", SimpleNamespace(Client=Client))
        source = EcmwfOpenData(tmp_path / "cache")
        with pytest.raises(FileNotFoundError, match=r"lacks 3 of 3 files from ecmwf-open-data: ifs_pl_20200101T12_0h"):
            source.open(NOON, CHANNELS)
        source.fetch(NOON, CHANNELS)
        source.fetch(NOON, CHANNELS)
        assert len(asked) == 3
        ds = open_store(source.open(NOON, CHANNELS), CHANNELS)
        np.testing.assert_allclose(ds[PRECIPITATION].values, 3e-3, atol=1e-7)
        assert np.isnan(ds[SST].values[0, :, :6]).all()
        assert np.isfinite(ds[SST].values[0, :, 6:]).all()
        assert ds["geopotential"].attrs["derived"] == "9.80665 m s-2 x gh"

    def test_a_failed_download_leaves_nothing_and_says_what_to_do(self, tmp_path, monkeypatch):
        class Client:
            def __init__(self, **options): ...

            def retrieve(self, request, target):
                Path(target).write_bytes(b"GRIB half")
                raise TimeoutError("no answer")

        monkeypatch.setitem(sys.modules, "ecmwf.opendata", SimpleNamespace(Client=Client))
        with pytest.raises(ConnectionError, match=r"TimeoutError: no answer.*Offline, put the file at .*ifs_pl"):
            EcmwfOpenData(tmp_path).fetch(NOON, CHANNELS)
        assert not list(tmp_path.iterdir())


class TestGfs:
    index = "\n".join(
        [
            "1:0:d=2020010112:PRMSL:mean sea level:anl:",
            "2.1:100:d=2020010112:UGRD:500 mb:anl:",
            "2.2:100:d=2020010112:VGRD:500 mb:anl:",
            "3:250:d=2020010112:HGT:1000 mb:anl:",
            "4:300:d=2020010112:HGT:1000 mb:anl:",
        ]
    )

    def test_byte_ranges_of_an_index(self):
        assert byte_ranges(self.index, ("PRMSL:mean sea level",), 400) == ([0], [100])
        assert byte_ranges(self.index, ("VGRD:500 mb", "UGRD:500 mb"), 400) == ([100], [250])
        assert byte_ranges(self.index, ("HGT:1000 mb",), 400) == ([250], [300])
        with pytest.raises(ValueError, match="lacks TMP:500 mb"):
            byte_ranges(self.index, ("TMP:500 mb",), 400)

    def test_the_pieces_of_one_state(self):
        analysis, forecast = Gfs().deliveries(NOON, ERA5_CHANNELS)
        assert analysis.request["path"] == "gfs.20200101/12/atmos/gfs.t12z.pgrb2.0p25.f000"
        assert len(analysis.request["fields"]) == 6 * 13 + 7
        assert forecast.request == {
            "path": "gfs.20200101/06/atmos/gfs.t06z.pgrb2.0p25.f006",
            "fields": ("APCP:surface",),
        }

    @pytest.mark.slow
    def test_fetched_by_parts_from_a_copy_of_the_bucket(self, tmp_path, write_grib, state_fields):
        pytest.importorskip("obstore")
        bucket = tmp_path / "bucket"
        centre = {"dataTime": 1200, "centre": 7}
        names = ["gh", "t", "q", "vo", "2t", "prmsl", "skt", "lsm", "ci"]
        analysis = write_grib(bucket / "gfs.20200101/12/atmos/gfs.t12z.pgrb2.0p25.f000", state_fields(names, **centre))
        write_index(analysis)
        write_index(rain(write_grib, bucket / "gfs.20200101/06/atmos/gfs.t06z.pgrb2.0p25.f006", 6, 2.0))
        source = Gfs(tmp_path / "cache", str(bucket))
        paths = source.fetch(NOON, CHANNELS)
        assert paths[0].stat().st_size < analysis.stat().st_size
        ds = open_store(source.open(NOON, CHANNELS), CHANNELS)
        whole = open_store(analysis, ChannelSet(CHANNELS.upper_air, SURFACE[:3], (500, 850)))
        for name in whole:
            np.testing.assert_array_equal(ds[name].values, whole[name].values)
        np.testing.assert_allclose(ds[PRECIPITATION].values, 2e-3, atol=1e-7)

    def test_a_cycle_that_is_not_there(self, tmp_path):
        pytest.importorskip("obstore")
        (tmp_path / "bucket").mkdir()
        with pytest.raises(
            ConnectionError, match=r"gfs_20200101T12_f000.grib2 from gfs at .*, got .*NotFound.*\. Run it again"
        ):
            Gfs(tmp_path / "cache", str(tmp_path / "bucket")).fetch(NOON, CHANNELS)


def write_index(path: Path) -> None:
    """Writes the index that NOAA puts beside a GRIB file."""
    names = {
        "gh": "HGT",
        "t": "TMP",
        "q": "SPFH",
        "vo": "ABSV",
        "skt": "TMP",
        "lsm": "LAND",
        "ci": "ICEC",
        "tp": "APCP",
    }
    single = {"2t": "TMP:2 m above ground", "prmsl": "PRMSL:mean sea level"}
    rows = []
    for number, message in enumerate(read_headers(path), start=1):
        upper = message.header["typeOfLevel"] == "isobaricInhPa"
        area = f"{message.header['level:float']:g} mb" if upper else "surface"
        field = single.get(message.name) or f"{names[message.name]}:{area}"
        rows.append(f"{number}:{message.offset}:d=2020010112:{field}:anl:")
    path.with_name(f"{path.name}.idx").write_text("\n".join(sorted(rows, key=lambda row: int(row.split(":")[1]))))


class TestClimateDataStore:
    def test_the_requests_of_one_state(self):
        source = ClimateDataStore(data_format="netcdf")
        upper, surface, *hourly = source.deliveries(np.array([parse_time("2020-03-01T00")]), ERA5_CHANNELS)
        assert upper.request["dataset"] == "reanalysis-era5-pressure-levels"
        assert upper.request["pressure_level"] == [str(level) for level in LEVELS_HPA]
        assert upper.request["variable"] == list(ERA5_CHANNELS.upper_air)
        assert upper.request["download_format"] == "unarchived"
        assert PRECIPITATION not in surface.request["variable"]
        assert {"land_sea_mask", "sea_surface_temperature", "geopotential"} <= set(surface.request["variable"])
        hours = [(delivery.request["day"], delivery.request["time"]) for delivery in hourly]
        assert hours == [(["29"], ["19:00", "20:00", "21:00", "22:00", "23:00"]), (["01"], ["00:00"])]

    def test_files_of_one_request_have_a_name_of_their_own(self):
        times = parse_time("2020-01-01") + np.arange(40) * np.timedelta64(6, "h")
        names = [delivery.file for delivery in ClimateDataStore().deliveries(times, ERA5_CHANNELS)]
        assert len(set(names)) == len(names)

    @pytest.mark.slow
    def test_netcdf_is_fetched_once_then_opened(self, tmp_path, monkeypatch, make, grid):
        world = make(grid, 5)
        ecmwf = {"geopotential": "z", "temperature": "t", "specific_humidity": "q", "2m_temperature": "t2m"}
        ecmwf |= {"mean_sea_level_pressure": "msl", SST: "sst", "level": "pressure_level", "time": "valid_time"}
        delivered = world.rename(ecmwf).isel(latitude=slice(None, None, -1), pressure_level=slice(None, None, -1))
        hours = NOON[0] - np.arange(5, -1, -1) * np.timedelta64(1, "h")
        asked = []

        class Client:
            def retrieve(self, dataset, request, target):
                asked.append(dataset)
                if request["variable"] == ["total_precipitation"]:
                    hourly = np.arange(6.0)[:, None, None] * nearly(1e-4)
                    tp = delivered["msl"].isel(valid_time=np.zeros(6, int)).copy(data=hourly)
                    tp.assign_coords(valid_time=hours).to_dataset(name="tp").to_netcdf(target)
                else:
                    upper = dataset.endswith("pressure-levels")
                    names = ["z", "t", "q"] if upper else ["t2m", "msl", "sst"]
                    delivered[names].sel(valid_time=NOON).assign_coords(number=0).to_netcdf(target)

        monkeypatch.setitem(sys.modules, "cdsapi", SimpleNamespace(Client=Client))
        source = ClimateDataStore(tmp_path, "netcdf")
        channels = ChannelSet(CHANNELS.upper_air, SURFACE, (300, 500, 850))
        source.fetch(NOON, channels)
        source.fetch(NOON, channels)
        assert len(asked) == 3
        ds = open_store(source.open(NOON, channels), channels)
        np.testing.assert_array_equal(ds["temperature"].values, world["temperature"].sel(time=NOON).values)
        np.testing.assert_allclose(ds[PRECIPITATION].values, 15e-4, rtol=1e-4)

    def test_grib_is_opened_the_same_way(self, tmp_path, write_grib, state_fields):
        channels = ChannelSet(("geopotential", "temperature"), ("2m_temperature", PRECIPITATION), (500, 850))
        source = ClimateDataStore(tmp_path)
        upper, surface, hourly = source.deliveries(NOON, channels)
        write_grib(tmp_path / upper.file, state_fields(["z", "t"], dataTime=1200))
        write_grib(tmp_path / surface.file, state_fields(["2t", "lsm"], dataTime=1200))
        # ERA5 forecasts precipitation from 06 and 18 UTC: hours 1 to 6 end at 07 ... 12 UTC.
        steps = {"productDefinitionTemplateNumber": 8, "typeOfLevel": "surface", "paramId": 228, "dataTime": 600}
        fields = [(steps | {"stepType": "accum", "startStep": k, "endStep": k + 1}, nearly(1e-3)) for k in range(6)]
        write_grib(tmp_path / hourly.file, fields)
        ds = open_store(source.open(NOON, channels), channels)
        np.testing.assert_allclose(ds[PRECIPITATION].values, 6e-3, rtol=1e-4)
        assert "land_sea_mask" in ds
