"""Tiny copies of published data sets, each in its own layout; tests break what they are about."""

import csv
import json
import plistlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tomlkit
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalMammographyXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

from ai.models import CARD, SHIPPED, Model, read_card
from tests.drawn import a_breast

Square = tuple[int, int, int]
"""x, y of the first pixel, and the side."""

SIZE = (160, 120)


def a_picture(*, right: bool = False) -> NDArray[np.uint8]:
    """Return a drawn mammogram, 8 bits."""
    return np.round(255 * a_breast(SIZE, right=right)).astype(np.uint8)


def a_mask(*squares: Square, shape: tuple[int, int] = SIZE) -> NDArray[np.uint8]:
    """Return white squares on black."""
    mask = np.zeros(shape, np.uint8)
    for x, y, side in squares:
        mask[y : y + side, x : x + side] = 255
    return mask


def write_png(path: Path, pixels: NDArray[Any]) -> Path:
    """Write a PNG or JPEG, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)
    return path


def write_dicom(path: Path, pixels: NDArray[np.uint8], **attributes: Any) -> Path:
    """Write an 8-bit DICOM image, with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = DigitalMammographyXRayImageStorageForPresentation
    image.SOPInstanceUID = generate_uid()
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation, image.PixelRepresentation = 1, "MONOCHROME2", 0
    image.BitsAllocated, image.BitsStored, image.HighBit = 8, 8, 7
    image.PixelData = pixels.tobytes()
    for keyword, value in attributes.items():
        setattr(image, keyword, value)
    image.save_as(path, enforce_file_format=True)
    return path


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]], delimiter: str = ",") -> Path:
    """Write a table with the columns of its first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def osirix(*regions: tuple[str, Iterable[tuple[float, float]]]) -> bytes:
    """Return OsiriX' XML of named outlines."""
    rois = [{"Name": name, "Point_px": [f"({x:f}, {y:f})" for x, y in points]} for name, points in regions]
    return plistlib.dumps({"Images": [{"ImageIndex": 0, "NumberOfROIs": len(rois), "ROIs": rois}]})


INBREAST_ROWS = (
    {"Laterality": "R", "View": "CC", "File Name": "100", "ACR": "2", "Bi-Rads": "4b"},
    {"Laterality": "R", "View": "MLO", "File Name": "101", "ACR": "2", "Bi-Rads": "4b"},
    {"Laterality": "L", "View": "CC", "File Name": "102", "ACR": "", "Bi-Rads": "1"},
    {"Laterality": "L", "View": "MLO", "File Name": "200", "ACR": "4", "Bi-Rads": "3"},
)


def an_inbreast(folder: Path) -> Path:
    """Write two patients: a mass and a cluster, a cluster alone, nothing, a mass of category 3."""
    rows = [{"Patient ID": "removed", "Acquisition date": "201001", **row} for row in INBREAST_ROWS]
    write_csv(folder / "INbreast.csv", [*rows, dict.fromkeys(rows[0], ""), {**rows[0], "File Name": ""}], ";")
    names = ("100_aaa_MG_R_CC_ANON", "101_aaa_MG_R_ML_ANON", "102_aaa_MG_L_CC_ANON", "200_bbb_MG_L_ML_ANON")
    for place, name in enumerate(names):
        picture = a_picture(right="_R_" in name)
        picture[80 + 9 * place : 110, 30:50] += 40
        write_dicom(folder / "AllDICOMs" / f"{name}.dcm", picture)
    square = [(10, 20), (30, 20), (30, 50), (10, 50)]
    cluster = ("Cluster", [(1, 2)])
    (folder / "AllXML").mkdir()
    (folder / "AllXML" / "100.xml").write_bytes(osirix(("Mass", square), cluster))
    (folder / "AllXML" / "101.xml").write_bytes(osirix(cluster))
    (folder / "AllXML" / "200.xml").write_bytes(osirix(("Mass ", [(5.5, 6), (9, 6), (9, 12.25)])))
    return folder


