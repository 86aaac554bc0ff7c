"""The words of `ladcast-data`."""

import pytest
from cyclopts import CycloptsError

from data_pipelines.cli import app

LISTS = {
    "times": ("simulate e.zarr --at 1994-01-09T00 1994-01-17T00 --members 2 --from-store n.zarr", "options", "at"),
    "numbers": ("climatology s.zarr o.nc --quantiles 0.1 0.9 --hourly", None, "quantiles"),
    "settings": ("download local o.zarr --setting a=1 b=2", "origin", "setting"),
}


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
