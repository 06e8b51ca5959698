"""The page in a real browser: Debian's Chromium, without a window."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flywheel.labelling.queue import form_opinions
from flywheel.labelling.server import LabelServer
from flywheel.labelling.session import Session
from tests.labelling.judges import make_detector
from tests.lamp import make_store

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    not (CHROMIUM and DRIVER), reason="no Chromium here (Debian: apt-get install chromium chromium-driver)"
)
_SECONDS = 60
_ARGUMENTS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
)


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in (*_ARGUMENTS, f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1000,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LabelServer]:
    store, detector = make_store(tmp_path / "data", ("red",), range(4)), make_detector()
    opinions = form_opinions(store, detector, store.rows())
    with LabelServer(Session(store, store.rows(), "anna", detector=detector, opinions=opinions)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class Page:
    """What a person sees and does, with the keyboard alone."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)

    def press(self, key: str) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.browser).send_keys(key).perform()

    def text(self, name: str) -> str:
        return str(self.browser.execute_script("return document.getElementById(arguments[0]).textContent", name))

    def shows(self, name: str, text: str) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, _SECONDS).until(lambda _: text in self.text(name), f"{text!r} is not in {self.text(name)!r}")

    def pictures_are_drawn(self) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        script = "return [...document.images].every(image => image.complete && image.naturalWidth === 20)"
        WebDriverWait(self.browser, _SECONDS).until(lambda _: self.browser.execute_script(script), "a picture is missing")


def test_episodes_are_labelled_with_the_keyboard(browser: Any, server: LabelServer) -> None:
    from selenium.webdriver.common.keys import Keys

    store, page = server.session.store, Page(browser, server.url)
    page.shows("progress", "0 of 4 episodes of lamp")
    page.shows("instruction", "red")
    page.shows("moment", "step 12 of 12, the last")
    page.pictures_are_drawn()
    first = server.session.state()["episode"]["id"]
    page.shows("about", first)

    for key, moment in ((Keys.ARROW_LEFT, "step 11"), (Keys.ARROW_UP, "step 1 "), (Keys.HOME, "step 0"), (Keys.END, "step 12")):
        page.press(key)
        page.shows("moment", moment)
    page.pictures_are_drawn()

    page.press("y")
    page.shows("said", "Stored: success.")
    page.shows("progress", "1 of 4")
    assert [(label.value, label.by) for label in store.history(first)] == [(True, "anna")]
    page.press("n")
    page.shows("progress", "2 of 4")
    page.press("u")
    page.shows("said", "Taken back.")
    page.press("u")
    page.shows("progress", "0 of 4")
    page.shows("about", first)
    assert [label.undo for label in store.history(first)] == [False, True]
    page.press(" ")
    page.shows("said", "Skipped.")
    for number in (2, 3, 4):
        page.press("n")
        page.shows("progress", f"{number} of 4")
    page.shows("summary", "3 labelled, 1 skipped.")
    assert sum(row.success_detector == "anna" and not row.success for row in store.rows()) == 3
    assert not [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]


def test_buttons_work_and_the_narrow_page_fits(browser: Any, server: LabelServer) -> None:
    browser.set_window_size(500, 900)
    page = Page(browser, server.url)
    page.shows("progress", "0 of 4")
    assert browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
    browser.find_element("css selector", "[data-answer=no]").click()
    page.shows("said", "Stored: failure.")


def test_a_server_that_has_gone_is_told(browser: Any, server: LabelServer) -> None:
    page = Page(browser, server.url)
    page.shows("progress", "0 of 4")
    server.shutdown()
    server.server_close()
    page.press("y")
    page.shows("said", "No answer from flywheel label")
