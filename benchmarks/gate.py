"""How often the gate refuses and warns, check by check, on every source of images at hand; it should refuse under 1 %.

Run: python benchmarks/gate.py MANIFEST [--cesm MANIFEST] [--msynth FOLDER] [--dicom FOLDER] [--phantoms 75]
                               [--write-reference]
MANIFEST is that of ``mammonode train`` on CBIS-DDSM. Thresholds and reference were made on the patients of parts 1 to 4
of its split; part 0 was kept. CDD-CESM's manifest is narrowed to low-energy images (``type`` DM). M-SYNTH has no view in
its names; all are CC, of no known side. DICOM files that their headers refuse are left out. The challenge set is that of
the tests (``tests/challenge.py``), those included that their headers refuse, and a second table says of each of its
pictures what is told. ``--write-reference`` makes
``ai/gate_reference.json`` anew, from parts 1 to 4, before anything is judged.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom

from ai.appearance import Appearance, appearance
from ai.checks import Check, Verdict
from ai.datasets.manifest import read_manifest
from ai.datasets.records import Record, split_by_patient
from ai.errors import NoBreast
from ai.exam import STANDARD_VIEWS, View, ViewImage, ViewPosition
from ai.gate import GatePolicy, Reference, noticed, shipped_reference
from ai.phantom.vendors import VENDORS, Vendor
from ai.pixels import file_image, view_image
from node.phantom import phantom_exam
from node.views import classify
from tests.challenge import challenges, headers

CHALLENGE = "challenge set"
BY_HEADER = (Check.NO_SPACING, Check.EIGHT_BITS, Check.IMPLANT, Check.BURNED_IN, Check.ODD_SPACING, Check.TWIN)
"""What pixels do not tell."""
REFERENCE = Path(__file__).parents[1] / "ai" / "gate_reference.json"


@dataclass(frozen=True, eq=False)
class Judged:
    """One image without its pixels.

    Attributes
    ----------
    image
        It.
    seen
        Its statistics; None where no breast was found, or where its header refuses it.
    obstacle
        Why its header refuses it.
    """

    image: ViewImage
    seen: Appearance | None
    obstacle: str = ""

    def told(self, policy: GatePolicy, reference: Reference) -> tuple[Check, ...] | None:
        """Return what is noticed; None where nothing could be measured."""
        return noticed(self.image, self.seen, policy, reference) if self.seen else None


def main() -> None:
    """Measure and print a table for docs/gate.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--cesm", type=Path)
    parser.add_argument("--msynth", type=Path)
    parser.add_argument("--dicom", type=Path)
    parser.add_argument("--phantoms", type=int, default=75)
    parser.add_argument("--write-reference", action="store_true")
    options = parser.parse_args()
    records = read_manifest(options.manifest)
    parts = split_by_patient(records, 5, 1)
    folder = options.manifest.parent
    chosen = [record for record in records if parts[record.patient_id] != 0]
    kept = [record for record in records if parts[record.patient_id] == 0]
    sources = {"CBIS 1-4": films(folder, chosen), "CBIS 0": films(folder, kept)}
    if options.cesm:
        low = read_manifest(options.cesm, {"type": "DM"})
        sources["CESM low energy"] = films(options.cesm.parent, low)
    if options.msynth:
        sources["M-SYNTH"] = (
            (lambda path=path: file_image(path, STANDARD_VIEWS[1])) for path in sorted(options.msynth.glob("*.jp*g"))
        )
    if options.dicom:
        sources["FFDM files"] = dicom(options.dicom)
    for vendor in VENDORS.values():
        sources[f"phantom {vendor.name}"] = phantoms(options.phantoms, vendor)
    judged = {name: list(map(judge, images)) for name, images in sources.items()}
    challenge = challenged()
    judged[CHALLENGE] = [*challenge.values()]
    for name, images in judged.items():
        if not images:
            raise SystemExit(f"{name}: there is no image")
    if options.write_reference:
        reference = Reference.of(each.seen for each in judged["CBIS 1-4"] if each.seen)
        REFERENCE.write_text(reference.as_json() + "\n", encoding="utf-8")
    show(judged)
    show_each(challenge)


Source = Iterator[Callable[[], ViewImage]]


def films(folder: Path, records: list[Record]) -> Source:
    """Yield the images of a data set."""
    yield from ((lambda record=record: file_image(folder / record.path, record.view)) for record in records)


def dicom(folder: Path) -> Source:
    """Yield the DICOM files of a folder that their headers let through."""
    for path in sorted(folder.glob("*.dcm")):
        dataset = pydicom.dcmread(path)
        found = classify(dataset)
        if found.usable and found.view:
            yield lambda dataset=dataset, view=found.view: view_image(dataset, view)


