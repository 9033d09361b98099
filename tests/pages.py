"""Builders: a node's pages over a real socket, on a chain that goes on when the test says so, and a browser before them."""

import re
import secrets
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from pydicom.dataset import Dataset
from sqlalchemy import Engine

from ai.exam import ViewImage
from ai.findings import ImageFindings
from ai.models import open_model
from config.settings import Caller, Destination, Dicom, Http, Settings, Storage
from node.delivery import Lane
from node.echoes import Echoes
from node.intake import utc_now
from node.parts import Parts
from node.scp import StorageSCP
from node.scu import Item, Sender
from node.senders import Noted, Senders
from node.web.access import Authentication, ThisMachine
from node.web.app import Counts, Routes, create_app
from node.web.bearer import Sessions, Tokens, Unknown, Uses
from node.web.pages.all import page_routes
from node.web.pages.house import House
from node.web.server import WebDoor
from storage.actions import actions_of_exam
from storage.database import open_database, reading, writing
from storage.tokens import add_token
from tests.answers import a_map, a_mass
from tests.chain import PACS, QUIET, REPORTS_ONLY, Chain, FakeReader, a_chain
from tests.databases import SQLiteDatabases
from tests.doors import phantom_images
from tests.peers import require_program
from tests.web import Facts

PATIENCE: Final = 60.0
CHROMIUM: Final = ("--no-sandbox", "--disable-background-networking", "--disable-component-update", "--no-first-run")
ADA: Final = "Ada"
OPERATOR: Final = ("read", "operate", "store")
MANY_DIGITS: Final = "7" * 5000
"""More than `int` takes."""


class PicturingReader(FakeReader):
    """Finds a strong and a weak mass in every image, and tells its map and what it saw."""

    def found(self, image: ViewImage) -> ImageFindings:
        """Return what it finds in an image."""
        strong, weak = np.zeros((2, *image.shape), np.bool_)
        strong[200:260, 100:170] = True
        weak[320:350, 60:100] = True
        masses = (a_mass(strong, 1, suspicion=83), a_mass(weak, 2, suspicion=21)) if self.masses else ()
        seen = np.full((64, 48), 90, np.uint8)
        told = (image.uid, image.view, image.shape, masses, 83, 0.8, (), a_map(image.shape, (strong, weak)))
        return ImageFindings(*told, prepared=seen)


@dataclass
class Node:
    """A node whose doors are open and whose clock, worker and lanes go on when the test says so."""

    chain: Chain
    web: WebDoor
    dicom: StorageSCP
    senders: Senders
    facts: Facts
    destinations: tuple[Destination, ...]
    echoes: Echoes

    @property
    def address(self) -> str:
        """Where its pages are."""
        return f"http://localhost:{self.web.port}"

    def send(self, images: Iterable[Dataset], calling_ae: str = "MODALITY") -> None:
        """Send images by C-STORE, as a modality does, and write down who has called."""
        door = Destination(name="node", ae_title="MAMMONODE", host="127.0.0.1", port=self.dicom.port)
        items = []
        for image in images:
            path = self.chain.room.store.root.parent / f"{secrets.token_hex(4)}.dcm"
            image.save_as(path, enforce_file_format=True)
            items.append(Item(path, image.SOPClassUID))
        statuses = [response.status for response in Sender(Dicom(ae_title=calling_ae)).send(door, items)]
        assert statuses == [0] * len(items)
        self.senders.write_down()

    def read(self) -> None:
        """Let the quiet time pass, and a worker do what there is to do."""
        self.chain.clock.forward(QUIET.incomplete_quiet)
        self.chain.exam_clock().tick()
        worker = self.chain.worker(destinations=self.destinations)
        while worker.work_once():
            pass

    def deliver(self) -> None:
        """Let each lane send once what it has."""
        sender = Sender(Dicom(acse_timeout=20))
        for destination in self.destinations:
            Lane(destination, self.chain.outbox, sender, self.chain.room.store, clock=self.chain.clock).deliver_due()

    def token(self, name: str, *scopes: str) -> str:
        """Make a token."""
        with writing(self.chain.room.engine) as connection:
            return add_token(connection, name, scopes, self.chain.clock(), None)


