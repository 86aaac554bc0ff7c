"""No command writes over what it reads, and each replaces an output only when asked to: judged before all work."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from ladcast.cli import COMMANDS, app, run
from ladcast.run import ExitCode

WRITERS: Mapping[str, tuple[str, ...]] = {
    "forecast": ("--source IN.zarr --output OUT.zarr",),
    "analysis": ("2011-10-11T00 --source IN.zarr --output OUT.zarr",),
    "score": (
        "IN.zarr --truth t.nc --output OUT.nc",
        "fc.zarr --truth IN.nc --output OUT.nc",
        "fc.zarr --truth t.nc --climatology IN.nc --output OUT.nc",
        "fc.zarr --truth t.nc --years IN.zarr --output OUT.nc",
        "fc.zarr --truth t.nc --against ifs=IN*.nc --output OUT.nc",
        "fc.zarr --truth IN.png --output s.nc --scorecard OUT.png",
    ),
    "evaluate": ("IN.nc --start 2000-01-01 --end 2000-01-02 --output OUT.nc",),
    "merge": ("IN/fc/part.nc --output OUT.nc",),
    "season": (
        "IN.nc --truth t.nc --output OUT.nc",
        "fc.zarr --truth IN.nc --output OUT.nc",
        "fc.zarr --best-track IN.nc --output OUT.nc",
        "fc.zarr --truth t.nc --against ifs=IN.nc --output OUT.nc",
    ),
    "track": ("IN.nc --all --output OUT.nc", "e.nc --all --best-track IN.csv --output OUT.nc"),
    "plot": ("fc.zarr --truth IN.png --output OUT.png", "IN.png --output OUT.png"),
    "export": ("IN.zarr OUT.zarr", "IN.nc OUT.nc"),
    "decode": ("IN.zarr OUT.zarr",),
    "products mean": ("IN.zarr OUT.zarr",),
    "products quantiles": ("IN.zarr OUT.zarr",),
    "products probability": ("IN.zarr OUT.zarr --event t2m>0K",),
    "products points": ("IN.csv OUT.csv",),
    "products weekly": ("IN.zarr OUT.zarr",),
    "products quintiles": (
        "IN.zarr OUT.zarr --climatology c.nc",
        "w.zarr OUT.nc --climatology IN.nc",
        "w.zarr OUT.nc --reforecasts IN.nc",
    ),
    "redraw": ("IN.zarr OUT.zarr --members 1",),
    "ask": ("IN.zarr t2m>0K --output OUT.csv",),
}
"""Each input of each command that writes a file or store, and its output."""
OTHERS = {"show", "view", "verify", "plan forecast", "plan train", "weights verify", "weights show"}
"""Commands that write nothing."""
FOLDERS = {"train autoencoder", "train forecaster", "submit train", "weights fetch", "weights import", "weights join"}
"""Commands that write folders of their own, which have their tests."""
CASES = [(name, tokens) for name, several in WRITERS.items() for tokens in several]


def names() -> set[str]:
    return set(COMMANDS)


def test_all_commands_are_judged():
    assert names() == {*WRITERS, *OTHERS, *FOLDERS}


def there(path: Path) -> Path:
    """Makes a file, or something like a Zarr store."""
    if path.suffix == ".zarr":
        path.mkdir(parents=True)
        path = path / "zarr.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


def refused(name: str, tokens: list[str], code: ExitCode, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        run(app, [*name.split(), *tokens])
    assert stopped.value.code == code
    return capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tokens"), CASES, ids=[" ".join(case) for case in CASES])
def test_no_command_writes_over_what_it_reads(
    name: str, tokens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    given = next(word for word in tokens.split() if "IN" in word).rpartition("=")[2]
    path = tmp_path / given.replace("IN", "it").replace("*", "")
    file = there(path)
    words = [word.replace("IN", str(tmp_path / "it")) for word in tokens.split()]
    words = [str(path) if "OUT" in word else word for word in words]
    if name == "merge":  # which reads files of systems in a folder, where scores may lie beside them
        words[0] = str(path.parents[1])
    before = sorted(tmp_path.rglob("*"))
    message = refused(name, [*words, "--overwrite"], ExitCode.INPUT, capsys)
    assert "is read or written too" in message
    assert sorted(tmp_path.rglob("*")) == before
    assert file.read_text() == "{}"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "tokens"), [(name, several[0]) for name, several in WRITERS.items()], ids=WRITERS)
def test_what_is_there_is_replaced_only_when_asked_for(
    name: str, tokens: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    output = next(word for word in tokens.split() if "OUT" in word)
    file = there(tmp_path / output)
    words = tokens.replace("IN", str(tmp_path / "in")).split()
    assert f"{output} exists already. Choose another output, or add --overwrite." in refused(
        name, words, ExitCode.OUTPUT, capsys
    )
    link = tmp_path / f"dangling{Path(output).suffix}"
    link.symlink_to("nowhere")
    words = tokens.replace("IN", str(tmp_path / "in")).replace("OUT", "dangling").split()
    assert "is a link to nowhere" in refused(name, [*words, "--overwrite"], ExitCode.OUTPUT, capsys)
    words = tokens.replace("IN", str(tmp_path / "in")).replace("OUT", f"{'x' * 240}").split()
    assert "Cannot write" in refused(name, words, ExitCode.OUTPUT, capsys)
    assert file.read_text() == "{}"
    assert sorted(tmp_path.iterdir()) == sorted([tmp_path / output, link])


@pytest.mark.parametrize(
    "words",
    [
        "plot fc.zarr --output fc.jpeg",
        "score fc.zarr --truth t.nc --scorecard card.bmp",
        "evaluate n.nc --start 2000-01-01 --end 2000-01-02 --scorecard card",
        "products mean fc.zarr mean.grib",
        "products points fc.zarr points.nc",
    ],
)
def test_a_name_of_another_kind_is_refused_before_all_work(
    words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    name, *tokens = words.split()
    assert "Expected a" in refused(name, tokens, ExitCode.INPUT, capsys)  # not that there is no fc.zarr
    assert not list(tmp_path.iterdir())