def phantoms(count: int, vendor: Vendor) -> Source:
    """Yield the images of small phantom exams."""
    for seed in range(count):
        exam = phantom_exam(seed, small=True, vendor=vendor)
        for view, dataset in zip(STANDARD_VIEWS, exam.images, strict=True):
            yield lambda dataset=dataset, view=view: view_image(dataset, view)


def judge(load: Callable[[], ViewImage]) -> Judged:
    """Return the statistics of an image."""
    image = load()
    try:
        seen = appearance(image)
    except NoBreast:
        seen = None
    return Judged(replace(image, pixels=np.zeros((1, 1), np.float32)), seen)


def challenged() -> dict[str, Judged]:
    """Return the challenge set, judged."""
    judged = {name: judge(lambda image=image: image) for name, image in challenges().items()}
    for name, dataset in headers().items():
        found = classify(dataset)
        if found.usable or found.view is None:
            raise SystemExit(f"{name}: its header does not refuse it")
        blank = ViewImage(name, found.view, np.zeros((1, 1), np.float32))
        judged[name] = Judged(blank, None, found.reasons[0])
    return judged


def show(judged: dict[str, list[Judged]]) -> None:
    """Print the rates as a table: a row for each check, a column for each source."""
    policy, reference = GatePolicy(), shipped_reference()
    found = {name: [each.told(policy, reference) for each in images] for name, images in judged.items()}

    def row(title: str, told: Callable[[tuple[Check, ...] | None], bool]) -> str:
        rates = (f"{100 * sum(map(told, checks)) / max(len(checks), 1):.1f}" for checks in found.values())
        return f"| {title} | {' | '.join(rates)} |"

    def refused(checks: tuple[Check, ...] | None) -> bool:
        return checks is None or any(check.verdict is Verdict.NOT_ANALYSED for check in checks)

    print(f"| % of images | {' | '.join(f'{name} ({len(images)})' for name, images in judged.items())} |")
    print("|---|" + "---|" * len(judged))
    print(row("**refused**", refused))
    limits = (f"{100 * upper(sum(map(refused, checks)), len(checks)):.1f}" for checks in found.values())
    print(f"| refused, upper end of the 95 % interval | {' | '.join(limits)} |")
    by_header = (f"{100 * sum(bool(each.obstacle) for each in images) / len(images):.1f}" for images in judged.values())
    print(f"| refused by its header | {' | '.join(by_header)} |")
    blank = (
        f"{100 * sum(each.seen is None and not each.obstacle for each in images) / len(images):.1f}"
        for images in judged.values()
    )
    print(f"| `no-breast` | {' | '.join(blank)} |")
    for check in Check:
        if check not in BY_HEADER:
            print(row(f"`{check.code}`", lambda checks, check=check: checks is not None and check in checks))
    print(row("passed without a word", lambda checks: checks == ()))
    print(row("told to be unlike film, and nothing else", lambda checks: checks == (Check.UNLIKE,)))
    found = {
        name: [noticed(exchanged(each.image), each.seen, policy, reference) for each in images if each.seen]
        for name, images in judged.items()
    }
    print(row("`view-in-doubt` had the other view been stated", lambda checks: Check.VIEW in (checks or ())))


def show_each(judged: dict[str, Judged]) -> None:
    """Print what is told of each picture of the challenge set."""
    policy, reference = GatePolicy(), shipped_reference()
    print("\n| picture | verdict | told |\n|---|---|---|")
    for name, each in judged.items():
        checks = each.told(policy, reference)
        if checks is None:
            told = f"{each.obstacle} (by its header)" if each.obstacle else "no-breast"
            print(f"| {name} | {Verdict.NOT_ANALYSED} | {told} |")
            continue
        verdict = max((check.verdict for check in checks), key=list(Verdict).index, default="pass")
        print(f"| {name} | {verdict} | {', '.join(check.code for check in checks)} |")


def upper(found: int, images: int) -> float:
    """Return the upper end of Wilson's 95 % interval of a share."""
    z, share = 1.96, found / images
    middle = share + z * z / (2 * images)
    spread = z * np.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    return float((middle + spread) / (1 + z * z / images))


def exchanged(image: ViewImage) -> ViewImage:
    """Return the image as one of the other view."""
    other = ViewPosition.MLO if image.view.position is ViewPosition.CC else ViewPosition.CC
    return replace(image, view=View(image.view.laterality, other))


if __name__ == "__main__":
    main()
