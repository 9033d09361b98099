"""``mammonode read``: without a server, files in, results and pictures in a folder out."""

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cv2
import numpy as np
import typer
from pydicom.dataset import Dataset

from ai.errors import AIError, UnreadableFile
from ai.exam import Exam, View
from ai.pixels import file_image
from config.mix import PROFILES, ObjectMix
from config.policy import CompletionPolicy
from config.settings import DEFAULT_MODEL
from node.analysis import Source, analyse, header_of, picture, through_the_gate, usable_cores
from node.answering import answer_of
from node.cli.options import (
    DeviceOption,
    JsonOption,
    ModelOption,
    ThreadsOption,
    named_model,
    print_json,
    progress,
)
from node.errors import NodeError
from node.exams import Candidate, Close, assemble, decide, outcome
from node.records import Origin, instance_record, read_header, reference, text
from node.reply import with_distances
from node.results.drawing import cell_of, draw_page, draw_panel, panel, png
from node.results.facts import facts, image_facts
from node.results.pages import image_panel, page
from node.views import ImageKind, classify, kinds_of

if TYPE_CHECKING:
    from ai.readers.base import Reader

AT_ONCE = CompletionPolicy(timedelta(0), timedelta(0), timedelta(0))
"""Files are all there: nothing is waited for."""


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command("read")(read)


