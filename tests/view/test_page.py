"""The page in a real browser, as a person uses it: a forecast of the embedded model, of two members and a day."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser, chromium
from ladcast.commands.view import open_sources
from ladcast.data.analysis import read_analysis
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions
from ladcast.released import find_model
from ladcast.view.frames import Frames
from ladcast.view.server import Viewer, listen
from ladcast.view.storms import Storms
from worlds import keep

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: scripts/install_chromium.sh")
Look = Callable[[Browser, str], Awaitable[None]]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Viewer:
    """The viewer as the command opens it: with the model's own analyses and climatology."""
    folder, model = tmp_path_factory.mktemp("page"), find_model("nature-t31")
    forecaster = load_forecaster(model.path, "cpu")
    assert model.starts is not None
    analysis = read_analysis(model.starts, read_times(model.starts)[0], forecaster.channels, forecaster.grid)
    options = EnsembleOptions(2, 1, 0, batch_size=2)
    kept = keep(forecaster.with_settings(steps=2), model.path, analysis, options, folder)
    sources = open_sources([kept.latents, kept.fields], None, None)
    return Viewer(Frames(sources), [Storms(source) for source in sources if source.is_forecast])


def browse(viewer: Viewer, folder: Path, look: Look) -> list[str]:
    """Lets `look` use the page, and returns what the browser complained about."""

    async def run() -> list[str]:
        server, address = listen(viewer)
        try:
            async with chromium(folder / "profile") as browser:
                await look(browser, address)
                return browser.complaints
        finally:
            server.stop()

    return asyncio.run(run())


def test_a_forecast_is_looked_at_by_keys_clicks_and_links(viewer: Viewer, tmp_path: Path) -> None:
    async def look(browser: Browser, address: str) -> None:
        await browser.open(address)
        await browser.ready()
        assert await browser.run("document.querySelector('h1').textContent") == await valid(browser, 6)
        first = await browser.screenshot(tmp_path / "first.png")
        await browser.press("ArrowRight")
        assert "hours=12" in await browser.run("location.hash")
        assert await browser.screenshot(tmp_path / "second.png") != first
        for key, kind in {"s": "spread", "e": "member", "p": "probability", "a": "anomaly", "m": "mean"}.items():
            await browser.press(key)
            assert await browser.run("document.getElementById('first').value") == f"0/{kind}"
        await browser.run("document.querySelector('#figure-0 canvas').scrollIntoView()")
        box = await browser.run(
            "(({x, y, width, height}) => [x, y, width, height])(" + MAP + ".getBoundingClientRect())"
        )
        await browser.click(box[0] + box[2] / 2, box[1] + box[3] / 2)
        await browser.until("document.getElementById('place').dataset.state === 'ready'")
        assert "place=0.00%2C0.00" in await browser.run("location.hash")
        assert "0.0°N 0.0°E" in await browser.run("document.querySelector('#place h2').textContent")
        link = await browser.run("location.href")
        await browser.open(link)
        await browser.ready()
        await browser.until("document.getElementById('place').dataset.state === 'ready'")
        assert await browser.run("location.href") == link

    assert browse(viewer, tmp_path, look) == []


MAP = "document.querySelector('#figure-0 canvas')"


async def valid(browser: Browser, hours: int) -> str:
    """Returns the heading of this lead time, by the browser's own calendar."""
    return str(
        await browser.run(
            "(async () => { const about = await (await fetch('description')).json();"
            f" const time = new Date(Date.parse(about.sources[0].times[0] + 'Z') + {hours} * 3600e3);"
            " const text = (form) => time.toLocaleString('en-GB', {...form, timeZone: 'UTC'});"
            " return `Valid ${text({weekday: 'short', day: 'numeric', month: 'short', year: 'numeric'})}"
            " ${text({hour: '2-digit'})} UTC`; })()"
        )
    )


def test_two_maps_on_a_phone_and_what_is_wrong(viewer: Viewer, tmp_path: Path) -> None:
    async def look(browser: Browser, address: str) -> None:
        await browser.open(f"{address}#second=0/difference/2&hours=24&projection=globe&lat=40", 390, 844, phone=True)
        await browser.ready()
        assert await browser.run("document.documentElement.scrollWidth") <= 390
        captions = await browser.run("[...document.querySelectorAll('figcaption')].map((one) => one.textContent)")
        assert "ensemble mean" in captions[0]
        assert "mean minus analysis" in captions[1]
        await browser.open(f"{address}#field=nothing&level=x&hours=7&init=never&zoom=-3&first=9/none")  # an old link
        await browser.ready()
        assert await browser.run("document.getElementById('quantity').value") == "t2m"
        await browser.open(f"{address.replace(viewer.token, 'x' * 32)}")
        assert "Use the printed one" in await browser.run("document.body.textContent")

    complaints = browse(viewer, tmp_path, look)
    assert len(complaints) == 1, complaints
    assert "403" in complaints[0]
