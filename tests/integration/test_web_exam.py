"""The page of an exam as a program asks for it: what it tells, its pictures and results."""

import re
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import cv2
import httpx2
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import EnhancedSRStorage
from sqlalchemy import Engine, update

from ai.exam import Laterality, ViewImage
from ai.findings import ImageFindings
from config.policy import RecallLimit, RetentionPolicy, ScorePolicy
from node.retention import Retention
from storage.database import reading, writing
from storage.previews import PreviewKind, previews_of
from storage.states import DeliveryState, JobState
from storage.tables import deliveries
from tests.answers import MODEL, a_mass
from tests.builders import altered
from tests.chain import QUIET, REPORTS_ONLY, FakeReader
from tests.doors import an_image, phantom_images
from tests.pacs import a_free_port, a_pacs
from tests.pages import MANY_DIGITS, Node, Standing, Visitor, a_node, answered, node, standing, text, visitor
from tests.unit.test_calibration import CALIBRATION

__all__ = ["answered", "node", "standing", "visitor"]

pytestmark = pytest.mark.sqlite_alone


def test_an_exam_tells_its_views_images_life_results_and_deliveries(standing: Standing) -> None:
    visitor, answered = standing.visitor, standing.uid
    page = visitor.get(f"/exams/{answered}")
    told = text(page)
    for words in ("R CC", "L CC", "R MLO", "L MLO", "score 83", "2 masses", "1: 83", "2: 21", "4 images received"):
        assert words in told
    assert told.count("used") >= 4
    assert page.text.count('data-score="83"') == 8  # outline and line of the list, four views
    assert "laterality R from" in told
    assert "findings" in told
    assert "waiting" in told


class Doubting(FakeReader):
    """Finds what its like finds, and its parts disagree widely on the left breast."""

    def found(self, image: ViewImage) -> ImageFindings:
        """Return what it finds in an image."""
        span = (31, 92) if image.view.laterality is Laterality.LEFT else (80, 86)
        return replace(super().found(image), span=span)


def test_what_scores_mean_and_how_far_the_model_doubts_them_stands_on_the_page(tmp_path: Path, engine: Engine) -> None:
    reader = Doubting(model=replace(MODEL, calibration=CALIBRATION))
    with a_node(tmp_path, engine, reader=reader) as node, Visitor(base_url=node.address) as visitor:
        node.chain.close(phantom_images())
        node.chain.worker(scoring=ScorePolicy(0.01, (RecallLimit(85),))).work_once()
        told = unescape(text(visitor.get(f"/exams/{node.chain.exam.uid}")))
    for sentence in (
        "UNCERTAIN: parts of the model say 31 to 92 for the left breast; its score may be far off.",
        "Exam score 83 is below this site's limit of 85 for a second look, but BORDERLINE: parts of the model say 80 to 92.",
        "Probability of cancer: exam 5.2 %, L breast 5.2 %, R breast 5.2 %, if 1 % of such exams have one; calibrated on",
    ):
        assert told.count(sentence) == 1


def test_every_attempt_to_deliver_is_told_and_equal_ones_are_counted(tmp_path: Path, engine: Engine) -> None:
    absent = REPORTS_ONLY.model_copy(update={"port": a_free_port(), "ae_title": "PACS"})
    with a_node(tmp_path, engine, destinations=(absent,)) as node, Visitor(base_url=node.address) as visitor:
        node.chain.receive(phantom_images())
        node.read()
        for _ in range(2):
            node.deliver()
            node.chain.clock.forward(timedelta(hours=1))
        assert "2 times: waiting" in (told := text(visitor.get(f"/exams/{node.chain.exam.uid}")))
        assert "does not answer" in told
        assert re.search(r"waiting again at \d{4}-\d\d-\d\d \d\d:\d\d:\d\d", told)  # which may be tomorrow
        with a_pacs(port=absent.port):
            node.deliver()
        assert "sent, 0000H" in text(visitor.get(f"/exams/{node.chain.exam.uid}"))
        assert "sent to ris" in text(visitor.get(f"/exams/{node.chain.exam.uid}"))


def test_a_late_image_stands_after_the_reading_that_it_came_too_late_for(node: Node, visitor: Visitor) -> None:
    images = phantom_images()
    node.chain.receive(images)
    node.chain.clock.forward(QUIET.complete_quiet)
    assert node.chain.exam_clock().tick() == 1
    node.chain.clock.forward(timedelta(seconds=30))
    node.chain.receive([altered(images[0], SOPInstanceUID="2.25.1")])
    told = text(visitor.get(f"/exams/{node.chain.exam.uid}"))
    told = told[told.index("Time line") :]
    came = [told.index(words) for words in ("4 images received", "closed, a reading is queued", "1 image received")]
    assert came == sorted(came)
    former = text(visitor.get(f"/exams/{node.chain.exam.uid}?revision=1"))
    assert "not used it came after this revision was closed" in former


