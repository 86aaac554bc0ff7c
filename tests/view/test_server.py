"""The server answers who knows its secret, under a name of this machine, and says what is wrong."""

import asyncio
import json
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from tornado.httpclient import AsyncHTTPClient, HTTPResponse

from ladcast.cli import app, run
from ladcast.commands.show import leading_to
from ladcast.cyclones import make_table, write_tracks
from ladcast.cyclones.detection import CoarseGridError
from ladcast.cyclones.tracker import describe_tracked
from ladcast.forecasts.open import open_forecast
from ladcast.run import TerminatedError, answer_signals, termination_as_error
from ladcast.view.frames import Frames, Storms
from ladcast.view.server import STATIC, Viewer, listen, serve
from ladcast.view.sources import Source, open_lazily, open_sources
from worlds import Kept

T850 = "field?quantity=t&level=850&valid=2001-03-01T12"
START = "2001-02-28T12"


@pytest.fixture(scope="module")
def viewer(kept_once: Kept, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    """A forecast in which two members of four have storms: one goes west along 20 N, the other has two lows."""
    source = Source("tiny", open_lazily(kept_once.latents))
    start, six = np.datetime64(START), np.timedelta64(6, "h")
    names = ("storm", "number", "step", "latitude", "longitude")
    rows = [("low-0000", 0, 0, 20.0, 150.0), ("low-0000", 0, 1, 20.0, 147.0), ("low-0000", 1, 0, 20.0, 150.0)]
    rows += [("low-0001", 1, 1, -40.0, 10.0)]
    columns = {name: np.array(column) for name, column in zip(names, zip(*rows, strict=True), strict=True)}
    columns |= {"time": start + columns["step"] * six, "start": np.repeat(start, 4), "msl": np.full(4, 99000.0)}
    table = make_table(columns, members=4, **describe_tracked(source.dataset))
    file = write_tracks(table, tmp_path_factory.mktemp("tracks") / "tiny.tracks.nc")
    viewer = Viewer(Frames([source]), [Storms(source, file), Storms(source)])
    yield viewer
    viewer.close()


Get = Callable[..., HTTPResponse]


@pytest.fixture
def get(viewer: Viewer) -> Get:
    """Asks a real server on a free port of this machine, as a browser does."""

    def ask(path: str, *, token: str | None = None, host: str | None = None, method: str = "GET") -> HTTPResponse:
        async def once() -> HTTPResponse:
            server, address = listen(viewer)
            root = address if token is None else address.replace(viewer.token, token)
            headers = {} if host is None else {"Host": host}
            try:
                body = "" if method == "POST" else None
                client = AsyncHTTPClient()
                return await client.fetch(root + path, raise_error=False, headers=headers, method=method, body=body)
            finally:
                server.stop()

        return asyncio.run(once())

    return ask


def said(answer: HTTPResponse) -> str:
    return str(json.loads(answer.body)["error"])


def test_a_map_is_float32_rows_from_the_south(get: Get, kept_once: Kept) -> None:
    answer = get(T850)
    values = np.frombuffer(answer.body, "<f4").reshape(8, 16)
    forecast = open_forecast(kept_once.fields)["temperature"].isel(time=0, prediction_timedelta=3).sel(level=850)
    np.testing.assert_allclose(values, forecast.mean("number") - 273.15, atol=1e-3)
    assert json.loads(answer.headers["X-About"])["lead_hours"] == 24


@pytest.mark.parametrize("name", STATIC)
def test_the_page_is_whole_and_may_load_nothing_else(name: str, get: Get) -> None:
    answer = get(name)
    assert answer.code == 200
    assert len(answer.body) > 500
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert "unsafe" not in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert b"http" not in answer.body.replace(b"http-equiv", b"")  # nothing comes from a network


@pytest.mark.parametrize("path", ["", "app.js", "description", T850, "series", "tracks", "nothing"])
@pytest.mark.parametrize("token", ["", "x", "A" * 32])
def test_who_lacks_the_secret_is_refused(path: str, token: str, get: Get) -> None:
    answer = get(path, token=token)
    assert answer.code in (403, 404)
    assert "address" in said(answer)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "localhost.evil:1"])
def test_other_names_of_this_machine_are_refused(host: str, get: Get) -> None:
    assert get("description", host=host).code == 403


@pytest.mark.parametrize("host", ["localhost:9999", "127.0.0.1", "[::1]:80"])
def test_the_end_of_a_tunnel_is_this_machine(host: str, get: Get) -> None:
    assert get("description", host=host).code == 200


