"""The page in a real browser, as a person uses it."""

import asyncio
from pathlib import Path

import pytest

from browser import CHROMIUM, Browser, chromium
from ladcast.commands.show import leading_to
from ladcast.data.analysis import read_analysis
from ladcast.data.store import read_times
from ladcast.forecasting.checkpoints import load_forecaster
from ladcast.forecasting.ensemble import EnsembleOptions
from ladcast.released import find_model
from ladcast.view.frames import Frames, Storms
from ladcast.view.server import Viewer, listen
from ladcast.view.sources import open_sources
from worlds import Kept, keep

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: scripts/install_programs.sh"),
]
MAP = "document.querySelector('#figure-0 canvas')"
METEOGRAM = "document.getElementById('place').dataset.state === 'ready'"


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """A forecast of the embedded model: 2 members, a day."""
    folder, model = tmp_path_factory.mktemp("page"), find_model("nature-t31")
    forecaster = load_forecaster(model.path, "cpu")
    assert model.starts is not None
    analysis = read_analysis(model.starts, read_times(model.starts)[0], forecaster.channels, forecaster.grid)
    options = EnsembleOptions(2, 1, 0, batch_size=2, analysis=True)  # which is not what is shown first
    return keep(forecaster, model.path, analysis, options, folder)


def test_a_forecast_is_looked_at_in_a_browser(kept: Kept, tmp_path: Path) -> None:
    """By keys, clicks and links, and on a phone; what is wrong is said. All in one browser, which is slow to start."""
    sources = open_sources([kept.latents, kept.fields])
    viewer = Viewer(Frames(sources), [Storms(source) for source in sources if source.is_forecast])

    async def look() -> None:
        server, address = listen(viewer)
        try:
            async with chromium(tmp_path / "profile") as browser:
                await steps_and_kinds(browser, address, tmp_path)
                await a_threshold_of_each_field(browser, address)
                await a_point_and_its_link(browser)
                await two_maps_on_a_phone(browser, address)
                assert browser.complaints == []
                await what_is_wrong(browser, address, kept)
        finally:
            server.stop()
            viewer.close()

    asyncio.run(look())


async def steps_and_kinds(browser: Browser, address: str, folder: Path) -> None:
    with leading_to(address) as file:
        await browser.open(file)
        await browser.ready()
    first = await browser.screenshot(folder / "first.png")
    heading = await browser.run("document.querySelector('h1').textContent")
    await browser.press("ArrowRight")
    assert "hours=12" in await browser.run("location.hash")
    assert await browser.run("document.querySelector('h1').textContent") != heading
    assert await browser.screenshot(folder / "second.png") != first
    for key, kind in {"s": "spread", "e": "member", "p": "probability", "a": "anomaly", "m": "mean"}.items():
        await browser.press(key)
        assert await browser.run("document.getElementById('first').value") == f"0/{kind}"


async def a_threshold_of_each_field(browser: Browser, address: str) -> None:
    """Another field, by key or by choice, has a threshold in its own units; so has a link without one."""
    chosen = "Number(document.getElementById('threshold').value)"
    await browser.open(f"{address}#first=0/probability&hours=24")
    await browser.ready()
    assert -50 < await browser.run(chosen) < 50
    await browser.press("v")
    assert 900 < await browser.run(chosen) < 1100  # hPa
    await browser.run("((one) => { one.value = 't2m'; one.dispatchEvent(new Event('change')) })(quantity)")
    await browser.ready()
    assert -50 < await browser.run(chosen) < 50
    await browser.press("m")


async def a_point_and_its_link(browser: Browser) -> None:
    x, y, width, height = await browser.run(
        f"(({{x, y, width, height}}) => [x, y, width, height])({MAP}.getBoundingClientRect())"
    )
    await browser.click(x + width / 2, y + height / 2)
    await browser.until(METEOGRAM)
    assert "0.0°N 0.0°E" in await browser.run("document.querySelector('#place h2').textContent")
    heading = "document.querySelector('#place h2').textContent"
    assert (await browser.run(heading)).startswith("fc.latents at")
    other = "one.value = '1/mean'; one.dispatchEvent(new Event('change'))"
    await browser.run(f"((one) => {{ {other} }})(document.getElementById('first'))")
    await browser.until(
        f"{METEOGRAM} && {heading}.startsWith('fc at')"
    )  # the meteogram is that of the forecast on the map
    await browser.ready()
    link = await browser.run("location.href")
    assert "place=0.00%2C0.00" in link
    await browser.open(link)
    await browser.ready()
    await browser.until(METEOGRAM)
    assert await browser.run("location.href") == link
    assert (await browser.run(heading)).startswith("fc at")


async def two_maps_on_a_phone(browser: Browser, address: str) -> None:
    await browser.open(f"{address}#second=0/difference/2&hours=24&projection=globe&lat=40", 390, 844, phone=True)
    await browser.ready()
    assert await browser.run("document.documentElement.scrollWidth") <= 390
    captions = await browser.run("[...document.querySelectorAll('figcaption')].map((one) => one.textContent)")
    assert "ensemble mean" in captions[0]
    assert "mean minus analysis" in captions[1]
    await browser.open(
        f"{address}#field=nothing&level=x&hours=7&init=never&zoom=-3&first=9/none&storms=all"
    )  # an old link
    await browser.ready()
    there = "({options, selectedIndex}) => !options.length || selectedIndex >= 0"
    assert await browser.run(f"[...document.querySelectorAll('select')].every({there})")
    assert "storms" not in await browser.run("location.hash")


async def what_is_wrong(browser: Browser, address: str, kept: Kept) -> None:
    for chunk in (kept.latents / "latent" / "c" / "0" / "3").rglob("*"):
        if chunk.is_file():
            chunk.unlink()
    await browser.open(f"{address}#field=z&level=300&hours=24")
    await browser.until("document.body.dataset.state === 'error'")
    assert "is missing. The store is incomplete" in await browser.run("document.body.innerText")
    await browser.press("ArrowLeft")  # what is whole is still shown
    await browser.open(address.replace(address.split("/")[3], "x" * 32))
    await browser.until("document.body?.textContent.includes('Use the printed one')")