def test_a_view_whose_image_is_not_used_says_why_and_not_that_there_is_none(node: Node, visitor: Visitor) -> None:
    lossy, *_ = phantom_images()
    node.chain.receive([altered(lossy, LossyImageCompression="01")])
    page = f"/exams/{node.chain.exam.uid}"
    told = text(visitor.get(page))
    assert told.count("The exam is still being received.") == 4
    assert "No image of this view." not in told
    node.read()
    told = text(visitor.get(page))
    assert told.count("Not used: lossy compressed.") == 1
    assert told.count("No image of this view.") == 3


def test_what_is_no_image_is_told_as_kept_and_counted_as_none(node: Node, visitor: Visitor, answered: str) -> None:
    [report] = node.chain.outbox.of_exam(node.chain.exam.id)
    node.chain.receive([dcmread(node.chain.room.store.resolve(report.path))])
    told = text(visitor.get(f"/exams/{answered}"))
    assert " kept no image own result" in told
    assert "1 own result received" in told
    assert re.search(r"answered revision 1: \w+; \d+\.\d\d s: decode \d", told)
    assert "not decided" not in told
    node.chain.receive([altered(an_image(), SOPClassUID=EnhancedSRStorage, SOPInstanceUID="1.2.3.9")])
    assert "1 other object received" in text(visitor.get(f"/exams/{answered}"))
    assert " MODALITY 4 " in text(visitor.get("/exams/lines"))


def test_what_a_destination_has_not_got_is_told_at_the_top(node: Node, visitor: Visitor, answered: str) -> None:
    page = f"/exams/{answered}"
    assert "has not got" not in text(visitor.get(page))
    [report] = node.chain.outbox.of_exam(node.chain.exam.id)
    node.chain.outbox.refused(report, "SOP class not supported", 0x0122, node.chain.clock())
    told = text(visitor.get(page))
    assert told.index("ris has not got SR: refused or given up, see Deliveries") < told.index("Views")
    assert "findings ris has not got SR MODALITY" in text(visitor.get("/exams/lines"))
    lanes = text(visitor.get("/destinations/body"))
    assert "Which: mammonode deliveries --state refused --destination ris" in lanes


def test_why_a_result_is_not_sent_any_more_is_told(node: Node, visitor: Visitor, answered: str) -> None:
    outbox, now = node.chain.outbox, node.chain.clock()
    for each in outbox.of_exam(node.chain.exam.id):
        outbox.again(each, "out of resources", 0xA700, now)
    with writing(node.chain.room.engine) as connection:
        said = {"state": DeliveryState.RECALLED, "message": "out of resources; a later answer was there first"}
        connection.execute(update(deliveries).values(said))
    assert "recalled out of resources; a later answer was there first" in text(visitor.get(f"/exams/{answered}"))


def test_pictures_are_files_as_the_exam_is_hung(standing: Standing) -> None:
    node, visitor, answered = standing.node, standing.visitor, standing.uid
    page = visitor.get(f"/exams/{answered}").text
    addresses = sorted(set(re.findall(rf'src="(/exams/{answered}/pictures/[^"]+)"', page)))
    assert len(addresses) == 12
    shapes: dict[str, list[Any]] = {}
    for address in addresses:
        answer = visitor.get(address)
        assert answer.status_code == 200
        decoded = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded is not None
        shapes.setdefault(address.rpartition("/")[2], []).append(decoded)
    assert {kind: len(pictures) for kind, pictures in shapes.items()} == {"view": 4, "map": 4, "prepared": 4}
    assert all(picture.shape[2] == 4 for picture in shapes["map"])
    # Chest walls meet in the middle: a right breast is at the right of its picture, a left one at the left.
    job = node.chain.job
    with reading(node.chain.room.engine) as connection:
        views = [each for each in previews_of(connection, job.id) if each.kind is PreviewKind.VIEW]
    for image in phantom_images():
        [path] = [each.path for each in views if each.image_uid == image.SOPInstanceUID]
        pixels = cv2.imread(str(node.chain.room.store.resolve(path)), cv2.IMREAD_GRAYSCALE)
        assert pixels is not None
        half = pixels.shape[1] // 2
        bright = pixels[:, half:].mean() > pixels[:, :half].mean()
        assert bright == (image.ImageLaterality == "R")