@contextmanager
def a_node(
    folder: Path,
    engine: Engine,
    *,
    destinations: tuple[Destination, ...] = (PACS, REPORTS_ONLY),
    real_time: bool = False,
    trust_local: bool = True,
    reader: FakeReader | None = None,
    **http: Any,
) -> Iterator[Node]:
    """Open a node's doors.

    Parameters
    ----------
    real_time
        Whether its clock goes; otherwise it stands until it is put forward.
    trust_local
        Whether this machine needs no credentials.
    reader
        By default one that finds two masses everywhere.
    http
        Settings of the HTTP door.
    """
    chain = a_chain(folder, engine)
    if real_time:
        chain.clock.now = utc_now()
    chain.reader = reader or PicturingReader()
    dicom = Dicom(port=0, callers=(Caller(ae_title="MODALITY"),), network_timeout=20, acse_timeout=10)
    settings = Settings(
        dicom=dicom, storage=Storage(folder=folder), http=Http(port=0, **http), destinations=destinations
    )
    senders = Senders(engine, chain.clock)
    receiver, counts = Noted(chain.room.intake, senders), Counts()
    parts = Parts(settings, engine, chain.room.store, chain.queue, chain.outbox)
    echo, model = Sender(Dicom(acse_timeout=20)).echo, open_model("mass-fpn-boxes")
    echoes = Echoes(chain.clock)
    echoes.use(echo, destinations)
    house = House(lambda: parts, receiver, echo, model, counts, chain.clock, echoes=echoes)
    uses = Uses(engine)
    ways: list[Authentication] = [
        Tokens(engine, chain.clock, uses),
        Unknown(),
        Sessions(engine, chain.clock, uses, timedelta(hours=12)),
    ]
    if trust_local:
        ways.append(ThisMachine())
    facts = Facts()
    app = create_app(settings.http, ways, Routes(pages=page_routes(house)), counts, facts)
    web = WebDoor(settings.http, app, drain=2)
    door = StorageSCP(dicom, receiver, chain.room.store.incoming, senders=senders)
    with ExitStack() as stack:
        web.start()
        stack.callback(web.stop)
        door.start()
        stack.callback(door.stop, drain=5)
        yield Node(chain, web, door, senders, facts, destinations, echoes)


class Visitor(httpx2.Client):
    """A program that asks for pages with a token, as a part of a page does when it is told so."""

    def __init__(self, **how: Any) -> None:
        super().__init__(timeout=60, **how)

    def button(self, path: str, **form: str) -> httpx2.Response:
        return self.post(path, data=form, headers={"HX-Request": "true"})


@contextmanager
def visiting(node: Node) -> Iterator[Visitor]:
    secret = node.token(ADA, *OPERATOR)
    with Visitor(base_url=node.address, headers={"Authorization": f"Bearer {secret}"}) as client:
        yield client


@pytest.fixture
def node(tmp_path: Path, engine: Engine) -> Iterator[Node]:
    with a_node(tmp_path, engine, destinations=(REPORTS_ONLY,), trust_local=False) as opened:
        yield opened


@pytest.fixture
def visitor(node: Node) -> Iterator[Visitor]:
    with visiting(node) as client:
        yield client


@pytest.fixture
def answered(node: Node) -> str:
    """The id of an exam that was answered."""
    node.chain.receive(phantom_images())
    node.read()
    return node.chain.exam.uid


@dataclass(frozen=True)
class Standing:
    """A node with an answered exam that no test changes."""

    node: Node
    visitor: Visitor
    uid: str


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SQLiteDatabases) -> Iterator[Standing]:
    engine = open_database(sqlite_databases.fresh())
    with a_node(tmp_path_factory.mktemp("standing"), engine, trust_local=False) as node, visiting(node) as visitor:
        node.chain.receive(phantom_images())
        node.read()
        yield Standing(node, visitor, node.chain.exam.uid)
    engine.dispose()


def text(answer: httpx2.Response) -> str:
    """Return what people read of a page."""
    assert answer.status_code == 200, answer.text
    return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())


def who_did(node: Node) -> list[tuple[str, str, str]]:
    with reading(node.chain.room.engine) as connection:
        return [(each.what, each.who, each.detail) for each in actions_of_exam(connection, node.chain.exam.id)]


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Start Chromium; skips the test where it is not installed."""
    chromium = require_program("chromium", folder=Path("/usr/bin"))
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM))
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def a_page(browser: Browser, node: Node, **options: Any) -> Iterator[Page]:
    """Open a window of its own; whatever its scripts complain of, or the server fails at, fails the test."""
    context = browser.new_context(base_url=node.address, locale="en-GB", **options)
    context.set_default_timeout(PATIENCE * 1000)
    page = context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    # What Chromium and htmx themselves say of an answer that is no success is no complaint of a script.
    said = re.compile(
        r"(Failed to load resource: the server responded with a status of|Response Status Error Code) 4\d\d"
    )
    page.on(
        "console",
        lambda message: (
            complaints.append(message.text) if message.type == "error" and not said.match(message.text) else None
        ),
    )
    page.on(
        "response", lambda answer: complaints.append(f"{answer.status} {answer.url}") if answer.status >= 500 else None
    )
    try:
        yield page
        assert not complaints, complaints
    finally:
        context.close()
