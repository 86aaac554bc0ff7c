"""Documents are read strictly: one that is endless, deep, ambiguous or no text is refused at once, with its name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from ladcast.documents import DEEPEST, LARGEST, describing, parse_json, parse_yaml, read_mapping, read_netcdf

BOMB = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 30))


def test_dates_stay_as_they_are_written_and_aliases_stand_for_values():
    text = "day: 2011-10-11\none: &one {rate: 1e-4}\ntwo: *one\nthree: {<<: *one, steps: 2}"
    one = {"rate": "1e-4"}
    assert parse_yaml(text, "text") == {"day": "2011-10-11", "one": one, "two": one, "three": {**one, "steps": 2}}
    assert parse_yaml("", "text") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, f"at most {LARGEST} values"),
        ("a: &a [*a]", f"at most {LARGEST} values"),
        ("- " * 5000 + "x", f"at most {DEEPEST} levels"),
        ("[" * 5000 + "]" * 5000, f"at most {DEEPEST} levels"),
        ("a: {b: 1, c: 2, b: 3}", "the key 'b' is there twice"),
        ("!!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("!!bool maybe", "'maybe'"),
        ("!!int []", ""),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a\x00", "#x0000"),
        ("a: [", "expected the node content"),
    ],
)
def test_what_is_no_document_is_refused_at_once(text: str, message: str):
    with pytest.raises(ValueError, match=rf"^run\.yaml cannot be read as YAML: .*{message}"):
        parse_yaml(text, "run.yaml")


@pytest.mark.parametrize("text", ["{", "[" * 100_000, '{"a": 1,}', ""])
def test_json_is_refused_with_its_name(text: str):
    with pytest.raises(ValueError, match=r"^manifest cannot be read as JSON: "):
        parse_json(text, "manifest")


@pytest.mark.parametrize("name", ["a.json", "a.yaml"])
@pytest.mark.parametrize(
    ("content", "message"), [(b"[1]", "got list"), (b"3", "got int"), (b"\xff\xfe\x00", "is no text")]
)
def test_a_file_holds_a_mapping(tmp_path: Path, name: str, content: bytes, message: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}.*{message}"):
        read_mapping(tmp_path / name)


@pytest.mark.parametrize("content", [{}, {"n": None}, {"n": "x"}, {"n": []}, [], None, 3])
def test_what_a_file_does_not_describe_is_a_refusal_with_its_name(content: object):
    with (
        pytest.raises(ValueError, match=r"^here/a\.json does not describe a number: "),
        describing("a number", Path("here/a.json")),
    ):
        int(content["n"])


@pytest.fixture
def netcdf(tmp_path: Path) -> Path:
    """A file of packed noise, most of which is the values of one chunk."""
    noise = np.random.default_rng(0).random(9000)
    ds = xr.Dataset({"noise": ("x", noise), "other": 3.0})
    ds.to_netcdf(tmp_path / "noise.nc", engine="netcdf4", encoding={"noise": {"zlib": True, "chunksizes": [9000]}})
    return tmp_path / "noise.nc"


def test_a_netcdf_file_is_read_whole(netcdf: Path):
    with xr.open_dataset(netcdf) as ds:
        xr.testing.assert_identical(read_netcdf(netcdf), ds.load())
    with pytest.raises(FileNotFoundError):
        read_netcdf(netcdf.with_name("none.nc"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: b"",
        lambda content: b"CDF?",
        lambda content: content[: len(content) // 2],
        lambda content: content[: len(content) // 2] + bytes(512) + content[len(content) // 2 + 512 :],
    ],
    ids=["empty", "foreign", "cut", "zeros"],
)
def test_a_damaged_netcdf_file_is_refused_with_its_name(netcdf: Path, spoil: Callable[[bytes], bytes]):
    netcdf.write_bytes(spoil(netcdf.read_bytes()))
    with pytest.raises(ValueError, match=rf"^{netcdf} cannot be read as netCDF \("):
        read_netcdf(netcdf)
