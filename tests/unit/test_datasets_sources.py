"""Where images come from: licence and caveats, by the data set's form or by the sheet beside a manifest."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from ai.datasets.registry import open_dataset
from ai.datasets.sources import SOURCES, Source, read_sheet
from ai.errors import InvalidDataset
from node.cli import app
from tests.datasets import a_mask, an_inbreast, write_csv, write_png
from tests.drawn import a_breast, a_data_set


def a_sheet(folder: Path, content: str) -> Path:
    (folder / "source.toml").write_text(content, encoding="utf-8")
    return folder


def cli(*arguments: object) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)), env={"COLUMNS": "300"})


def test_every_source_says_its_licence_whom_to_name_and_what_to_beware_of() -> None:
    for source in SOURCES.values():
        assert "not stated" not in (source.name, source.licence, source.attribution)
        assert source.caveats
        assert all(caveat.endswith(".") for caveat in source.caveats)


def test_a_published_set_has_those_of_its_source(tmp_path: Path) -> None:
    assert open_dataset(an_inbreast(tmp_path)).source == SOURCES["inbreast"]


def test_a_sheet_names_a_source_and_adds_to_it(tmp_path: Path) -> None:
    assert read_sheet(tmp_path) == Source(tmp_path.name)
    a_sheet(tmp_path, 'source = "cbis-ddsm"\nname = "films"\ncaveats = ["Copies."]\n')
    cbis = SOURCES["cbis-ddsm"]
    assert read_sheet(tmp_path) == Source("films", cbis.licence, cbis.attribution, (*cbis.caveats, "Copies."))
    a_sheet(tmp_path, 'licence = "ours"\n')
    assert read_sheet(tmp_path) == Source(tmp_path.name, "ours")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('sorce = "cbis-ddsm"', r"source\.toml: sorce: there is no such key"),
        ('source = "ddsm"', r"source\.toml: source: .*'cbis-ddsm'"),
        ("caveats = 3", r"source\.toml: caveats: "),
        ("name = ", r"source\.toml: "),
    ],
)
def test_a_sheet_that_says_something_else_is_refused(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(InvalidDataset, match=message):
        read_sheet(a_sheet(tmp_path, content))


def test_what_to_beware_of_is_told_before_all_else(tmp_path: Path) -> None:
    manifest = a_data_set(tmp_path)
    lines = cli("data", manifest, "--quick").stdout.splitlines()
    assert lines[0] == f"{tmp_path.name}, licence: not stated"
    assert any(line.startswith("Say in source.toml beside the images") for line in lines)
    a_sheet(tmp_path, 'source = "cdd-cesm"')
    lines = cli("data", manifest, "--quick").stdout.splitlines()
    assert lines[0] == "CDD-CESM, licence: CC BY 4.0 (not confirmed)"
    assert lines[1].startswith("to be named: Khaled R")
    assert [line for line in lines if line.startswith("caveat: ")] == [
        f"caveat: {c}" for c in SOURCES["cdd-cesm"].caveats
    ]
    assert not any("Say in source.toml" in line for line in lines)


def test_squeezed_films_and_weak_labels_are_told(tmp_path: Path) -> None:
    square = np.round(255 * a_breast((120, 120))).astype(np.uint8)
    rows = []
    for number in range(3):
        picture = cv2.circle(square.copy(), (30, 40 + 20 * number), 9, (200 + 20 * number,), -1)
        write_png(tmp_path / f"{number}.png", picture if number else picture[:, :90])
        row = {"file": f"{number}.png", "patient_id": f"P{number}", "laterality": "L", "view": "CC", "malignant": "1"}
        rows.append({**row, "boxes_xywh": "[[20, 30, 18, 18]]"})
    told = " ".join(cli("data", write_csv(tmp_path / "manifest.csv", rows)).stdout.split())
    assert "note: 2 images are square files without a header: they are taken for films that were squeezed" in told
    assert "1.65 times as high as wide" in told
    assert "note: 3 images have boxes alone: the ellipses in them are weak labels" in told


def test_masks_are_found_by_path_before_name(tmp_path: Path) -> None:
    row = {"laterality": "L", "view": "CC", "boxes_xywh": "", "malignant": "", "patient_id": "P"}
    rows = [{"file": f"{folder}/R-CC.dcm", **row} for folder in ("a", "b")]
    write_png(tmp_path / "masks" / "a" / "R-CC.png", a_mask((10, 20, 6)))
    write_png(tmp_path / "masks" / "R-CC.png", a_mask((40, 50, 7)))
    records = open_dataset(write_csv(tmp_path / "manifest.csv", rows)).records
    assert [record.masks for record in records] == [("masks/a/R-CC.png",), ("masks/R-CC.png",)]
    assert [record.boxes for record in records] == [((10, 20, 6, 6),), ((40, 50, 7, 7),)]
