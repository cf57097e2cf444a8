"""The page in a real Chromium, driven by Playwright, with WebGL by the processor."""

import os
import shutil
from pathlib import Path

import pytest

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]
NPM = "npm install --no-save --no-package-lock --ignore-scripts onnxruntime-web@1.30.0 axe-core@4.14.1"
SLOW = 60_000  # ms: machines under test are busy
# The page's WebGL by the processor; what the browser draws itself is drawn without a detour over that
GL = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--disable-gpu-compositing"]


@pytest.fixture(scope="package")
def models():
    pytest.importorskip("starlette", reason="starlette is not installed")
    pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    from diffretouch.demo.models import Models

    return Models()


@pytest.fixture(scope="package")
def address(models):
    from diffretouch.demo.server import serving

    with serving(models) as address:
        yield address


@pytest.fixture(scope="package")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium on the PATH")
    arguments = ["--no-sandbox"] if os.name == "posix" and os.geteuid() == 0 else []
    with playwright.sync_playwright() as api:
        browser = api.chromium.launch(executable_path=CHROMIUM, args=arguments + GL)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def npm():
    """The path of a file of a package from npm; the test is skipped where it was not fetched."""

    def find(package, file):
        path = ROOT / "node_modules" / package / file
        if not path.is_file():
            pytest.skip(f"{package} was not fetched: {NPM}")
        return path

    return find


@pytest.fixture
def visitor(browser, request):
    """Opens the page as a new visitor -> the page, with nothing opened in it."""
    contexts = []

    def visit(width=1000, height=700, query="", at=None, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        contexts.append(context)
        at = at or request.getfixturevalue("address")
        local = at.rstrip("/")

        def watch(page):
            page.set_default_timeout(SLOW)
            page.troubles, page.elsewhere = [], []
            page.on("pageerror", lambda error: page.troubles.append(str(error)))
            page.on("console", lambda m: "Content Security" in m.text and page.troubles.append(m.text))
            page.on("request", lambda r: r.url.startswith(("data:", "blob:", local)) or page.elsewhere.append(r.url))

        context.on("page", watch)
        page = context.new_page()
        page.goto(at + query)
        page.wait_for_selector("body[data-ready]")
        return page

    yield visit
    for context in contexts:
        for page in context.pages:
            assert not page.troubles
            assert not page.elsewhere, "the page asks other computers"
        context.close()