@pytest.mark.parametrize(("spacing", "shape"), [(("0.4", "0.2"), (1024, 416)), (("0.2", "0.4"), (512, 832))])
def test_a_picture_of_pixels_that_are_not_square_is_as_wide_and_high_as_the_breast(
    tmp_path: Path, engine: Engine, spacing: tuple[str, str], shape: tuple[int, int]
) -> None:
    with a_node(tmp_path, engine) as node:
        node.chain.receive([an_image(ImagerPixelSpacing=list(spacing))])
        node.read()
        with reading(node.chain.room.engine) as connection:
            [path] = [each.path for each in previews_of(connection, node.chain.job.id) if each.kind is PreviewKind.VIEW]
        page = httpx2.get(f"{node.address}/exams/{node.chain.exam.uid}", timeout=60).text
        picture = cv2.imread(str(node.chain.room.store.resolve(path)), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == shape
    # The marks' units are as wide as high, so that no letter is stretched, and every outline is in them.
    [(width, height)] = re.findall(r'viewBox="0 0 (\S+) (\S+)"', page)
    assert float(height) / float(width) == pytest.approx(shape[0] / shape[1])
    [outline] = re.findall(r'class="line" points="([^"]+)"', page)[:1]
    points = np.array([pair.split(",") for pair in outline.split()], float) / (float(width), float(height))
    assert points.min(axis=0) == pytest.approx((100 / 416, 200 / 512), abs=0.003)
    assert points.max(axis=0) == pytest.approx((170 / 416, 260 / 512), abs=0.003)


class CrowdedReader(FakeReader):
    """Finds two masses beside each other."""

    def found(self, image: ViewImage) -> ImageFindings:
        masks = np.zeros((2, *image.shape), np.bool_)
        masks[0, 200:240, 100:140] = masks[1, 200:240, 150:190] = True
        masses = tuple(a_mass(mask, number) for number, mask in enumerate(masks, start=1))
        return ImageFindings(image.uid, image.view, image.shape, masses, 83, 0.8)


def test_the_label_of_a_mass_covers_no_other_and_its_number_stands_in_the_list_too(
    tmp_path: Path, engine: Engine
) -> None:
    with a_node(tmp_path, engine, reader=CrowdedReader()) as node:
        node.chain.receive([an_image()])
        node.read()
        answer = httpx2.get(f"{node.address}/exams/{node.chain.exam.uid}", timeout=60)
    [first, second] = re.findall(r'<text x="(\S+)" y="(\S+)" font-size="(\S+)">(.): 83</text>', answer.text)
    for x, y, letters, number in (first, second):
        left, right = float(x), float(x) + 3 * float(letters)
        assert right <= 100 or left >= 190 or not 200 <= float(y) <= 240 + float(letters), number
    assert "1 : score 83" in text(answer)
    assert "2 : score 83" in text(answer)


def test_pictures_go_with_what_they_show(node: Node, visitor: Visitor, answered: str) -> None:
    policy = RetentionPolicy(timedelta(days=1), None, None, unproven=True)
    folder = node.chain.room.store.root / "previews"
    page = visitor.get(f"/exams/{answered}").text
    [address, *_] = re.findall(rf'src="(/exams/{answered}/pictures/[^"]+)"', page)
    assert sum(path.is_file() for path in folder.rglob("*")) == 12
    for delivery in node.chain.outbox.of_exam(node.chain.exam.id):
        node.chain.outbox.sent(delivery, 0, node.chain.clock())
    node.chain.clock.forward(timedelta(days=2))
    retention = Retention(node.chain.room.engine, node.chain.room.store, policy, node.chain.clock, destinations=())
    assert retention.tick() == 4 + 12
    assert sum(path.is_file() for path in folder.rglob("*")) == 0
    assert visitor.get(address).status_code == 404
    assert "The picture is not kept any more." in text(visitor.get(f"/exams/{answered}"))


def test_a_picture_or_result_of_another_exam_or_place_is_not_given(standing: Standing) -> None:
    visitor, answered = standing.visitor, standing.uid
    for path in (
        f"/exams/{answered}/pictures/1/1.2.3/view",
        f"/exams/{answered}/pictures/999/1.2.3/view",
        f"/exams/{answered}/pictures/{MANY_DIGITS}/1.2.3/view",
        f"/exams/{answered}/pictures/1/..%2f..%2fa.db/view",
        f"/exams/{answered}/results/1.2.3",
        f"/exams/{answered}/results/..%2f..",
        "/exams/ffffffff",
        "/static/..%2fhouse.py",
        "/static/nothing.css",
    ):
        assert visitor.get(path).status_code == 404, path


def test_a_result_is_given_as_a_file(standing: Standing) -> None:
    node, visitor, answered = standing.node, standing.visitor, standing.uid
    record = node.chain.sent_to()[0]
    answer = visitor.get(f"/exams/{answered}/results/{record.uid}")
    assert answer.content == node.chain.room.store.resolve(record.path).read_bytes()
    assert answer.headers["content-type"] == "application/dicom"


def test_no_picture_or_result_stays_in_a_browser_that_was_logged_out(standing: Standing) -> None:
    page = standing.visitor.get(f"/exams/{standing.uid}").text
    kept = re.findall(rf'"(/exams/{standing.uid}/(?:pictures|results)/[^"]+)"', page)
    assert {address.split("/")[3] for address in kept} == {"pictures", "results"}
    for address in kept:
        assert "no-store" in standing.visitor.get(address).headers["cache-control"], address


def test_whoever_sees_something_of_an_exam_is_in_the_audit_trail_once(
    standing: Standing, monkeypatch: pytest.MonkeyPatch
) -> None:
    node, answered = standing.node, standing.uid
    page = standing.visitor.get(f"/exams/{answered}").text
    [picture, *_] = re.findall(rf'src="(/exams/{answered}/pictures/[^"]+)"', page)
    result = f"/exams/{answered}/results/{node.chain.sent_to()[0].uid}"
    paths = f"/exams/{answered}", f"/exams/{answered[:8].upper()}", f"/exams/{answered}/body", picture, result
    look = "looked at", {"who": "Ida", "address": "127.0.0.1", "exam": answered}
    credentials = {"Authorization": f"Bearer {node.token('Ida', 'read')}"}
    with Visitor(base_url=node.address, headers=credentials) as visitor:
        for path in paths:
            for headers in ({}, {"HX-Request": "true"}):
                with monkeypatch.context() as patch:
                    patch.setattr("node.web.audited.LOOK", 0.0)
                    node.facts.clear()
                    assert visitor.get(path, headers=headers).status_code == 200
                assert node.facts == [look], (path, headers)
        node.facts.clear()
        for path in paths:
            visitor.get(path)
        assert node.facts == []


def test_an_earlier_revision_is_shown_as_it_was(node: Node, visitor: Visitor, answered: str) -> None:
    node.chain.receive([an_image(SOPInstanceUID="1.2.826.0.1.3680043.10.1", InstanceNumber=99)])
    node.read()
    present = text(visitor.get(f"/exams/{answered}"))
    assert "revision 2" in present
    former = text(visitor.get(f"/exams/{answered}?revision=1"))
    assert "This is revision 1" in former
    assert visitor.get(f"/exams/{answered}?revision=x").status_code == 200
    assert visitor.get(f"/exams/{answered}?revision={MANY_DIGITS}").status_code == 400
    assert 'id="re-read"' not in visitor.get(f"/exams/{answered}?revision=1").text


def test_an_image_that_stood_in_for_another_is_shown_as_the_one_that_was_used(node: Node, visitor: Visitor) -> None:
    first, *others = phantom_images()
    later = altered(first, SOPInstanceUID=f"{first.SOPInstanceUID}.2", AcquisitionTime="235959", PixelData=b"")
    uid = node.chain.close([first, *others, later]).exam_uid
    node.read()
    rows = re.findall(r"<tr.*?</tr>", visitor.get(f"/exams/{uid}").text, re.DOTALL)
    used = [row for row in rows if 'data-label="Used"' in row]
    assert [">used<" in row for row in used] == [True] * 4 + [False]
    assert "The pixel data cannot be decoded" in used[-1]
    assert f"R CC: image {first.SOPInstanceUID} was read in place of {later.SOPInstanceUID}" in text(
        visitor.get(f"/exams/{uid}")
    )


def test_an_image_whose_file_was_gone_is_not_shown_as_used(node: Node, visitor: Visitor) -> None:
    first, *others = phantom_images()
    later = altered(first, SOPInstanceUID=f"{first.SOPInstanceUID}.2", AcquisitionTime="235959")
    uid = node.chain.close([first, *others, later]).exam_uid
    [path] = [path for path in node.chain.room.files() if later.SOPInstanceUID in path]
    (node.chain.room.store.root / path).unlink()
    while node.chain.job.state is JobState.QUEUED:
        node.read()
        node.chain.clock.forward(timedelta(minutes=1))
    assert node.chain.exam.status == "findings"
    rows = re.findall(r"<tr.*?</tr>", visitor.get(f"/exams/{uid}").text, re.DOTALL)
    used = [row for row in rows if 'data-label="Used"' in row]
    assert [">used<" in row for row in used] == [True] * 4 + [False]
    assert "its file could not be had" in used[-1]


def test_an_answer_is_not_shown_as_the_present_one_while_the_exam_is_read_again(
    node: Node, visitor: Visitor, answered: str
) -> None:
    assert "answer so far" not in text(visitor.get(f"/exams/{answered}"))
    visitor.button(f"/exams/{answered}/re-read")
    assert "waiting answer so far: findings" in text(visitor.get(f"/exams/{answered}"))
    assert node.chain.queue.claim("worker", node.chain.clock())
    assert "answer so far: findings" in text(visitor.get(f"/exams/{answered}"))