def a_cbis_row(case: str, number: int = 1, **changes: str) -> dict[str, str]:
    """Return the row of a mass; ``case`` is like ``Mass-Training_P_00001_LEFT_CC``."""
    _, _, patient, side, view = case.split("_")
    return {
        "patient_id": f"P_{patient}",
        "breast_density": "3",
        "left or right breast": side,
        "image view": view,
        "abnormality id": str(number),
        "abnormality type": "mass",
        "mass shape": "OVAL",
        "mass margins": "CIRCUMSCRIBED",
        "assessment": "4",
        "pathology": "MALIGNANT",
        "subtlety": "5",
        "image file path": f"{case}/1.2.3/4.5.6/000000.dcm",
        "cropped image file path": f"{case}_{number}/1.2.3/4.5.7/000000.dcm",
        # Cells of the published tables end with a new line.
        "ROI mask file path": f"{case}_{number}/1.2.3/4.5.7/000001.dcm\n",
        **changes,
    }


FIRST, SECOND, THIRD = (
    f"Mass-{c}" for c in ("Training_P_00001_LEFT_CC", "Training_P_00002_RIGHT_MLO", "Test_P_00003_LEFT_CC")
)


def a_cbis_ddsm(folder: Path) -> Path:
    """Write three images: one with two masses, one whose cropped image and mask are swapped, one of the test subset."""
    benign = {"pathology": "BENIGN_WITHOUT_CALLBACK", "subtlety": "2"}
    train = [
        a_cbis_row(FIRST),
        a_cbis_row(FIRST, 2, **benign),
        a_cbis_row(SECOND, pathology="BENIGN", breast_density="1"),
    ]
    write_csv(folder / "mass_case_description_train_set.csv", train)
    write_csv(folder / "mass_case_description_test_set.csv", [a_cbis_row(THIRD)])
    root = folder / "CBIS-DDSM"
    crop = a_picture()[20:60, 10:40].copy()
    for case in (FIRST, SECOND, THIRD):
        write_dicom(root / case / "1.2.3" / "4.5.6" / "000000.dcm", a_picture(right="RIGHT" in case))
    for case, square in ((f"{FIRST}_1", (10, 20, 30)), (f"{FIRST}_2", (50, 60, 8)), (f"{THIRD}_1", (40, 30, 9))):
        write_dicom(root / case / "1.2.3" / "4.5.7" / "000000.dcm", crop)
        write_dicom(root / case / "1.2.3" / "4.5.7" / "000001.dcm", a_mask(square))
    swapped = root / f"{SECOND}_1" / "08-29-2017-DDSM-NA-1" / "1.000000-ROI mask images-2"
    write_dicom(swapped / "1-1.dcm", a_mask((70, 80, 10)))
    write_dicom(swapped / "1-2.dcm", crop)
    return folder


def a_via_row(name: str, shape: Mapping[str, Any]) -> dict[str, str]:
    """Return a row of the VGG Image Annotator."""
    return {"#filename": name, "region_count": "1", "region_id": "0", "region_shape_attributes": json.dumps(shape)}


def a_finding(name: str, pathology: str, **changes: str) -> dict[str, str]:
    """Return a row of CDD-CESM's sheet of findings."""
    return {
        "Patient_ID": name.split("_", maxsplit=1)[0][1:],
        "Type": "DM",
        "Breast density (ACR)": "C",
        "Findings": "",
        "Tags": "",
        "Pathology Classification/ Follow up": pathology,
        "Image_name": name,
        **changes,
    }