def read(
    inputs: Annotated[
        list[Path], typer.Argument(help="DICOM files of one exam, folders of them, or PNG/JPEG.", exists=True)
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the results.")],
    *,
    view: Annotated[str, typer.Option(help="View of a PNG or JPEG, for example LMLO; else its file name tells.")] = "",
    model: ModelOption = DEFAULT_MODEL,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
    profile: Annotated[
        Literal["ohif", "archive", "breast-workstation", "plain-pacs"],
        typer.Option(help="Which DICOM objects to write, as for destinations."),
    ] = "ohif",
    as_json: JsonOption = False,
) -> None:
    """Read files without a server.

    DICOM in: the objects of the profile, findings.json and pictures with outlines. PNG (8 or 16 bit) or JPEG in: findings.json, mask PNG
    and pictures; the view comes from `--view` or from the file name (`…_L_CC.png`, `RIGHT_MLO.jpg`).
    """
    from ai.readers.registry import load_reader  # noqa: PLC0415 (commands that need no model start without torch)

    files = [
        f for path in inputs for f in (sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path])
    ]
    pictures = {f: _view_of(view, f) for f in files if f.suffix.lower() in {".png", ".jpg", ".jpeg"}}
    instances = _instances([f for f in files if f not in pictures], inputs)
    if not pictures and not instances:
        raise UnreadableFile("There is no image in the folder.")
    output.mkdir(mode=0o700, parents=True, exist_ok=True)
    reader = load_reader(named_model(model), device, threads)
    results = []
    if instances:
        results.append(_read_exam(reader, instances, output, PROFILES[profile], threads or usable_cores()))
    with progress() as bar:
        task = bar.add_task("reading pictures", total=len(pictures), visible=bool(pictures))
        for (file, shown), name in zip(pictures.items(), _names(pictures), strict=True):
            results.append(_read_picture(reader, file, shown, output, name))
            bar.advance(task)
    (output / "findings.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    if as_json:
        print_json(results)
        return
    for result in results:
        typer.echo(_summary(result))
    typer.echo(f"Results are in {output}. Research use only.")


def _instances(files: Sequence[Path], named: Sequence[Path]) -> dict[str, tuple[Dataset, Path]]:
    """Return header and file of the DICOM images by UID; in folders, DICOMDIR and the like are passed over."""
    found = {}
    for file in files:
        try:
            header = read_header(file)
            uid = reference(header).instance_uid
        except NodeError as error:
            if file in named:
                raise UnreadableFile(f"{file}: {error}") from error
            typer.echo(f"{file} is no DICOM instance, and is passed over", err=True)
            continue
        if _candidate(header, frozenset()).is_image:
            found[uid] = header, file
        else:
            typer.echo(f"{file} is no image, and is passed over", err=True)
    if len({str(header.StudyInstanceUID) for header, _ in found.values()}) > 1:
        raise UnreadableFile("The files belong to several studies; read one study at a time.")
    if len({(text(header, "IssuerOfPatientID"), text(header, "PatientID")) for header, _ in found.values()}) > 1:
        raise UnreadableFile("The files state several Patient IDs; read one patient's images at a time.")
    return found


def _read_exam(
    reader: "Reader", headers: dict[str, tuple[Dataset, Path]], output: Path, mix: ObjectMix, threads: int
) -> dict[str, Any]:
    """Read DICOM files as one exam, by the rules of the node."""
    from node.results.edition import Edition  # noqa: PLC0415
    from node.results.encode import encode, to_bytes  # noqa: PLC0415

    candidates = [_candidate(header, kinds_of(reader.model.accepts)) for header, _ in headers.values()]
    assembly = assemble(candidates)
    now = datetime.now(UTC)
    verdict = decide(assembly, candidates, opened_at=now, last_image_at=now, now=now, policy=AT_ONCE)
    sources = [Source(uid, headers[uid][1], view) for view, uid in assembly.in_order]
    analysis = analyse(reader, sources, threads=threads)
    done = outcome(candidates, analysis.not_read)
    answer = answer_of(
        {uid: header_of(file) for uid, (_, file) in headers.items()},
        done,
        analysis,
        exam="file",
        revision=1,
        created_at=now.replace(microsecond=0),
        model=reader.model,
        reasons=verdict.reasons if isinstance(verdict, Close) else (),
    )
    edition = Edition.of(answer, mix, installation="command line", settings_digest="", pictures=analysis.pictures)
    written = []
    for result in encode(edition):
        view_name = str(done.views.get(result.image_uid or "", "")).replace(" ", "_")
        path = output / f"{result.kind}{'_' + view_name if view_name else ''}.dcm"
        path.write_bytes(to_bytes(result.dataset))
        written.append(path.name)
    for image in answer.images:
        if shown := image_panel(edition, image):
            name = str(image.view).replace(" ", "_")
            (output / f"{name}.png").write_bytes(png(draw_panel(shown, cell_of(shown, 1280))))
    (output / "overview.png").write_bytes(png(draw_page(page(edition))))
    return {**with_distances(facts(answer, edition.uids), analysis.distances), "objects": written}


def _candidate(header: Dataset, accepts: frozenset[ImageKind]) -> Candidate:
    now = datetime.now(UTC)
    origin = Origin("", "", "", "")
    record = instance_record(
        header, classify(header, accepts), path="", size=0, digest="", origin=origin, received_at=now
    )
    return Candidate.of(record, accepts=accepts)


def _names(files: Iterable[Path]) -> list[str]:
    """Return a name for each file's pictures: its own, with a number where another before it has that, too."""
    names: list[str] = []
    for file in files:
        numbered = (f"{file.stem}_{number}" for number in count(2))
        names.append(next(name for name in chain([file.stem], numbered) if name not in names))
    return names


def _read_picture(reader: "Reader", file: Path, view: View, output: Path, name: str) -> dict[str, Any]:
    try:
        gated = through_the_gate(file_image(file, view))
        if gated.refusal:
            return {"file": file.name, "status": "not analysed", "reasons": [gated.refusal], "images": []}
        image = gated.image
        findings = reader.read(Exam((image,)))
    except AIError as error:
        return {"file": file.name, "status": "not analysed", "reasons": [str(error)], "images": []}
    found = findings.images[0]
    mask = np.zeros(image.shape, np.uint8)
    for mass in found.masses:
        mask[mass.full_mask(image.shape)] = 255
    pictures = [f"{name}_mask.png", f"{name}_overlay.png"]
    cv2.imwrite(str(output / pictures[0]), mask)
    shown = panel(view, picture(image.pixels), found, aspect=image.pixel_aspect)
    (output / pictures[1]).write_bytes(png(draw_panel(shown, cell_of(shown, 1280))))
    status = "findings" if found.masses else "no findings"
    return {
        "file": file.name,
        "status": status,
        "score": findings.score,
        "images": [{"view": str(view), **image_facts(found), "reference_distance": round(gated.distance, 1)}],
        "pictures": pictures,
    }


def _view_of(stated: str, file: Path) -> View:
    """Return the view that was stated, else that of the file name: laterality and position, apart or together."""
    stem = file.stem
    if stated:
        try:
            return View.parse(stated)
        except ValueError:
            raise typer.BadParameter(f"{stated}: no standard view; give RCC, LCC, RMLO or LMLO") from None
    match = re.search(r"(?:^|[^A-Za-z])(L|R|LEFT|RIGHT)[\s_-]*(CC|MLO)(?:$|[^A-Za-z])", stem, re.IGNORECASE)
    if not match:
        raise typer.BadParameter(f"{stem}: the file name tells no view; give --view, for example --view LMLO")
    return View.parse(match[1] + match[2])


def _summary(result: dict[str, Any]) -> str:
    score = "" if result.get("score") is None else f", score {result['score']}"
    lines = [f"{result.get('file', 'exam')}: {result['status']}{score}"]
    lines += [f"  {sentence}" for name in ("appraisal", "reasons") for sentence in result.get(name, ())]
    for image in result["images"]:
        if image.get("not_read"):
            lines.append(f"  {image['view'] or 'image'} not read: {image['not_read']}")
            continue
        masses = ", ".join(f"mass {m['number']} suspicion {m['suspicion']}" for m in image["masses"]) or "no mass"
        lines.append(f"  {image['view']}: score {image['score']}, {masses}")
    return "\n".join(lines)
