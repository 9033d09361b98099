"""OHIF as a radiologist meets it: an archive, the viewer's site beside it, and a browser whose picture is looked at."""

import http.client
import json
import logging
import mimetypes
import os
import re
import urllib.request
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic
from typing import Any, Final, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Error, Locator, Page, TimeoutError, sync_playwright  # noqa: A004 - playwright's name
from pydicom.dataset import Dataset

from node.results.encode import to_bytes
from tests.pacs import a_free_port
from tests.peers import missing, require_path, require_program, running

ROOT: Final = Path(__file__).resolve().parents[1]
PEERS: Final = ROOT / ".peers"
"""Where `make peers` puts the builds of OHIF."""

ARTEFACTS: Final = Path(os.environ.get("MAMMONODE_ARTEFACTS", ROOT / ".artefacts")) / "ohif"
"""Where the pictures stay."""

DICOMWEB_PLUGIN: Final = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")

WINDOW: Final = 1400, 900
PATIENCE: Final = 60.0
"""Seconds that OHIF may take for one step."""

CHROMIUM: Final = (
    "--no-sandbox",
    # WebGL without a display adapter.
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)

CONFIGURATION: Final = {
    "routerBasename": "/",
    "extensions": [],
    "modes": [],
    "showStudyList": True,
    "maxNumberOfWebWorkers": 2,
    "showWarningMessageForCrossOrigin": False,
    "showCPUFallbackMessage": False,
    "investigationalUseDialog": {"option": "never"},
    "defaultDataSourceName": "archive",
    "dataSources": [
        {
            "namespace": "@ohif/extension-default.dataSourcesModule.dicomweb",
            "sourceName": "archive",
            "configuration": {
                "friendlyName": "archive",
                "name": "archive",
                "wadoUriRoot": "/wado",
                "qidoRoot": "/dicom-web",
                "wadoRoot": "/dicom-web",
                "qidoSupportsIncludeField": False,
                "imageRendering": "wadors",
                "thumbnailRendering": "wadors",
                "enableStudyLazyLoad": True,
                "supportsFuzzyMatching": False,
                "supportsWildcard": True,
                "bulkDataURI": {"enabled": True},
                "omitQuotationForMultipartRequest": True,
            },
        }
    ],
}
"""OHIF's app-config.js; everything that concerns how images hang is OHIF's own default."""

NOT_CAUGHT: Final = """
window.notCaught = [];
addEventListener("error", event => notCaught.push(String(event.error?.stack ?? event.message)));
addEventListener("unhandledrejection", event => notCaught.push(String(event.reason?.stack ?? event.reason)));
"""
"""Keeps what OHIF's scripts do not catch: its own page for errors does not say it."""

SHOWN: Final = (
    "3.12-seg-r-cc",
    "3.13-seg-l-mlo",
    "3.13-sr-comprehensive-3d-l-cc",
    "3.12-sc-0",
    "3.13-revised-sr",
    "3.12-all-seg",
    "node-3.13-seg-r-cc",
)
"""Pictures that docs/viewers.md shows."""

mimetypes.add_type("application/wasm", ".wasm")
mimetypes.add_type("text/javascript", ".js")
mimetypes.add_type("text/javascript", ".mjs")

_log = logging.getLogger(__name__)


def require_ohif(release: str) -> Path:
    """Return the folder of the site of this minor release, as `require_program` does for programs."""
    found = sorted(
        PEERS.glob(f"ohif-{release}.*/dist"), key=lambda each: [int(n) for n in re.findall(r"\d+", each.parent.name)]
    )
    return found[-1] if found else missing(f"OHIF {release}")


# --- the archive ---