CESM_REGIONS = (
    a_via_row("P1_L_DM_MLO .jpg", {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [2, 2, 8]}),
    a_via_row("P1_L_DM_MLO .jpg", {"name": "ellipse", "cx": 50, "cy": 40, "rx": 10, "ry": 6, "theta": 0}),
    a_via_row("P1_L_CM_MLO.jpg", {"name": "circle", "cx": 60, "cy": 60, "r": 8}),
    a_via_row("P2_R_DM_CC.jpg", {"name": "rect", "x": 3, "y": 4, "width": 20, "height": 10}),
    a_via_row("P3_R_DM_CC.jpg", {}),
)
CESM_FINDINGS = (
    a_finding("P1_L_DM_MLO", "Benign", Tags="benign mass, oval"),
    a_finding("P1_L_DM_MLO", "Malignant", Findings="Irregular mass"),
    a_finding("P1_L_CM_MLO", "Malignant", Type="CESM", Tags="mass enhancement", **{"Breast density (ACR)": "_"}),
    a_finding("P2_R_DM_CC", "Malignant", Tags="skin thickening"),
    a_finding("P3_R_DM_CC", "Normal"),
    a_finding("P3_R_DM_MLO2", "Benign", Tags="mass"),
)


def a_cdd_cesm(folder: Path) -> Path:
    """Write five images of three patients: masses drawn twice, no mass drawn, nothing, a mass that was not drawn."""
    write_csv(folder / "Radiology_hand_drawn_segmentations_v2.csv", CESM_REGIONS)
    write_csv(folder / "Radiology_manual_annotations.csv", CESM_FINDINGS)
    for place, name in enumerate(dict.fromkeys(row["Image_name"] for row in CESM_FINDINGS)):
        kind = "Subtracted images of CDD-CESM" if "_CM_" in name else "Low energy images of CDD-CESM"
        picture = a_picture(right="_R_" in name)
        picture[10 * place : 60, 20 + 9 * place : 60] //= 2
        write_png(folder / kind / f"{name}.jpg", picture)
    return folder


def some_folders(folder: Path) -> Path:
    """Write three patients: masks beside the image, annotations, neither; and an image For Processing."""
    headers: dict[str, dict[str, Any]] = {
        "demd1/1.2/1.dcm": {"ImageLaterality": "L", "ViewPosition": "CC", "PresentationIntentType": "FOR PRESENTATION"},
        "demd1/1.2/1_2.dcm": {"ImageLaterality": "L", "ViewPosition": "MLO"},
        "demd1/1.2/3.dcm": {"ImageLaterality": "L", "ViewPosition": "CC", "PresentationIntentType": "FOR PROCESSING"},
        "demd2/1.3/series/4.dcm": {"Laterality": "R", "ViewCodeSequence": [a_code("399368009")]},
        "demd3/1.4/5.dcm": {},
    }
    for place, (name, attributes) in enumerate(headers.items()):
        picture = a_picture(right=place > 2)
        picture[60 : 70 + 8 * place, 20 + 10 * place : 40 + 10 * place] //= 3
        write_dicom(folder / name, picture, **attributes)
    masks = folder / "demd1" / "1.2" / "masks"
    write_png(masks / "1_a.png", a_mask((10, 20, 6)))
    write_png(masks / "1_b.png", a_mask((40, 30, 5), (90, 90, 4)))
    write_png(masks / "1_2.png", a_mask((50, 50, 7)))
    annotations = {
        "licence": "by agreement",
        "images": {
            "demd2/1.3/series/4.dcm": {
                "masses": [
                    {"outline": [[1, 2], [11, 2], [11, 8]], "pathology": "BENIGN", "subtlety": 3},
                    {"outline": [[30, 30], [50, 30], [50, 60]], "pathology": "MALIGNANT", "subtlety": 5},
                ],
                "density": "B",
                "subset": "train",
            },
            "demd3/1.4/5.dcm": {"laterality": "R", "view": "CC"},
        },
    }
    (folder / "annotations.json").write_text(json.dumps(annotations), encoding="utf-8")
    return folder


def a_code(value: str) -> Dataset:
    """Return a code sequence's item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "view"
    return item


def card_of(folder: Path, split: dict[str, Any]) -> Model:
    """Return a model whose card says who was kept."""
    card = tomlkit.parse((SHIPPED / "mass-fpn-boxes" / CARD).read_text(encoding="utf-8")).unwrap()
    card["training"]["plan"]["split"] = split
    folder.mkdir(exist_ok=True)
    (folder / CARD).write_text(tomlkit.dumps(card), encoding="utf-8")
    return Model(folder, read_card(folder / CARD))