@pytest.mark.parametrize(
    "path", ["../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "..%2fserver.py", "server.py", "page/page.html"]
)
def test_no_address_names_a_file(path: str, get: Get) -> None:
    answer = get(path)
    assert answer.code in (403, 404, 405)
    assert b"root:" not in answer.body
    assert b"import" not in answer.body


def test_nothing_can_be_written(get: Get) -> None:
    assert get("description", method="POST").code in (403, 405)


def test_the_secret_is_long_and_new_each_time(viewer: Viewer) -> None:
    assert len(viewer.token) >= 32
    assert viewer.token != Viewer(viewer.frames, []).token


WRONG = {
    "field?quantity=t&level=850&valid=2031-03-01T12": "no frame that is valid",
    "field?quantity=t&level=high&valid=2001-03-01T12": "high",
    "field": "Expected a quantity",
    "series?init=2001-02-28T12&latitude=100&longitude=0": "Latitude",
    "series?init=2001-02-28T12": "Latitude",
    "tracks?source=3&init=2001-02-28T12": "There are 2 forecasts",
    "tracks?source=1&init=2001-02-28T12": "too small for rows 22.5 deg apart",
}


@pytest.mark.parametrize(("path", "message"), WRONG.items())
def test_what_is_wrong_is_said(path: str, message: str, get: Get) -> None:
    answer = get(path)
    assert answer.code == 422
    assert message in said(answer)


def test_a_series_comes_line_by_line(get: Get) -> None:
    begin, *lines = map(json.loads, get(f"series?init={START}&latitude=10&longitude=20").body.splitlines())
    assert begin["count"] == len(lines) == 8
    assert len(lines[0]["values"]["msl"]) == 3


def test_tracks_and_strikes_agree(get: Get) -> None:
    tracks = json.loads(get(f"tracks?init={START}").body)
    assert tracks["members"] == 4
    assert [(one["storm"], one["member"]) for one in tracks["tracks"]] == [
        ("low-0000", 0),
        ("low-0000", 1),
        ("low-0001", 1),
    ]
    assert tracks["tracks"][0] == {
        "storm": "low-0000",
        "member": 0,
        "hours": [0, 6],
        "latitude": [20, 20],
        "longitude": [150, 147],
        "msl": [990, 990],
    }
    strikes = get(f"strikes?init={START}")
    grid = json.loads(strikes.headers["X-About"])
    values = np.frombuffer(strikes.body, "<f4").reshape(len(grid["latitude"]), len(grid["longitude"]))
    place = {point: values[round(point[0] + 90), point[1]] for point in [(20, 150), (20, 147), (-40, 10), (0, 80)]}
    assert place == {(20, 150): 50, (20, 147): 25, (-40, 10): 25, (0, 80): 0}  # two lows of a member are not joined


def test_tracks_of_anything_else_are_found_anew(viewer: Viewer, kept_once: Kept, tmp_path: Path) -> None:
    """Which shows in that this grid is too coarse for it."""
    source, init = viewer.storms[0].source, np.datetime64(START, "ns")
    table, forecast = viewer.storms[0].of(init), source.dataset
    assert table.attrs["starts"] == "2001-02-28T12:00"
    assert describe_tracked(open_forecast(kept_once.fields)) == describe_tracked(
        forecast
    )  # the same, opened by `track`
    others = {
        "of one storm": describe_tracked(forecast, "2018271N06154"),
        "of another start": describe_tracked(forecast.assign_coords(time=forecast["time"] + np.timedelta64(6, "h"))),
        "of another seed": describe_tracked(forecast.assign_attrs(history="another seed")),
        "of a day": describe_tracked(forecast.isel(prediction_timedelta=slice(4))),
        "written before": dict.fromkeys(describe_tracked(forecast), ""),
    }
    for name, attributes in others.items():
        file = write_tracks(table.assign_attrs(attributes), tmp_path / f"{name}.nc")
        with pytest.raises(CoarseGridError):
            Storms(source, file).of(init)


def test_the_secret_is_in_a_file_of_its_owner_while_the_viewer_runs() -> None:
    with leading_to("http://127.0.0.1:1/SECRET/") as address:
        assert "SECRET" not in address
        file = Path(address.removeprefix("file://"))
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "url=http://127.0.0.1:1/SECRET/" in file.read_text()
    assert not file.exists()


BAD = {
    "missing": (["gone.zarr"], "No forecast at gone.zarr"),
    "none": ([], "Expected a forecast store"),
    "port": (["gone.zarr", "--port", "70000"], "between 0 and 65535"),
    "no forecast": (["folder"], "folder is no forecast"),
    "unfinished": (["begun.zarr"], "It is unfinished"),
    "pattern": (["x*.zarr"], "Nothing matches"),
}


@pytest.mark.parametrize(("words", "message"), BAD.values(), ids=BAD)
def test_the_command_refuses_what_is_no_forecast(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "begun.zarr.partial").mkdir()
    with pytest.raises(SystemExit) as ended:
        run(app, ["view", *words])
    assert ended.value.code == 3
    assert message in capsys.readouterr().err


def test_a_taken_port_is_said(viewer: Viewer) -> None:
    async def twice() -> None:
        server, address = listen(viewer)
        try:
            listen(viewer, int(address.split(":")[2].split("/")[0]))
        finally:
            server.stop()

    with pytest.raises(OSError, match="Leave --port out"):
        asyncio.run(twice())


def test_analyses_stand_behind_the_forecasts(kept_once: Kept, tmp_path: Path) -> None:
    forecast = open_forecast(kept_once.fields)
    one = forecast.isel(time=0, number=0, drop=True).drop_vars("valid_time", errors="ignore")
    valid = forecast["time"].values[0] + one["prediction_timedelta"].values
    truth = one.assign_coords(prediction_timedelta=valid).rename(prediction_timedelta="time")
    truth.to_netcdf(tmp_path / "truth.nc")
    sources = open_sources([kept_once.latents, kept_once.fields], str(tmp_path / "truth.nc"))
    assert [source.name for source in sources] == ["fc.latents", "fc", "analysis"]
    assert [source.is_forecast for source in sources] == [True, True, False]


def test_ctrl_c_is_the_way_to_stop_it_and_sigterm_an_end_from_outside():
    """A scheduler reads the exit code: 0 for the first, 143 for the second."""

    def interrupt(address: str) -> None:
        signal.raise_signal(signal.SIGINT)

    def terminate(address: str) -> None:
        signal.raise_signal(signal.SIGTERM)

    # Whatever started the tests, or ran before in this process: a job in the background ignores Ctrl-C.
    with answer_signals([signal.SIGINT], signal.default_int_handler):
        serve(Viewer(Frames([]), []), 0, interrupt)
    with pytest.raises(TerminatedError), termination_as_error():
        serve(Viewer(Frames([]), []), 0, terminate)