@dataclass(frozen=True)
class Archive:
    """A running Orthanc with DICOMweb."""

    port: int

    def store(self, datasets: Iterable[Dataset]) -> None:
        """Store instances, in this order."""
        for dataset in datasets:
            request = urllib.request.Request(
                f"http://127.0.0.1:{self.port}/instances", to_bytes(dataset), method="POST"
            )
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - a fixed scheme
                assert json.load(answer)["Status"] == "Success"

    def listens(self) -> bool:
        """Tell whether it answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/system", timeout=5):
                return True
        except OSError:
            return False


@contextmanager
def archive(folder: Path) -> Iterator[Archive]:
    """Run Orthanc with DICOMweb on a free port while the context lasts."""
    program = require_program("Orthanc", folder=Path("/usr/sbin"))
    require_path(DICOMWEB_PLUGIN)
    opened = Archive(a_free_port())
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "Name": "OHIF",
                "StorageDirectory": str(folder / "orthanc"),
                "IndexDirectory": str(folder / "orthanc"),
                "Plugins": [str(DICOMWEB_PLUGIN)],
                "HttpPort": opened.port,
                "DicomPort": a_free_port(),
                "RemoteAccessAllowed": False,
                "AuthenticationEnabled": False,
                "DicomWeb": {
                    "Enable": True,
                    "Root": "/dicom-web/",
                    "StudiesMetadata": "Full",
                    "SeriesMetadata": "Full",
                },
            }
        )
    )
    with running(program, configuration, log=folder / "orthanc.log", ready=opened.listens):
        yield opened


# --- the viewer's site ---


class SiteHandler(BaseHTTPRequestHandler):
    """Serves OHIF's files, and passes DICOMweb on to the archive: one origin for both."""

    protocol_version = "HTTP/1.1"

    def __init__(self, files: Path, archive_port: int, *request: Any) -> None:
        self.files, self.archive_port = files, archive_port
        super().__init__(*request)

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def do_GET(self) -> None:
        """Answer a GET."""
        path = self.path.split("?")[0]
        if path.startswith(("/dicom-web", "/wado")):
            self.pass_on()
        elif path == "/app-config.js":
            self.answer(200, "text/javascript", f"window.config = {json.dumps(CONFIGURATION)};".encode())
        else:
            file = (self.files / path.lstrip("/")).resolve()
            if not file.is_relative_to(self.files) or not file.is_file():
                file = self.files / "index.html"  # the paths of the viewer's own pages
            self.answer(200, mimetypes.guess_type(file.name)[0] or "application/octet-stream", file.read_bytes())

    do_POST = do_GET  # noqa: N815 - the base class's name

    def answer(self, status: int, content_type: str, body: bytes) -> None:
        """Send an answer."""
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        # Both are needed for SharedArrayBuffer, which OHIF's volumes live in.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def pass_on(self) -> None:
        """Ask the archive, and send what it answers."""
        length = int(self.headers.get("Content-Length") or 0)
        hop = ("connection", "accept-encoding", "content-length")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in hop}
        connection = http.client.HTTPConnection("127.0.0.1", self.archive_port, timeout=PATIENCE)
        try:
            connection.request(self.command, self.path, self.rfile.read(length) if length else None, headers)
            answer = connection.getresponse()
            body = answer.read()
            self.answer(answer.status, answer.getheader("Content-Type") or "application/octet-stream", body)
        finally:
            connection.close()


class SiteServer(ThreadingHTTPServer):
    """Takes it calmly when the browser goes away."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Note what went wrong with a request."""
        _log.debug("a request was not answered", exc_info=True)


class Holds(Protocol):
    """What a viewer can be opened beside."""

    @property
    def port(self) -> int:
        """Where its DICOMweb service is."""

    def store(self, datasets: Iterable[Dataset]) -> None:
        """Store instances."""


@contextmanager
def site(files: Path, opened: Holds) -> Iterator[str]:
    """Serve OHIF's files and the archive's DICOMweb on a free port; yields the address."""
    with SiteServer(("127.0.0.1", 0), partial(SiteHandler, files, opened.port)) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


# --- what is seen ---


