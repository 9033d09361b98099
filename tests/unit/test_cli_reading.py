"""The command line: reading without a node, training, figures."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import tomlkit
from pydicom import dcmread

from ai.checks import Check
from ai.exam import STANDARD_VIEWS
from ai.gate import GatePolicy
from ai.models import CARD
from node.cli.reading import _summary
from tests.builders import own_result_header
from tests.chain import text_of
from tests.challenge import challenges
from tests.command_line import fault_of, quick, run
from tests.doors import phantom_images
from tests.drawn import a_breast, a_data_set

__all__ = ["quick"]

pytestmark = [
    # pynetdicom does not close the socket of a connection that was refused.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    # smp renames its encoders one day; the version is pinned.
    pytest.mark.filterwarnings("ignore:`timm-` encoders are deprecated:DeprecationWarning"),
]


def a_study(folder: Path) -> Path:
    folder.mkdir()
    for view, image in zip(STANDARD_VIEWS, phantom_images(), strict=True):
        image.save_as(folder / f"{view}.dcm", enforce_file_format=True)
    return folder


def test_read_reads_a_study_folder_and_passes_over_what_is_no_image(tmp_path: Path, quick: Path) -> None:
    study, output = a_study(tmp_path / "study"), tmp_path / "results"
    (study / "README.txt").write_text("exported by somebody")
    own_result = own_result_header()
    own_result.StudyInstanceUID = phantom_images()[0].StudyInstanceUID
    own_result.save_as(study / "report.dcm", enforce_file_format=True)
    result = run("read", study, "--output", output, "--json", "--model", quick, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert output.stat().st_mode & 0o077 == 0  # patients' data
    assert "README.txt is no DICOM instance" in result.stderr
    assert "report.dcm is no image" in result.stderr
    [told] = json.loads(result.stdout)
    assert json.loads((output / "findings.json").read_text()) == [told]
    assert told["status"] in {"findings", "no findings"}
    assert [image["view"] for image in told["images"]] == [str(view) for view in STANDARD_VIEWS]
    for image in told["images"]:
        assert ("unlike-training" in image["warning_codes"]) == (image["reference_distance"] > GatePolicy().unlike)
    with_masses = [image["view"].replace(" ", "_") for image in told["images"] if image["masses"]]
    assert sorted(told["objects"]) == sorted(["SR.dcm", *(f"SEG_{view}.dcm" for view in with_masses)])
    assert dcmread(output / "SR.dcm").StudyInstanceUID == phantom_images()[0].StudyInstanceUID
    for name in ("overview", *(str(view).replace(" ", "_") for view in STANDARD_VIEWS)):
        assert cv2.imread(str(output / f"{name}.png")) is not None


def test_read_names_the_views_that_are_missing(tmp_path: Path, quick: Path) -> None:
    study = a_study(tmp_path / "study")
    (study / "L MLO.dcm").unlink()
    result = run("read", study, "--output", tmp_path / "results", "--json", "--model", quick, "--device", "cpu")
    [told] = json.loads(result.stdout)
    assert told["status"].startswith("partial")
    assert told["missing"] == ["L MLO"]


def test_read_leaves_out_what_the_card_says_the_model_does_not_read(tmp_path: Path, quick: Path) -> None:
    shutil.copytree(quick, tmp_path / "model")
    card = tomlkit.parse((tmp_path / "model" / CARD).read_text(encoding="utf-8"))
    card["use"]["accepts"] = ["FOR PROCESSING"]
    (tmp_path / "model" / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    study, model = a_study(tmp_path / "study"), tmp_path / "model"
    result = run("read", study, "--output", tmp_path / "results", "--json", "--model", model, "--device", "cpu")
    [told] = json.loads(result.stdout)
    assert told["status"] == "not analysed"
    assert told["reasons"] == ["For Presentation, which the reader does not read"]


def test_what_is_printed_of_an_exam_says_what_its_scores_mean() -> None:
    told = {"status": "findings", "score": 61, "appraisal": ["UNCERTAIN."], "reasons": ["unilateral"], "images": []}
    assert _summary(told) == "exam: findings, score 61\n  UNCERTAIN.\n  unilateral"


def test_read_refuses_two_studies_at_once(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    other = dcmread(study / "L CC.dcm")
    other.StudyInstanceUID, other.SOPInstanceUID = "1.2.3", "1.2.3.4"
    other.save_as(study / "other.dcm")
    assert "several studies" in fault_of(run("read", study, "--output", tmp_path / "results"))


def changed(file: Path, **changes: str) -> None:
    image = dcmread(file)
    for keyword, value in changes.items():
        setattr(image, keyword, value)
    image.save_as(file)


def test_read_refuses_images_of_two_patients_at_once(tmp_path: Path) -> None:
    study = a_study(tmp_path / "study")
    changed(study / "L CC.dcm", PatientID="ANOTHER")
    told = fault_of(run("read", study, "--output", tmp_path / "results"))
    assert "several Patient IDs" in told
    assert "ANOTHER" not in told


def test_read_says_that_images_state_different_patients(tmp_path: Path, quick: Path) -> None:
    study = a_study(tmp_path / "study")
    changed(study / "L CC.dcm", PatientName="OTHER^WOMAN", PatientBirthDate="19550505")
    result = run("read", study, "--output", tmp_path / "results", "--model", quick, "--device", "cpu")
    told = "The images state different patients (Patient's Name, Patient's Birth Date); check whose they are."
    assert told in result.stdout
    assert told in text_of(dcmread(tmp_path / "results" / "SR.dcm"))


def test_read_refuses_a_named_file_that_is_no_image(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("nothing")
    assert "notes.txt" in fault_of(run("read", text, "--output", tmp_path / "results"))


def test_read_refuses_an_empty_folder(tmp_path: Path) -> None:
    assert "no image" in fault_of(run("read", tmp_path, "--output", tmp_path / "results"))


def a_picture(folder: Path, name: str) -> Path:
    path = folder / name
    pixels = a_breast((320, 240), mass=(60, 150, 20))
    cv2.imwrite(str(path), np.round(65535 * pixels).astype(np.uint16))
    return path


@pytest.mark.parametrize(
    ("name", "stated", "view"),
    [
        ("case7_L_CC.png", [], "L CC"),
        ("LEFT_MLO.png", [], "L MLO"),
        ("case 7 lcc.png", [], "L CC"),
        ("picture.png", ["--view", "LMLO"], "L MLO"),
        ("R_CC.png", ["--view", "L CC"], "L CC"),
    ],
)
def test_read_reads_a_16_bit_png_and_takes_the_view_from_the_option_or_the_name(
    tmp_path: Path, quick: Path, name: str, stated: list[str], view: str
) -> None:
    picture, output = a_picture(tmp_path, name), tmp_path / "results"
    result = run("read", picture, "--output", output, "--json", "--model", quick, "--device", "cpu", *stated)
    assert result.exit_code == 0, result.output
    [told] = json.loads(result.stdout)
    [image] = told["images"]
    assert image["view"] == view
    assert ("unlike-training" in image["warning_codes"]) == (image["reference_distance"] > GatePolicy().unlike)
    mask = cv2.imread(str(output / f"{picture.stem}_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask is not None
    assert mask.shape == (320, 240)
    assert set(np.unique(mask)) <= {0, 255}
    assert bool(mask.any()) == bool(image["masses"])
    assert (output / f"{picture.stem}_overlay.png").is_file()


def test_read_names_what_it_writes_of_two_pictures_of_one_name_apart(tmp_path: Path, quick: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        a_picture(tmp_path / folder, "L_CC.png")
    result = run("read", tmp_path / "one", tmp_path / "two", "-o", tmp_path, "--json", "--model", quick)
    assert [told["pictures"] for told in json.loads(result.stdout)] == [
        ["L_CC_mask.png", "L_CC_overlay.png"],
        ["L_CC_2_mask.png", "L_CC_2_overlay.png"],
    ]
    assert all(
        (tmp_path / f"L_CC{number}_{kind}.png").is_file() for number in ("", "_2") for kind in ("mask", "overlay")
    )


@pytest.mark.parametrize(
    ("name", "stated", "hint"),
    [
        ("picture.png", [], "give --view"),
        ("accl.png", [], "give --view"),
        ("L_CC.png", ["--view", "ML"], "RCC, LCC, RMLO or LMLO"),
    ],
)
def test_read_refuses_a_picture_without_a_view_before_it_reads_anything(
    tmp_path: Path, name: str, stated: list[str], hint: str
) -> None:
    output = tmp_path / "results"
    result = run("read", a_picture(tmp_path, name), "--output", output, *stated)
    assert result.exit_code == 2
    assert hint in " ".join(result.stderr.replace("│", " ").split())
    assert not output.exists()


@pytest.mark.parametrize(("name", "check"), [("chest", Check.NO_OUTLINE), ("page of text", Check.NOISE)])
def test_read_lets_no_picture_past_the_gate(tmp_path: Path, quick: Path, name: str, check: Check) -> None:
    path = tmp_path / "L_CC.png"
    cv2.imwrite(str(path), np.round(65535 * challenges()[name].pixels.clip(0, 1)).astype(np.uint16))
    result = run("read", path, "--output", tmp_path / "results", "--json", "--model", quick, "--device", "cpu")
    [told] = json.loads(result.stdout)
    assert (told["status"], told["images"]) == ("not analysed", [])
    assert check.words in told["reasons"][0]
    assert [file.name for file in (tmp_path / "results").iterdir()] == ["findings.json"]


def test_read_says_why_a_picture_was_not_read(tmp_path: Path) -> None:
    path = tmp_path / "R_CC.png"
    cv2.imwrite(str(path), np.zeros((320, 240), np.uint16))
    result = run("read", path, "--output", tmp_path / "results", "--device", "cpu")
    assert result.exit_code == 0
    assert "not analysed" in result.output
    assert "No breast" in result.output
    assert "score" not in result.output


def test_predict_writes_every_image_of_a_manifest(tmp_path: Path, quick: Path) -> None:
    manifest, output = a_data_set(tmp_path, patients=3), tmp_path / "out.json"
    result = run("predict", manifest, "--output", output, "--model", quick, "--device", "cpu")
    assert result.exit_code == 0, result.output
    told = json.loads(output.read_text())
    assert [image["file"] for image in told["images"]] == [f"images/{number:03d}.png" for number in range(3)]
    assert all(len(detection["bbox"]) == 4 for detection in told["detections"])


def test_predict_takes_only_the_rows_asked_for(tmp_path: Path, quick: Path) -> None:
    manifest, output = a_data_set(tmp_path, patients=3), tmp_path / "out.json"
    run("predict", manifest, "--output", output, "--where", "laterality=R", "--model", quick, "--device", "cpu")
    assert [image["file"] for image in json.loads(output.read_text())["images"]] == ["images/001.png"]
    assert "no image is left" in fault_of(run("predict", manifest, "--output", output, "--where", "laterality=B"))


def test_evaluate_prints_figures_for_people_and_for_scripts(tmp_path: Path, quick: Path) -> None:
    manifest = a_data_set(tmp_path, patients=3)
    (tmp_path / "source.toml").write_text('source = "phantoms"\ncaveats = ["[Drawn] by hand."]', encoding="utf-8")
    card = tmp_path / "card"
    shown = run("evaluate", manifest, "--repeats", 5, "--model", quick, "--device", "cpu", "--card", card)
    assert shown.exit_code == 0, shown.output
    written = (card / "card.md").read_text()
    assert "| IoU >= 0.5 |" in written
    assert "On synthetic phantoms: 3 images" in written
    assert "- Of the images that it was measured on: Synthetic phantoms: an engineering check" in written
    assert "[Drawn] by hand." in written
    assert "an engineering check, which says nothing about patients.\n[Drawn] by hand.\n" in shown.output
    assert (card / "froc.png").stat().st_size > 1000
    assert "3 images of 3 patients, 2 masses, 0 images refused" in shown.output
    figures = json.loads(
        run("evaluate", manifest, "--repeats", 5, "--json", "--model", quick, "--device", "cpu").stdout
    )
    assert (figures["images"], figures["masses"]) == (3, 2)
    assert figures["caveats"][1:] == ["[Drawn] by hand."]
    further = (
        "--append",
        "--card",
        card,
        "--where",
        "laterality=R",
        "--repeats",
        5,
        "--model",
        quick,
        "--device",
        "cpu",
    )
    assert run("evaluate", manifest, *further).exit_code == 0
    assert "## Elsewhere: synthetic phantoms, laterality=R\n\n1 image of 1 patient" in (card / "card.md").read_text()


def test_evaluate_adds_to_no_card_that_is_not_there(tmp_path: Path, quick: Path) -> None:
    manifest, card = a_data_set(tmp_path, patients=3), tmp_path / "card"
    (tmp_path / "images" / "000.png").unlink()  # before an image is read
    assert "--card" in run("evaluate", manifest, "--model", quick, "--append").output
    assert "no card yet" in fault_of(run("evaluate", manifest, "--model", quick, "--append", "--card", card))


def test_evaluate_stops_at_an_image_that_is_not_there(tmp_path: Path, quick: Path) -> None:
    manifest = a_data_set(tmp_path, patients=3)
    (tmp_path / "images" / "000.png").unlink()
    assert "images/000.png" in fault_of(run("evaluate", manifest, "--model", quick, "--device", "cpu"))


def test_calibrate_refuses_a_set_that_the_model_was_not_trained_on_and_leaves_its_card(
    tmp_path: Path, quick: Path
) -> None:
    before = (quick / "card.toml").read_bytes()
    assert "these are not the images that" in fault_of(
        run("calibrate", quick, a_data_set(tmp_path, patients=3), "--device", "cpu")
    )
    assert (quick / "card.toml").read_bytes() == before


def test_train_refuses_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    result = run("train", "thesis-table-4/x", a_data_set(tmp_path), "--output", tmp_path / "model")
    assert result.exit_code == 1
    assert "thesis-table-5" in str(result.exception)
