"""Published data sets in their own layouts, whole and broken."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ai.datasets.manifest import read_manifest
from ai.datasets.records import Record
from ai.datasets.registry import KINDS, open_dataset
from ai.errors import InvalidDataset
from tests.builders import L_CC, L_MLO, R_CC, R_MLO
from tests.datasets import (
    CESM_FINDINGS,
    CESM_REGIONS,
    FIRST,
    INBREAST_ROWS,
    SECOND,
    THIRD,
    a_cbis_ddsm,
    a_cbis_row,
    a_cdd_cesm,
    a_finding,
    a_mask,
    a_picture,
    a_via_row,
    an_inbreast,
    osirix,
    some_folders,
    write_csv,
    write_dicom,
    write_png,
)
from tests.drawn import a_data_set

A_MASS = ("MALIGNANT",)


def a_collection(folder: Path) -> Path:
    a_data_set(folder / "one")
    some_folders(folder / "two")
    path = folder / "both.toml"
    path.write_text('[[sets]]\npath = "one"\n[[sets]]\npath = "two"\n', encoding="utf-8")
    return path


BUILDERS: dict[str, Callable[[Path], Path]] = {
    "manifest": a_data_set,
    "inbreast": an_inbreast,
    "cbis-ddsm": a_cbis_ddsm,
    "cdd-cesm": a_cdd_cesm,
    "folders": some_folders,
    "collection": a_collection,
}


def by_file(path: Path) -> dict[str, Record]:
    return {r.file: r for r in open_dataset(path).records}


@pytest.mark.parametrize("kind", KINDS)
def test_a_data_set_is_known_by_what_lies_there(tmp_path: Path, kind: str) -> None:
    path, seen = BUILDERS[kind](tmp_path), []
    opened = open_dataset(path, on_image=lambda: seen.append(1))
    assert opened == open_dataset(path, kind)
    assert len(seen) >= len(opened.records) >= 3
    for record in opened.records:
        assert (opened.folder / record.path).is_file()
        assert all((opened.folder / mask).is_file() for mask in record.masks)


def test_what_is_of_no_kind_is_refused_with_the_kinds_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"of no known kind.*inbreast: .*cbis-ddsm: .*cdd-cesm: .*folders: "):
        open_dataset(tmp_path)
    with pytest.raises(InvalidDataset, match=r"no kind 'coco'.*manifest: "):
        open_dataset(tmp_path, "coco")
    with pytest.raises(InvalidDataset, match="gone: is not there"):
        open_dataset(tmp_path / "gone")


def test_an_empty_set_is_refused(tmp_path: Path) -> None:
    manifest = a_data_set(tmp_path)
    with pytest.raises(InvalidDataset, match="no image is left"):
        open_dataset(manifest, where={"view": "MLO"})
    manifest.write_text("file,patient_id,laterality,view\n,,,\n", encoding="utf-8")
    with pytest.raises(InvalidDataset, match="holds no image"):
        open_dataset(manifest)


def test_columns_belong_to_manifests(tmp_path: Path) -> None:
    with pytest.raises(InvalidDataset, match=r"--where needs a manifest.*AllXML"):
        open_dataset(an_inbreast(tmp_path), where={"view": "CC"})


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    manifest = write_csv(
        tmp_path / "manifest.csv",
        [{"file": "a.png", "patient_id": p, "laterality": "L", "view": "CC"} for p in ("P1", "P2")],
    )
    with pytest.raises(InvalidDataset, match=r"more than one image is named a\.png"):
        open_dataset(manifest)


def test_a_manifest_has_columns_for_what_is_known_of_an_image(tmp_path: Path) -> None:
    row = {"file": "a.jpg", "patient": "P1", "side": "L", "view": "MLO", "boxes_xywh": "[[1, 2, 3, 4]]"}
    rows = [
        {**row, "density": "d", "study": "S1", "split": "val", "pathology": "Malignant", "subtlety": "4"}
        | {"margins": "circumscribed-ILL_DEFINED"},
        {**row, "file": "b.jpg", "density": "_", "study": "", "split": "", "pathology": "Normal", "boxes_xywh": "[]"},
    ]
    first, second = read_manifest(write_csv(tmp_path / "manifest.csv", rows))
    assert first == Record(
        "a.jpg",
        "P1",
        L_MLO,
        ((1, 2, 3, 4),),
        malignant=True,
        pathologies=A_MASS,
        density=4,
        study="S1",
        subtlety=(4,),
        margins=("ILL_DEFINED",),
        subset="val",
    )
    assert second == Record("b.jpg", "P1", L_MLO, malignant=False)


def test_a_manifest_may_have_been_through_a_program_of_tables(tmp_path: Path) -> None:
    row = {"file": "a.jpg", "patient": "P1", "side": "L", "view": "MLO", "boxes_xywh": "[[1, 2, 3, 4], [9, 9, 3, 4]]"}
    rows = [
        {**row, "density": "3.0", "malignant": "1.0", "pathologies": "BENIGN|MALIGNANT", "subtlety": "2.0|5.0"},
        {**row, "file": "b.jpg", "density": "nan", "malignant": "", "boxes_xywh": ""},
    ]
    first, second = read_manifest(write_csv(tmp_path / "manifest.csv", rows, ";"))
    assert (first.density, first.malignant, first.pathologies, first.subtlety) == (
        3,
        True,
        ("BENIGN", "MALIGNANT"),
        (2, 5),
    )
    assert (second.density, second.malignant, second.labelled) == (None, None, False)


@pytest.mark.parametrize(
    ("pathology", "malignant"),
    [("Benign| Malignant", True), ("BENIGN_WITHOUT_CALLBACK|benign", False), ("", None), ("Benign|", None)],
)
def test_the_pathologies_of_an_image_tell_its_malignancy(
    tmp_path: Path, pathology: str, *, malignant: bool | None
) -> None:
    row = {"file": "a.jpg", "patient": "P1", "side": "L", "view": "MLO", "pathology": pathology}
    (record,) = read_manifest(write_csv(tmp_path / "manifest.csv", [row]))
    assert record.malignant is malignant


def test_words_of_masses_may_stand_apart_and_say_nothing_where_one_is_missing(tmp_path: Path) -> None:
    row = {"file": "a.jpg", "patient_id": "P1", "laterality": "L", "view": "CC", "boxes_xywh": "[]"}
    words = {
        "malignant": "",
        "pathologies": "benign | MALIGNANT",
        "subtlety": "1 | 5",
        "margins": "SPICULATED | OBSCURED",
    }
    missing = {"file": "b.jpg", "malignant": "1", "pathologies": "BENIGN|", "subtlety": "|5", "margins": "OBSCURED| "}
    first, second = read_manifest(write_csv(tmp_path / "manifest.csv", [{**row, **words}, {**row, **missing}]))
    assert (first.pathologies, first.agreed_malignancy) == (("BENIGN", "MALIGNANT"), None)
    assert (first.subtlety, first.margins) == ((1, 5), ("SPICULATED", "OBSCURED"))
    assert (second.pathologies, second.subtlety, second.margins) == ((), (), ())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pathologies": "carcinoma"}, "pathologies 'CARCINOMA': none of NORMAL, BENIGN"),
        ({"malignant": "1", "pathologies": "BENIGN|BENIGN"}, r"malignant is 1, and the pathologies are BENIGN\|BENIGN"),
        ({"malignant": "0", "pathology": "Malignant"}, "malignant is 0, and the pathologies are MALIGNANT"),
        ({"density": "5"}, "density '5'"),
        ({"density": "BC"}, "density 'BC'"),
        ({"pathology": "odd"}, "pathology 'ODD': none of NORMAL, BENIGN"),
        ({"subtlety": "x"}, "'x'"),
        ({"boxes_xywh": "[[1, 2, 0, 4]]"}, "has no area"),
        ({"boxes_xywh": "[[1, 2, x, 4]]"}, r"boxes '\[\[1, 2, x, 4\]\]': no JSON list of \[x, y, width, height\]"),
        ({"view": "XCCL"}, "view 'XCCL': none of CC, MLO"),
        ({"laterality": "left"}, "laterality 'left': none of L, R"),
        ({"patient_id": ""}, "no value for patient_id or patient"),
    ],
)
def test_a_manifest_value_that_says_nothing_is_refused(tmp_path: Path, change: dict[str, str], message: str) -> None:
    row = {"file": "a.jpg", "patient_id": "P1", "laterality": "L", "view": "MLO"}
    with pytest.raises(InvalidDataset, match=rf"manifest\.csv, line 2: .*{message}"):
        read_manifest(write_csv(tmp_path / "manifest.csv", [{**row, **change}]))


def test_boxes_of_a_manifest_are_drawn_around_the_regions_of_its_masks(tmp_path: Path) -> None:
    row = {"file": "a.jpg", "patient_id": "P1", "laterality": "L", "view": "CC"}
    write_csv(tmp_path / "manifest.csv", [row])
    write_png(tmp_path / "images" / "a.jpg", a_picture())
    write_png(tmp_path / "masks" / "a.png", a_mask((40, 50, 6), (10, 20, 5), (100, 100, 4)))  # the last is a speck
    (record,) = open_dataset(tmp_path).records
    assert list(record.boxes) == [(10, 20, 5, 5), (40, 50, 6, 6)]
    assert (record.masks, record.path, record.labelled) == (("masks/a.png",), Path("images/a.jpg"), True)


def test_inbreast_is_read(tmp_path: Path) -> None:
    mass, cluster, nothing, other = open_dataset(an_inbreast(tmp_path)).records
    outline = ((10.0, 20.0), (30.0, 20.0), (30.0, 50.0), (10.0, 50.0))
    assert mass == Record(
        "AllDICOMs/100_aaa_MG_R_CC_ANON.dcm",
        "aaa",
        R_CC,
        ((10, 20, 20, 30),),
        malignant=True,
        outlines=(outline,),
        density=2,
        study="aaa_201001",
    )
    assert (cluster.view, cluster.boxes, cluster.malignant, cluster.labelled) == (R_MLO, (), None, True)
    assert (nothing.malignant, nothing.density, nothing.labelled) == (False, None, True)
    assert (other.patient_id, other.view, other.boxes) == ("bbb", L_MLO, ((5.5, 6, 3.5, 6.25),))
    assert other.malignant is None


def test_a_mass_of_inbreast_that_encloses_nothing_leaves_its_image_unlabelled(tmp_path: Path) -> None:
    an_inbreast(tmp_path)
    (tmp_path / "AllXML" / "102.xml").write_bytes(osirix(("Mass", [(1, 2), (3, 4)])))
    assert [r.labelled for r in open_dataset(tmp_path).records] == [True, True, False, True]


def test_an_image_of_inbreast_that_the_table_does_not_list_or_of_another_view_is_left_out_and_told(
    tmp_path: Path,
) -> None:
    write_dicom(an_inbreast(tmp_path) / "AllDICOMs" / "300_ccc_MG_L_CC_ANON.dcm", a_picture())
    rows = [*INBREAST_ROWS[:3], {**INBREAST_ROWS[3], "View": "FB"}]
    write_csv(tmp_path / "INbreast.csv", rows, ";")
    opened = open_dataset(tmp_path)
    assert len(opened.records) == 3
    assert opened.notes == (
        "left out 1 image that INbreast.csv does not list: 300_ccc_MG_L_CC_ANON.dcm",
        "left out 1 image of other views than CC and MLO: 200_bbb_MG_L_ML_ANON.dcm",
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"File Name": "999"}, "there is no AllDICOMs/999_"),
        ({"ACR": "9"}, "density '9'"),
        ({"Bi-Rads": "0"}, "Bi-Rads '0': none of 1, 2, 3, 4, 5, 6"),
        ({"View": ""}, "no value for View"),
    ],
)
def test_a_row_of_inbreast_that_cannot_be_read_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    an_inbreast(tmp_path)
    write_csv(tmp_path / "INbreast.csv", [INBREAST_ROWS[0], {**INBREAST_ROWS[1], **change}], ";")
    with pytest.raises(InvalidDataset, match=rf"INbreast\.csv, line 3: .*({message})"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("xml", [b"<plist>", b"<plist><dict/></plist>", osirix(("Mass", [])).replace(b"Mass", b"&")])
def test_a_damaged_outline_of_inbreast_is_named(tmp_path: Path, xml: bytes) -> None:
    (an_inbreast(tmp_path) / "AllXML" / "100.xml").write_bytes(xml)
    with pytest.raises(InvalidDataset, match=r"100\.xml: is no list"):
        open_dataset(tmp_path)


def test_inbreast_without_its_table_says_what_to_do(tmp_path: Path) -> None:
    (an_inbreast(tmp_path) / "INbreast.csv").unlink()
    with pytest.raises(InvalidDataset, match=r"save INbreast\.xls as CSV"):
        open_dataset(tmp_path)


def test_cbis_ddsm_is_read(tmp_path: Path) -> None:
    both, swapped, test = open_dataset(a_cbis_ddsm(tmp_path)).records
    folder = f"CBIS-DDSM/{FIRST}"
    assert both == Record(
        f"{folder}/1.2.3/4.5.6/000000.dcm",
        "P_00001",
        L_CC,
        ((10, 20, 30, 30), (50, 60, 8, 8)),
        malignant=True,
        pathologies=("MALIGNANT", "BENIGN_WITHOUT_CALLBACK"),
        masks=(f"{folder}_1/1.2.3/4.5.7/000001.dcm", f"{folder}_2/1.2.3/4.5.7/000001.dcm"),
        density=3,
        subtlety=(5, 2),
        margins=("CIRCUMSCRIBED", "CIRCUMSCRIBED"),
        subset="train",
    )
    assert (swapped.view, swapped.boxes, swapped.malignant, swapped.density) == (R_MLO, ((70, 80, 10, 10),), False, 1)
    assert swapped.masks[0].endswith("1-1.dcm")
    assert (test.subset, test.patient_id) == ("test", "P_00003")


def test_a_mask_of_another_size_is_refused_or_its_image_left_out(tmp_path: Path) -> None:
    root = a_cbis_ddsm(tmp_path) / "CBIS-DDSM"
    write_dicom(root / f"{FIRST}_2" / "1.2.3" / "4.5.7" / "000001.dcm", a_mask((5, 5, 9), shape=(150, 120)))
    both_sizes = r"000001\.dcm has 120 x 150 pixels, its image .*000000\.dcm 120 x 160.*--leave-out-mismatched"
    with pytest.raises(InvalidDataset, match=both_sizes):
        open_dataset(tmp_path)
    opened = open_dataset(tmp_path, leave_out_mismatched=True)
    assert [r.patient_id for r in opened.records] == ["P_00002", "P_00003"]
    assert opened.notes == (f"left out 1 image with a mask of another size: {FIRST}",)


def test_a_picture_as_large_as_the_image_is_told_from_the_mask_by_its_description_or_the_table(tmp_path: Path) -> None:
    mask = a_cbis_ddsm(tmp_path) / "CBIS-DDSM" / f"{THIRD}_1" / "1.2.3" / "4.5.7"
    write_dicom(mask / "000000.dcm", a_picture())
    (record,) = (r for r in open_dataset(tmp_path).records if r.subset == "test")
    assert record.masks[0].endswith("000001.dcm")
    write_dicom(mask / "000000.dcm", a_mask((7, 8, 9)), SeriesDescription="ROI mask images")
    (record,) = (r for r in open_dataset(tmp_path).records if r.subset == "test")
    assert list(record.boxes) == [(7, 8, 9, 9)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pathology": "UNKNOWN"}, "pathology 'UNKNOWN'"),
        ({"subtlety": ""}, "no value for subtlety"),
        ({"ROI mask file path": "Mass-Test_P_00003_LEFT_CC_9/000001.dcm"}, "no folder Mass-Test_P_00003_LEFT_CC_9"),
        ({"image file path": "Mass-Test_P_00009_LEFT_CC/000000.dcm"}, "P_00009_LEFT_CC holds 0 DICOM files"),
        ({"left or right breast": "BOTH"}, "breast 'BOTH': none of LEFT, RIGHT"),
        ({"image view": "ML"}, "'ML'"),
    ],
)
def test_a_row_of_cbis_ddsm_that_cannot_be_read_is_named(tmp_path: Path, change: dict[str, str], message: str) -> None:
    a_cbis_ddsm(tmp_path)
    write_csv(tmp_path / "mass_case_description_test_set.csv", [{**a_cbis_row(THIRD), **change}])
    with pytest.raises(InvalidDataset, match=rf"mass_case_description_test_set\.csv, line \d: .*{message}"):
        open_dataset(tmp_path)


def test_a_mask_of_cbis_ddsm_without_a_mass_or_that_is_no_dicom_is_named(tmp_path: Path) -> None:
    mask = a_cbis_ddsm(tmp_path) / "CBIS-DDSM" / f"{SECOND}_1"
    (path,) = mask.rglob("1-1.dcm")
    write_dicom(path, a_mask())
    with pytest.raises(InvalidDataset, match=r"1-1\.dcm shows no mass"):
        open_dataset(tmp_path)
    path.write_bytes(b"no DICOM")
    with pytest.raises(InvalidDataset, match=r"1-1\.dcm: is no DICOM image"):
        open_dataset(tmp_path)


def test_cdd_cesm_is_read(tmp_path: Path) -> None:
    records = by_file(a_cdd_cesm(tmp_path))
    low, subtracted = "Low energy images of CDD-CESM", "Subtracted images of CDD-CESM"
    first = records[f"{low}/P1_L_DM_MLO.jpg"]
    assert (first.patient_id, first.view, first.malignant, first.pathologies) == ("P1", L_MLO, True, A_MASS)
    assert list(first.boxes[0]) == [1, 2, 8, 6]
    assert first.boxes[1] == pytest.approx((40, 34, 20, 12))
    assert (first.subset, first.density, first.labelled) == ("DM", 3, True)
    second = records[f"{subtracted}/P1_L_CM_MLO.jpg"]
    assert second.boxes[0] == pytest.approx((52, 52, 16, 16))
    assert (second.subset, second.density) == ("CM", None)
    other_finding = records[f"{low}/P2_R_DM_CC.jpg"]
    assert (other_finding.boxes, other_finding.malignant, other_finding.labelled) == ((), None, False)
    nothing = records[f"{low}/P3_R_DM_CC.jpg"]
    assert (nothing.boxes, nothing.malignant, nothing.labelled) == ((), False, True)
    not_drawn = records[f"{low}/P3_R_DM_MLO2.jpg"]
    assert (not_drawn.view, not_drawn.labelled) == (R_MLO, False)


def test_images_and_findings_of_cdd_cesm_that_have_no_counterpart_are_told(tmp_path: Path) -> None:
    (gone,) = a_cdd_cesm(tmp_path).rglob("P3_R_DM_CC.jpg")
    gone.rename(gone.with_name("P4_R_DM_CC.jpg"))
    opened = open_dataset(tmp_path)
    assert len(opened.records) == 4
    assert opened.notes == (
        "1 image of the findings is not there: P3_R_DM_CC",
        "left out 1 image without findings: P4_R_DM_CC",
    )


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ({"name": "cloud"}, "the shape 'cloud' is not known"),
        ({"name": "circle", "cx": 1, "cy": 2}, "no value for r"),
        ({"name": "polygon", "all_points_x": [1, 2, 3], "all_points_y": [1, 2]}, "3 x and 2 y"),
    ],
)
def test_a_region_of_cdd_cesm_that_cannot_be_read_is_named(
    tmp_path: Path, shape: dict[str, object], message: str
) -> None:
    table = a_cdd_cesm(tmp_path) / "Radiology_hand_drawn_segmentations_v2.csv"
    write_csv(table, [*CESM_REGIONS, a_via_row("P1_L_DM_MLO.jpg", shape)])
    with pytest.raises(InvalidDataset, match=rf"{table.name}, line 7: .*{message}"):
        open_dataset(tmp_path)


def test_a_point_encloses_nothing_so_its_image_is_not_labelled(tmp_path: Path) -> None:
    table = a_cdd_cesm(tmp_path) / "Radiology_hand_drawn_segmentations_v2.csv"
    write_csv(table, [*CESM_REGIONS, a_via_row("P1_L_CM_MLO.jpg", {"name": "point", "cx": 1, "cy": 2})])
    assert next(r.file for r in open_dataset(tmp_path).records if not r.labelled).endswith("P1_L_CM_MLO.jpg")


def test_the_sheet_of_cdd_cesm_is_wanted_as_csv(tmp_path: Path) -> None:
    table = a_cdd_cesm(tmp_path) / "Radiology_manual_annotations.csv"
    table.rename(table.with_suffix(".xlsx"))
    with pytest.raises(InvalidDataset, match=r"save the sheet .* of Radiology_manual_annotations\.xlsx as CSV"):
        open_dataset(tmp_path)
    write_csv(table, [*CESM_FINDINGS, a_finding("P1_L_DM_CC", "Perhaps")])
    with pytest.raises(InvalidDataset, match=r"line 8: .*'PERHAPS'"):
        open_dataset(tmp_path)


def test_folders_are_read(tmp_path: Path) -> None:
    opened = open_dataset(some_folders(tmp_path))
    first, second, annotated, unknown = opened.records
    assert first == Record(
        "demd1/1.2/1.dcm",
        "demd1",
        L_CC,
        ((10, 20, 6, 6), (40, 30, 5, 5)),
        masks=("demd1/1.2/masks/1_a.png", "demd1/1.2/masks/1_b.png"),
        study="1.2",
    )
    assert (second.view, second.masks) == (L_MLO, ("demd1/1.2/masks/1_2.png",))
    assert annotated == Record(
        "demd2/1.3/series/4.dcm",
        "demd2",
        R_MLO,
        ((1, 2, 10, 6), (30, 30, 20, 30)),
        malignant=True,
        pathologies=("BENIGN", "MALIGNANT"),
        outlines=(((1, 2), (11, 2), (11, 8)), ((30, 30), (50, 30), (50, 60))),
        density=2,
        study="1.3",
        subtlety=(3, 5),
        subset="train",
    )
    assert (unknown.view, unknown.labelled) == (R_CC, False)
    assert opened.source.licence == "by agreement"
    assert opened.notes == ("left out 1 image that is no CC or MLO For Presentation: demd1/1.2/3.dcm",)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"mases": []}, r"images\.demd3/1\.4/5\.dcm\.mases: there is no such key"),
        ({"masses": [{"pathology": "BENIGN"}]}, "a mass needs a box or an outline"),
        ({"masses": [{"box": [1, 2, 0, 4]}]}, "a box needs an area"),
        ({"masses": [{"outline": [[1, 2], [3, 4]]}]}, "at least 3 items"),
        ({"laterality": "LEFT"}, "laterality: Input should be 'L' or 'R'"),
        ({"laterality": "R", "view": "CC", "density": "thin"}, "5.dcm: density 'thin'"),
        (
            {"laterality": "R", "view": "CC", "masses": [{"box": [1, 2, 3, 4]}, {"outline": [[1, 2], [3, 4], [1, 4]]}]},
            "1 of 2 masses have an outline",
        ),
    ],
)
def test_an_annotation_that_says_nothing_is_named(tmp_path: Path, annotation: dict[str, object], message: str) -> None:
    file = some_folders(tmp_path) / "annotations.json"
    file.write_text(json.dumps({"images": {"demd3/1.4/5.dcm": annotation}}), encoding="utf-8")
    with pytest.raises(InvalidDataset, match=message):
        open_dataset(tmp_path)


def test_an_annotation_of_no_image_or_beside_masks_is_refused(tmp_path: Path) -> None:
    file = some_folders(tmp_path) / "annotations.json"
    file.write_text(json.dumps({"images": {"demd9/1/1.dcm": {}}}), encoding="utf-8")
    with pytest.raises(InvalidDataset, match=r"annotations\.json: 1 image is not there: demd9"):
        open_dataset(tmp_path)
    twice = {"demd1/1.2/1.dcm": {"masses": [{"box": [1, 2, 3, 4]}]}}
    file.write_text(json.dumps({"images": twice}), encoding="utf-8")
    with pytest.raises(InvalidDataset, match="both masks and annotated masses"):
        open_dataset(tmp_path)
    file.write_text("{", encoding="utf-8")
    with pytest.raises(InvalidDataset, match=r"annotations\.json: .*JSON"):
        open_dataset(tmp_path)


def test_a_box_and_no_pathology_say_that_there_is_a_mass_and_no_more(tmp_path: Path) -> None:
    file = some_folders(tmp_path) / "annotations.json"
    images = {
        "demd2/1.3/series/4.dcm": {"masses": [{"box": [1, 2, 3, 4]}]},
        "demd3/1.4/5.dcm": {"laterality": "R", "view": "CC", "masses": []},
    }
    file.write_text(json.dumps({"images": images}), encoding="utf-8")
    *_, box, nothing = open_dataset(tmp_path).records
    assert (box.boxes, box.malignant, box.labelled) == (((1, 2, 3, 4),), None, True)
    assert (nothing.boxes, nothing.malignant, nothing.labelled) == ((), None, True)


def test_a_file_that_is_no_dicom_is_named(tmp_path: Path) -> None:
    (some_folders(tmp_path) / "demd1" / "1.2" / "1.dcm").write_bytes(np.arange(200, dtype=np.uint8).tobytes())
    with pytest.raises(InvalidDataset, match=re.escape("1.dcm: is no DICOM file")):
        open_dataset(tmp_path)