@dataclass(frozen=True, eq=False)
class Screen:
    """The viewport as it is seen.

    Attributes
    ----------
    pixels
        Shape (height, width, 3), RGB, uint8.
    furniture
        Shape (height, width), bool: pixels that do not count, because OHIF's own tools were there before.
    """

    pixels: NDArray[np.uint8]
    furniture: NDArray[np.bool_] | None = None

    @property
    def coloured(self) -> NDArray[np.bool_]:
        """Which pixels are no grey: shape (height, width). OHIF's frame round the active viewport is left out."""
        coloured = np.zeros(self.pixels.shape[:2], np.bool_)
        coloured[4:-4, 4:-4] = np.ptp(self.pixels[4:-4, 4:-4].astype(np.int16), axis=2) > 30
        return coloured if self.furniture is None else coloured & ~self.furniture

    def since(self, before: "Screen") -> "Screen":
        """Return the same without what was coloured before."""
        return replace(self, furniture=before.coloured)

    def place(self, image: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return an image as OHIF fits it into the viewport, and which pixels of the viewport it covers.

        Parameters
        ----------
        image
            Shape (rows, columns) or (rows, columns, 3), square pixels.

        Returns
        -------
        tuple
            Shape (height, width, ...) with 0 beside the image, and (height, width).
        """
        (rows, columns), (height, width) = image.shape[:2], self.pixels.shape[:2]
        scale, left, top = self.fit(rows, columns)
        y = np.floor((np.arange(height) + 0.5 - top) / scale).astype(int)
        x = np.floor((np.arange(width) + 0.5 - left) / scale).astype(int)
        covered = ((y >= 0) & (y < rows))[:, None] & ((x >= 0) & (x < columns))[None, :]
        placed = image[np.ix_(y.clip(0, rows - 1), x.clip(0, columns - 1))].copy()
        placed[~covered] = 0
        return placed, covered

    def fit(self, rows: int, columns: int) -> tuple[float, float, float]:
        """Return scale, left and top of an image that fills the viewport, in pixels of the viewport."""
        height, width = self.pixels.shape[:2]
        scale = min(width / columns, height / rows)
        return scale, (width - scale * columns) / 2, (height - scale * rows) / 2

    def likeness(self, image: NDArray[Any]) -> float:
        """Return how well the viewport shows an image: the correlation of their greys, 1 when it is that image."""
        placed, covered = self.place(image)
        grey = covered & ~self.coloured
        shown, expected = self.pixels[grey].mean(axis=-1), placed[grey].reshape(int(grey.sum()), -1).mean(axis=-1)
        if shown.size == 0 or np.ptp(shown) == 0:
            return 0.0
        return float(np.corrcoef(shown, expected)[0, 1])

    def overlap(self, mask: NDArray[np.bool_]) -> float:
        """Return how well what is coloured within the image covers a mask of the image: intersection over union."""
        expected, covered = self.place(mask)
        coloured = self.coloured & covered
        union = np.count_nonzero(coloured | expected)
        return np.count_nonzero(coloured & expected) / union if union else 0.0

    def distance(self, mask: NDArray[np.bool_]) -> float:
        """Return how far the middle of what is coloured lies from the middle of a mask, in pixels of the viewport."""
        expected, covered = self.place(mask)
        middles = [np.argwhere(each).mean(axis=0) for each in (self.coloured & covered, expected) if each.any()]
        return float(np.hypot(*(middles[0] - middles[1]))) if len(middles) == 2 else float("inf")

    def colour(self, mask: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Return the colour laid over the pixels of a mask: RGB less its grey, of length 1."""
        expected, _ = self.place(mask)
        tint = self.pixels[expected].astype(float).mean(axis=0)
        tint -= tint.min()
        return np.asarray(tint / max(float(np.linalg.norm(tint)), 1e-6), np.float64)

    def drawn(self, contour: NDArray[np.float64], rows: int, columns: int, *, within: float = 4) -> float:
        """Return how much of an outline is drawn: the share of its points with a coloured pixel near.

        Parameters
        ----------
        contour
            Shape (n, 2), x and y in the image, 0 at the corner of its first pixel.
        within
            Distance in pixels of the viewport; the gaps of OHIF's dashed lines are 4 wide.
        """
        scale, left, top = self.fit(rows, columns)
        points = contour * scale + (left, top)
        line = np.zeros(self.pixels.shape[:2], np.uint8)
        cv2.polylines(line, [np.floor(points).astype(np.int32)], isClosed=True, color=1)
        far = cv2.distanceTransform((~self.coloured).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return float((far[line > 0] <= within).mean())


class Viewer:
    """A page with OHIF.

    Attributes
    ----------
    release
        Which OHIF it is.
    """

    def __init__(self, page: Page, address: str, release: str) -> None:
        self.page, self.address, self.release = page, address, release
        self._study = address, 0
        page.set_default_timeout(1000 * PATIENCE)
        # The guided tour swallows clicks until it is skipped.
        page.add_init_script("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")
        page.add_init_script(NOT_CAUGHT)

    def open(self, study_uid: str, series: int, query: str = "") -> None:
        """Open a study and wait until all its series are listed and the first image is there.

        Parameters
        ----------
        series
            Number of series that the study has.
        query
            What else the address says, for example `&hangingprotocolId=...`.
        """
        self._study = f"{self.address}/viewer?StudyInstanceUIDs={study_uid}{query}", series
        self.reload()

    def reload(self) -> None:
        """Open the study afresh; once more if OHIF does not come up."""
        try:
            self._load(*self._study)
        except Error:
            _log.warning("OHIF %s did not open the study, once more", self.release, exc_info=True)
            self._load(*self._study)

    def _load(self, address: str, series: int) -> None:
        self.page.goto(address, wait_until="domcontentloaded")
        self.page.wait_for_function(
            "n => document.querySelectorAll('[data-cy=series-description-label]').length >= n", arg=series
        )
        self.page.wait_for_function(
            "() => window.cornerstone.getRenderingEngines().some("
            "engine => engine.getViewports().some(viewport => viewport.viewportStatus === 'rendered'))"
        )

    def series(self) -> list[str]:
        """Return the descriptions of the series from top to bottom."""
        return self.page.locator("[data-cy=series-description-label]").all_inner_texts()

    def show(self, description: str) -> None:
        """Open the first series whose description begins so: a double click on it."""
        self._thumbnail(description).dblclick()

    def _thumbnail(self, description: str) -> Locator:
        label = self.page.locator(
            "[data-cy=series-description-label]", has_text=re.compile(f"^{re.escape(description)}")
        )
        return self.page.locator("[data-cy^=study-browser-thumbnail]", has=label).first

    def say(self, answer: str, question: str, seconds: float = PATIENCE) -> bool:
        """Wait for a question over the viewport and answer it; tells whether it was asked in time."""
        asked = self.page.get_by_text(question).first
        try:
            asked.wait_for(timeout=1000 * seconds)
        except TimeoutError:
            return False
        self.page.get_by_role("button", name=answer, exact=True).first.click()
        asked.wait_for(state="hidden")
        return True

    def labels(self) -> list[list[str]]:
        """Return the lines of each label in the viewport."""
        found: list[list[str]] = self.page.evaluate(
            "() => [...document.querySelectorAll('[data-cy=viewport-pane] svg text')]"
            ".map(text => [...text.querySelectorAll('tspan')].map(line => line.textContent))"
        )
        return found

    def complaint(self) -> str:
        """Return what OHIF's scripts did not catch while it says that something went wrong; else nothing.

        OHIF says so of whatever is not caught anywhere in its page, a request that was given up included, and the
        words stay until the study is opened afresh.
        """
        if not self.page.get_by_text("Something went wrong").count():
            return ""
        return "; ".join(self.page.evaluate("notCaught")) or "something went wrong"

    def complaint_over(self, series: str) -> str:
        """Show a series and return OHIF's complaint, if it has one twice: the second time on the study opened afresh.

        An object that OHIF cannot show makes it complain each time. Seen once: 3.13.2 complained of a Segmentation on
        a busy machine, and in 89 times that it was opened afterwards it did not.
        """
        complaint = ""
        for _ in range(2):
            self.show(series)
            self.page.wait_for_timeout(1000)
            if not (complaint := self.complaint()):
                break
            _log.warning("OHIF %s complains of %s: %s", self.release, series, complaint)
            self.keep(f"complaint {series}")
            self.reload()
        return complaint

    def look(self) -> Screen:
        """Return the first viewport as it is seen."""
        canvas = self.page.locator("[data-cy=viewport-pane] canvas").first
        # While OHIF replaces the viewport there is none.
        while (box := canvas.bounding_box()) is None:
            self.page.wait_for_timeout(100)
        whole = self._screenshot()
        left, top = round(box["x"]), round(box["y"])
        return Screen(whole[top : top + round(box["height"]), left : left + round(box["width"])])

    def look_until(self, seen: Callable[[Screen], bool], seconds: float = PATIENCE) -> Screen:
        """Look until something is seen, and return what was seen last."""
        deadline = monotonic() + seconds
        while not seen(screen := self.look()) and monotonic() < deadline:
            self.page.wait_for_timeout(200)
        return screen

    def keep(self, name: str) -> None:
        """Keep the whole window as a picture."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        file = re.sub(r"[^a-z0-9.]+", "-", f"{self.release} {name}".lower())
        self.page.screenshot(path=ARTEFACTS / f"{file}.png")

    def _screenshot(self) -> NDArray[np.uint8]:
        decoded = cv2.imdecode(np.frombuffer(self.page.screenshot(), np.uint8), cv2.IMREAD_COLOR_RGB)
        assert decoded is not None
        return np.asarray(decoded, np.uint8)


@contextmanager
def viewer(address: str, release: str) -> Iterator[Viewer]:
    """Open a browser on a site while the context lasts."""
    program = require_program("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM))
        try:
            width, height = WINDOW
            yield Viewer(browser.new_page(viewport={"width": width, "height": height}), address, release)
        finally:
            browser.close()


def main() -> None:
    """Write the pictures of docs/viewers.md from those that the tests kept."""
    folder = ROOT / "docs" / "viewers"
    folder.mkdir(exist_ok=True)
    for name in SHOWN:
        picture = cv2.imread(str(ARTEFACTS / f"{name}.png"))
        assert picture is not None, f"{name}: run tests/interop/test_ohif.py first"
        smaller = cv2.resize(picture, None, fx=0.7, fy=0.7, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(folder / f"{name}.jpg"), smaller, [cv2.IMWRITE_JPEG_QUALITY, 80])


if __name__ == "__main__":
    main()
