"""The rows of TID 4000 and TID 1500 and of the templates below them that our reports may use, from PS3.16 2026a.

Context groups are pydicom's, so that a code which this repository has wrong is not right here. Templates that our
reports never invoke are named by the rows that include them and have no table of their own.
"""

from collections.abc import Mapping
from types import MappingProxyType

from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from tests.templates import INCLUDE, NO_CODE, Check, Condition, Place, Row, Template, children, code_of, resolve

ACQ, MOD, OBS = "HAS ACQ CONTEXT", "HAS CONCEPT MOD", "HAS OBS CONTEXT"
HAS, CONTAINS, INFERRED, SELECTED = "HAS PROPERTIES", "CONTAINS", "INFERRED FROM", "SELECTED FROM"


def dcm(value: str, meaning: str = "") -> tuple[Code, ...]:
    return (Code(value, "DCM", meaning),)


def sct(value: str, meaning: str = "") -> tuple[Code, ...]:
    return (Code(value, "SCT", meaning),)


def ucum(*values: str) -> tuple[Code, ...]:
    return tuple(Code(value, "UCUM", value) for value in values)


def cid(*numbers: int) -> tuple[Code, ...]:
    """Return the codes of context groups."""
    groups = [getattr(codes, f"cid{number}") for number in numbers]
    return tuple(getattr(group, name) for group in groups for name in group.dir())


# Conditions


def value(place: Place) -> Code:
    return code_of(place.parent, "ConceptCodeSequence")


def unless(*excluded: str) -> Condition:
    """Shall be present unless the parent has one of these values."""
    return lambda place: value(place).value not in excluded


def only_if(*wanted: Code) -> Condition:
    """Shall be present if the parent has one of these values, and only then."""
    return lambda place: value(place) in wanted


def may_if(*wanted: Code) -> Condition:
    """May be present only if the parent has one of these values."""
    return lambda place: None if value(place) in wanted else False


def one_of(*rows: str) -> Condition:
    """At least one of these rows shall be present."""
    return lambda place: None if any(place.counts[row] for row in rows) else True


def xor(*others: str) -> Condition:
    """Shall be present if and only if none of the other rows is."""
    return lambda place: not any(place.counts[row] for row in others)


def if_absent(*others: str) -> Condition:
    """Shall be present if none of the other rows is."""
    return lambda place: None if any(place.counts[row] for row in others) else True


def two_of(*rows: str) -> Condition:
    """At least two items of these rows shall be present."""
    return lambda place: True if sum(place.counts[row] for row in rows) < 2 else None


def in_header(*keywords: str) -> Condition:
    """Shall be present if one of these attributes is in the image; may be derived otherwise."""

    def condition(place: Place) -> bool | None:
        images = [item for item in place.parents if item.get("ValueType") == "IMAGE"]
        header = place.headers.get(str(images[-1].ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
        places = [header or Dataset(), *((header or Dataset()).get("ViewCodeSequence") or ())]
        return True if any(each.get(keyword) for each in places for keyword in keywords) else None

    return condition


def findings_told(place: Place) -> bool:
    """Single Image Findings or Composite Features are reported, as the summary says (CID 6047)."""
    return value(place) in (*dcm("111242"), *dcm("111244"))


def modality(*wanted: str) -> Condition:
    """If and only if the Modality row has one of these values."""

    def condition(place: Place) -> bool:
        given = [
            code_of(item, "ConceptCodeSequence")
            for item in children(place.parent)
            if code_of(item, "ConceptNameCodeSequence") in dcm("121139")
        ]
        return bool(given) and given[0].value in wanted

    return condition


def observer(kind: str | None) -> Condition:
    """If the Observer Type is of this kind; None stands for a row of that name, which a device needs."""

    def condition(place: Place) -> bool:
        given = [
            code_of(item, "ConceptCodeSequence")
            for item in children(place.parent)
            if code_of(item, "ConceptNameCodeSequence") in dcm("121005")
        ]
        told = given[0].value if given else "121006"
        return bool(place.counts["3"]) if kind is None else told == kind

    return condition


# Checks


def in_library(item: Dataset, place: Place) -> str | None:
    """Shall reference an IMAGE in the Image Library."""
    path = resolve(place.document, item.ReferencedContentItemIdentifier)
    library = code_of(path[-2], "ConceptNameCodeSequence") if len(path) > 1 else NO_CODE
    return None if library in dcm("111028") else "refers to no image of the Image Library"


def as_the_centre(item: Dataset, place: Place) -> str | None:
    """Shall reference the same image as the Center."""
    wrong = in_library(item, place)
    finding = place.parents[-2]
    centres = [each for each in children(finding) if code_of(each, "ConceptNameCodeSequence") in dcm("111010")]
    wanted = [each.get("ReferencedContentItemIdentifier") for centre in centres for each in children(centre)]
    return wrong or (None if item.ReferencedContentItemIdentifier in wanted else "is not the Center's image")


def one_point(item: Dataset, place: Place) -> str | None:
    return None if len(item.get("GraphicData") or ()) == 2 else "is not one point"


def between(lowest: float, highest: float) -> Check:
    def check(item: Dataset, place: Place) -> str | None:
        measured = item.get("MeasuredValueSequence") or (Dataset(),)
        number = measured[0].get("NumericValue")
        return None if number is not None and lowest <= number <= highest else f"is not {lowest:g} to {highest:g}"

    return check


def above_zero(item: Dataset, place: Place) -> str | None:
    measured = item.get("MeasuredValueSequence") or (Dataset(),)
    return None if (measured[0].get("NumericValue") or 0) > 0 else "is not above zero"


def a_language(item: Dataset, place: Place) -> str | None:
    """CID 5000 holds the language tags of RFC 5646."""
    code = code_of(item, "ConceptCodeSequence")
    return None if code.scheme_designator == "RFC5646" else "is no language tag"


PERCENT = ucum("%")
MILLIMETRE = ucum("mm")
DENSITY = Code("129793001", "SCT", "Mammography breast density")
CLUSTER = Code("129769006", "SCT", "Calcification Cluster")
CALCIFICATION = Code("129770007", "SCT", "Individual Calcification")
COMPOSITION = Code("129715009", "SCT", "Breast composition")
NIPPLE = Code("24142002", "SCT", "Nipple")
GEOMETRY, QUALITY, NON_LESION, REGION = (*dcm("111100"), *dcm("111101"), *dcm("111102"), *dcm("111099"))
MASSES = (Code("129788004", "SCT", "Mammographic breast mass"), DENSITY)
SUCCEEDED, PARTIALLY, FAILED = (*dcm("111222"), *dcm("111223"), *dcm("111224"))
TEMPORALLY = dcm("111153")
LATERALITY, SHAPE, MARGIN, METHOD, SITE, TOPOGRAPHY = (
    sct("272741003", "Laterality"),
    sct("107644003", "Shape"),
    sct("112233002", "Margin"),
    sct("370129005", "Measurement Method"),
    sct("363698007", "Finding Site"),
    sct("106233006", "Topographical modifier"),
)
INTENT = dcm("111056", "Rendering Intent")
DERIVATION = dcm("121401", "Derivation")
CALCULATION = dcm("112034", "Calculation Description")
REGION_OF_IMAGE = dcm("111030", "Image Region")
NOT_MULTIPOINT = ("POINT", "POLYLINE", "CIRCLE", "ELLIPSE")


def performed(tid: str, title: str, name: tuple[Code, ...], values: tuple[Code, ...]) -> Template:
    """Return TID 4017 or 4018. In a Mammography CAD SR row 7 is never used: the Image Library is mandatory."""
    some = one_of("3", "4", "5", "6")
    return Template(
        tid,
        title,
        (
            Row("1", 0, "", "CODE", name, "1", "M", values),
            Row("2", 1, HAS, INCLUDE, "4019", "1", "M"),
            Row("3", 1, HAS, "IMAGE", None, "1-n", "MC", condition=some),
            Row("4", 1, HAS, "IMAGE", None, "1-n", "MC", condition=some, check=in_library, by_reference=True),
            Row("5", 1, HAS, "UIDREF", dcm("112002", "Series Instance UID"), "1-n", "MC", condition=some),
            Row("6", 1, HAS, "SCOORD", REGION_OF_IMAGE, "1-n", "MC", condition=some),
            Row("8", 2, SELECTED, "IMAGE", None, "1", "M", check=in_library, by_reference=True),
            Row("9", 1, "", INCLUDE, "4023", "1", "U"),
        ),
    )


def gathered(tid: str, title: str, good: tuple[Code, ...], bad: tuple[Code, ...], each: str) -> Template:
    """Return TID 4015 or 4016."""
    return Template(
        tid,
        title,
        (
            Row("1", 0, "", "CONTAINER", good, "1", "MC", condition=only_if(SUCCEEDED, PARTIALLY)),
            Row("2", 1, CONTAINS, INCLUDE, each, "1-n", "M"),
            Row("3", 0, "", "CONTAINER", bad, "1", "MC", condition=only_if(FAILED, PARTIALLY)),
            Row("4", 1, CONTAINS, INCLUDE, each, "1-n", "M"),
        ),
    )


def measured(tid: str, title: str, rows: tuple[Row, ...]) -> Template:
    return Template(tid, title, rows, extensible=True)


CAD = (
    Template(
        "4000",
        "Mammography CAD Document Root",
        (
            Row("1", 0, "", "CONTAINER", dcm("111036", "Mammography CAD Report"), "1", "M"),
            Row("2", 1, MOD, INCLUDE, "1204", "1", "M"),
            Row("3", 1, CONTAINS, "CONTAINER", dcm("111028", "Image Library"), "1", "M"),
            Row("4", 2, CONTAINS, INCLUDE, "4020", "1-n", "M"),
            Row("5", 1, CONTAINS, INCLUDE, "4001", "1", "M"),
            Row("6", 1, CONTAINS, "CODE", dcm("111064", "Summary of Detections"), "1", "M", cid(6042)),
            Row("7", 2, INFERRED, INCLUDE, "4015", "1", "MC", condition=unless("111225")),
            Row("8", 1, CONTAINS, "CODE", dcm("111065", "Summary of Analyses"), "1", "M", cid(6042)),
            Row("9", 2, INFERRED, INCLUDE, "4016", "1", "MC", condition=unless("111225")),
        ),
    ),
    Template(
        "4001",
        "Mammography CAD Overall Impression/Recommendation",
        (
            Row("1", 0, "", "CODE", dcm("111017", "CAD Processing and Findings Summary"), "1", "M", cid(6047)),
            Row("2", 1, HAS, INCLUDE, "4002", "1", "U"),
            Row("3", 1, INFERRED, INCLUDE, "4003", "1-n", "MC", condition=findings_told),
        ),
    ),
    Template(
        "4002",
        "Mammography CAD Impression/Recommendation Body",
        (
            Row("1", 0, "", "CODE", dcm("111005"), "1-n", "MC", condition=one_of("1", "3", "5", "6", "8", "9")),
            Row("2", 1, MOD, "CODE", LATERALITY, "1", "U", cid(6022)),
            Row("3", 0, "", "CODE", dcm("111023"), "1-n", "MC", condition=one_of("1", "3", "5", "6", "8", "9")),
            Row("4", 1, MOD, "CODE", LATERALITY, "1", "U", cid(6022)),
            Row("5", 0, "", "TEXT", dcm("111033"), "1", "MC", condition=one_of("1", "3", "5", "6", "8", "9")),
            Row("6", 0, "", "CODE", dcm("111053"), "1-n", "MC", condition=one_of("1", "3", "5", "6", "8", "9")),
            Row("7", 1, MOD, "CODE", LATERALITY, "1", "U", cid(6022)),
            Row("8", 0, "", "NUM", dcm("111055"), "1", "MC", condition=one_of("1", "3", "5", "6", "8", "9")),
            Row("9", 0, "", "DATE", dcm("111054"), "1", "MC", condition=one_of("1", "3", "5", "6", "8", "9")),
            Row("10", 0, "", "NUM", dcm("111013"), "1", "UC", PERCENT, check=between(0, 100)),
            Row("11", 0, "", INCLUDE, "4019", "1-n", "M"),
            Row("12", 0, "", "NUM", cid(6142), "1-n", "U"),
            Row("13", 1, MOD, "CODE", LATERALITY, "1", "U", cid(6022)),
            Row("14", 1, MOD, "CODE", DERIVATION, "1", "M", cid(6140)),
            Row("15", 1, INFERRED, "TEXT", CALCULATION, "1", "U"),
        ),
    ),
    Template(
        "4003",
        "Mammography CAD Individual Impression/Recommendation",
        (
            Row("1", 0, "", "CONTAINER", dcm("111034", "Individual Impression/Recommendation"), "1", "M"),
            Row("2", 1, MOD, "CODE", INTENT, "1", "M", cid(6034)),
            Row("3", 1, CONTAINS, INCLUDE, "4002", "1", "U"),
            Row("4", 1, CONTAINS, INCLUDE, "4004", "1-n", "MC", condition=one_of("4", "5")),
            Row("5", 1, CONTAINS, INCLUDE, "4006", "1-n", "MC", condition=one_of("4", "5")),
        ),
    ),
    Template(
        "4004",
        "Mammography CAD Composite Feature",
        (
            Row("1", 0, "", "CODE", dcm("111015", "Composite Feature"), "1", "M", cid(6016)),
            Row("2", 1, MOD, "CODE", INTENT, "1", "M", cid(6034)),
            Row("3", 1, OBS, INCLUDE, "4108", "1", "U"),
            Row("4", 1, HAS, INCLUDE, "4005", "1", "M"),
            Row("5", 1, INFERRED, INCLUDE, "4004", "1-n", "MC", condition=two_of("5", "6")),
            Row("6", 1, INFERRED, INCLUDE, "4006", "1-n", "MC", condition=two_of("5", "6")),
            Row("7", 1, OBS, INCLUDE, "4022", "1", "MC"),
        ),
    ),
    Template(
        "4005",
        "Mammography CAD Composite Feature Body",
        (
            Row("1", 0, "", "CODE", dcm("111016", "Composite type"), "1", "M", cid(6035)),
            Row("2", 0, "", "CODE", dcm("111057", "Scope of Feature"), "1", "M", cid(6036)),
            Row("3", 0, "", INCLUDE, "4019", "1", "M"),
            Row("4", 0, "", "NUM", dcm("111011", "Certainty of Feature"), "1", "U", PERCENT, check=between(0, 100)),
            Row(
                "5",
                0,
                "",
                "NUM",
                dcm("111047", "Probability of cancer"),
                "1",
                "UC",
                PERCENT,
                condition=lambda place: False if value(place) == NON_LESION else None,
                check=between(0, 100),
            ),
            Row("6", 0, "", "CODE", dcm("111042", "Pathology"), "1-n", "U"),
            Row("7", 0, "", INCLUDE, "1400", "1-n", "U"),
            Row("8", 0, "", INCLUDE, "1401", "1-n", "U"),
            Row("9", 0, "", INCLUDE, "1402", "1-n", "U"),
            Row("10", 0, "", INCLUDE, "4021", "1-n", "U"),
            Row("16", 0, "", "CODE", dcm("111048", "Quadrant location"), "1", "U", cid(6020)),
            Row("17", 0, "", "CODE", dcm("111014", "Clockface or region"), "1", "U", cid(6018)),
            Row("18", 0, "", "CODE", dcm("111020", "Depth"), "1", "U", cid(6024)),
            Row("19", 0, "", "CODE", dcm("111035"), "1", "UC", cid(6008), condition=may_if(*MASSES)),
            Row("20", 0, "", "CODE", SHAPE, "1", "UC", cid(6004), condition=may_if(*MASSES)),
            Row("21", 0, "", "CODE", MARGIN, "1-n", "UC", cid(6006), condition=may_if(*MASSES)),
            Row("25", 0, "", "NUM", cid(6142), "1-n", "U"),
            Row("26", 1, MOD, "CODE", DERIVATION, "1", "M", cid(6140)),
            Row("27", 1, INFERRED, "TEXT", CALCULATION, "1", "U"),
        ),
    ),
    Template(
        "4006",
        "Mammography CAD Single Image Finding",
        (
            Row("1", 0, "", "CODE", dcm("111059", "Single Image Finding"), "1", "M", cid(6014)),
            Row("2", 1, MOD, "CODE", INTENT, "1", "M", cid(6034)),
            Row("3", 2, HAS, "NUM", dcm("111071"), "1", "UC", condition=may_if(*dcm("111151"))),
            Row("4", 1, OBS, INCLUDE, "4108", "1", "U"),
            Row("5", 1, HAS, INCLUDE, "4019", "1", "M"),
            Row("6", 1, HAS, "NUM", dcm("111012", "Certainty of Finding"), "1", "U", PERCENT, check=between(0, 100)),
            Row(
                "7",
                1,
                HAS,
                "NUM",
                dcm("111047", "Probability of cancer"),
                "1",
                "UC",
                PERCENT,
                condition=lambda place: (
                    False if value(place) in (COMPOSITION, GEOMETRY, NIPPLE, REGION, QUALITY, NON_LESION) else None
                ),
                check=between(0, 100),
            ),
            Row("8", 1, HAS, INCLUDE, "4021", "1", "MC", condition=unless("129715009", "111100", "111101")),
            Row("9", 1, HAS, INCLUDE, "4007", "1", "MC", condition=only_if(COMPOSITION)),
            Row("11", 1, HAS, INCLUDE, "4008", "1", "MC", condition=only_if(GEOMETRY)),
            Row("12", 1, HAS, INCLUDE, "4009", "1", "UC", condition=may_if(CALCIFICATION)),
            Row("13", 1, HAS, INCLUDE, "4010", "1", "UC", condition=may_if(CLUSTER)),
            Row("14", 1, HAS, INCLUDE, "4011", "1", "UC", condition=may_if(DENSITY)),
            Row("15", 1, HAS, "CODE", dcm("111297"), "1", "UC", cid(6039), condition=may_if(NIPPLE)),
            Row("16", 1, HAS, INCLUDE, "4012", "1", "MC", condition=only_if(NON_LESION)),
            Row("17", 1, HAS, INCLUDE, "4013", "1", "MC", condition=only_if(REGION)),
            Row("21", 1, HAS, INCLUDE, "4014", "1-n", "MC", condition=only_if(QUALITY)),
            Row("22", 1, HAS, "NUM", cid(6142), "1-n", "U"),
            Row("23", 2, MOD, "CODE", DERIVATION, "1", "M", cid(6140)),
            Row("24", 2, INFERRED, "TEXT", CALCULATION, "1", "U"),
            Row("25", 1, INFERRED, INCLUDE, "4006", "1-n", "UC", condition=may_if(CLUSTER)),
            Row("26", 1, OBS, INCLUDE, "4022", "1", "MC"),
        ),
    ),
    Template(
        "4011",
        "Mammography CAD Density",
        (
            Row("1", 0, "", "CODE", dcm("111035"), "1", "MC", cid(6008), condition=one_of(*"12345")),
            Row("2", 0, "", "CODE", SHAPE, "1", "MC", cid(6004), condition=one_of(*"12345")),
            Row("3", 0, "", "CODE", MARGIN, "1-n", "MC", cid(6006), condition=one_of(*"12345")),
            Row("4", 0, "", INCLUDE, "1400", "1-n", "MC", condition=one_of(*"12345")),
            Row("5", 0, "", INCLUDE, "1401", "1-n", "MC", condition=one_of(*"12345")),
            Row("6", 0, "", INCLUDE, "1402", "1-n", "U"),
        ),
    ),
    gathered(
        "4015",
        "CAD Detections Performed",
        dcm("111063", "Successful Detections"),
        dcm("111025", "Failed Detections"),
        "4017",
    ),
    gathered(
        "4016", "CAD Analyses Performed", dcm("111062", "Successful Analyses"), dcm("111024", "Failed Analyses"), "4018"
    ),
    performed("4017", "CAD Detection Performed", dcm("111022", "Detection Performed"), cid(6014)),
    performed("4018", "CAD Analysis Performed", dcm("111004", "Analysis Performed"), cid(6043)),
    Template(
        "4020",
        "CAD Image Library Entry",
        (
            Row("1", 0, "", "IMAGE", None, "1", "M"),
            Row("2", 1, ACQ, "CODE", dcm("111027"), "1", "MC", cid(6022), condition=in_header("ImageLaterality")),
            Row("3", 1, ACQ, "CODE", dcm("111031"), "1", "MC", cid(4014), condition=in_header("ViewCodeSequence")),
            Row(
                "4",
                2,
                MOD,
                "CODE",
                dcm("111032", "Image View Modifier"),
                "1-n",
                "MC",
                cid(4015),
                condition=in_header("ViewModifierCodeSequence"),
            ),
            Row("5", 1, ACQ, "TEXT", dcm("111044"), "1", "MC", condition=in_header("PatientOrientation")),
            Row("6", 1, ACQ, "TEXT", dcm("111043"), "1", "MC", condition=in_header("PatientOrientation")),
            Row("7", 1, ACQ, "DATE", dcm("111060"), "1", "MC", condition=in_header("StudyDate")),
            Row("8", 1, ACQ, "TIME", dcm("111061"), "1", "MC", condition=in_header("StudyTime")),
            Row("9", 1, ACQ, "DATE", dcm("111018"), "1", "MC", condition=in_header("ContentDate")),
            Row("10", 1, ACQ, "TIME", dcm("111019"), "1", "MC", condition=in_header("ContentTime")),
            Row(
                "11",
                1,
                ACQ,
                "NUM",
                dcm("111026", "Horizontal Pixel Spacing"),
                "1",
                "MC",
                ucum("um", "mm"),
                condition=in_header("ImagerPixelSpacing", "PixelSpacing"),
                check=above_zero,
            ),
            Row(
                "12",
                1,
                ACQ,
                "NUM",
                dcm("111066", "Vertical Pixel Spacing"),
                "1",
                "MC",
                ucum("um", "mm"),
                condition=in_header("ImagerPixelSpacing", "PixelSpacing"),
                check=above_zero,
            ),
        ),
        extensible=True,
    ),
    Template(
        "4021",
        "Mammography CAD Geometry",
        (
            Row("1", 0, "", "SCOORD", dcm("111010"), "1", "M", check=one_point, graphic_types=("POINT",)),
            Row("2", 1, SELECTED, "IMAGE", None, "1", "M", check=in_library, by_reference=True),
            Row("3", 0, "", "SCOORD", dcm("111041", "Outline"), "1", "U"),
            Row("4", 1, SELECTED, "IMAGE", None, "1", "M", check=as_the_centre, by_reference=True),
        ),
    ),
)

SHARED = (
    measured(
        "1204",
        "Language of Content Item and Descendants",
        (
            Row("1", 0, "", "CODE", dcm("121049"), "1", "M", check=a_language),
            Row("2", 1, MOD, "CODE", dcm("121046", "Country of Language"), "1", "U"),
        ),
    ),
    measured(
        "1400",
        "Linear Measurement",
        (
            Row("1", 0, "", "NUM", cid(7470), "1", "M", cid(7460)),
            Row("2", 1, INFERRED, "SCOORD", dcm("121055", "Path"), "1", "UC"),
            Row("8", 1, OBS, INCLUDE, "4108", "1", "U"),
        ),
    ),
    measured(
        "1401",
        "Area Measurement",
        (
            Row("1", 0, "", "NUM", cid(7471), "1", "M", cid(7461), check=above_zero),
            Row("2", 1, INFERRED, "SCOORD", dcm("121056", "Area Outline"), "1", "MC", graphic_types=NOT_MULTIPOINT),
            Row("7", 1, HAS, "CODE", METHOD, "1", "U", cid(7473)),
            Row("8", 1, OBS, INCLUDE, "4108", "1", "U"),
        ),
    ),
    measured(
        "4019",
        "Algorithm Identification",
        (
            Row("1", 0, "", "TEXT", dcm("111001", "Algorithm Name"), "1", "M"),
            Row("2", 0, "", "TEXT", dcm("111003", "Algorithm Version"), "1", "M"),
            Row("2b", 0, "", "TEXT", dcm("122405", "Algorithm Manufacturer"), "1", "U"),
            Row("3", 0, "", "TEXT", dcm("111002", "Algorithm Parameters"), "1-n", "U"),
            Row("4", 0, "", "CODE", dcm("111000", "Algorithm Family"), "1", "U", cid(7162)),
        ),
    ),
    measured(
        "4108",
        "Tracking Identifier",
        (
            Row("1", 0, "", "TEXT", dcm("112039"), "1", "MC", condition=if_absent("2")),
            Row("2", 0, "", "UIDREF", dcm("112040"), "1", "MC", condition=if_absent("1")),
        ),
    ),
)

REPORT = (
    Template(
        "1500",
        "Measurement Report",
        (
            Row("1", 0, "", "CONTAINER", cid(7021), "1", "M"),
            Row("2", 1, MOD, INCLUDE, "1204", "1", "U"),
            Row("3", 1, OBS, INCLUDE, "1001", "1", "M"),
            Row("4", 1, MOD, "CODE", dcm("121058", "Procedure reported"), "1-n", "U"),
            Row("5", 1, CONTAINS, INCLUDE, "1600", "1", "U"),
            Row("6", 1, CONTAINS, "CONTAINER", dcm("126010"), "1", "MC", condition=if_absent("10", "12")),
            Row("6b", 2, MOD, INCLUDE, "4019", "1", "U"),
            Row("7", 2, CONTAINS, INCLUDE, "1410", "1-n", "U"),
            Row("8", 2, CONTAINS, INCLUDE, "1411", "1-n", "U"),
            Row("9", 2, CONTAINS, INCLUDE, "1501", "1-n", "U"),
            Row("10", 1, CONTAINS, "CONTAINER", dcm("126011"), "1", "MC", condition=if_absent("6", "12")),
            Row("11", 2, CONTAINS, INCLUDE, "1420", "1-n", "U"),
            Row(
                "12",
                1,
                CONTAINS,
                "CONTAINER",
                (Code("C0034375", "UMLS", "Qualitative Evaluations"),),
                "1",
                "MC",
                condition=if_absent("6", "10"),
            ),
            Row("12b", 2, MOD, INCLUDE, "4019", "1", "U"),
            Row("13", 2, CONTAINS, "CODE", None, "1-n", "U"),
            Row("14", 2, CONTAINS, "TEXT", None, "1-n", "U"),
        ),
        extensible=True,
        ordered=False,
    ),
    Template(
        "1001",
        "Observation Context",
        (
            # Nothing is inherited by a root, so that row 1 is needed; patient and study stand in the data set.
            Row("1", 0, OBS, INCLUDE, "1002", "1-n", "M"),
            Row("2", 0, OBS, INCLUDE, "1005", "1", "MC"),
            Row("3", 0, OBS, INCLUDE, "1006", "1", "MC"),
        ),
        extensible=True,
        ordered=False,
    ),
    measured(
        "1002",
        "Observer Context",
        (
            Row("1", 0, OBS, "CODE", dcm("121005"), "1", "MC", cid(270), condition=observer(None)),
            Row("2", 0, OBS, INCLUDE, "1003", "1", "MC", condition=observer("121006")),
            Row("3", 0, OBS, INCLUDE, "1004", "1", "MC", condition=observer("121007")),
        ),
    ),
    measured(
        "1004",
        "Device Observer Identifying Attributes",
        (
            Row("1", 0, "", "UIDREF", dcm("121012", "Device Observer UID"), "1", "M"),
            Row("2", 0, "", "TEXT", dcm("121013", "Device Observer Name"), "1", "U"),
            Row("3", 0, "", "TEXT", dcm("121014", "Device Observer Manufacturer"), "1", "U"),
            Row("4", 0, "", "TEXT", dcm("121015", "Device Observer Model Name"), "1", "U"),
            Row("5", 0, "", "TEXT", dcm("121016", "Device Observer Serial Number"), "1", "U"),
        ),
    ),
    Template(
        "1410",
        "Planar ROI Measurements and Qualitative Evaluations",
        (
            Row("1", 0, "", "CONTAINER", dcm("125007", "Measurement Group"), "1", "M"),
            Row("2", 1, OBS, "TEXT", dcm("112039", "Tracking Identifier"), "1", "U"),
            Row("3", 1, OBS, "UIDREF", dcm("112040", "Tracking Unique Identifier"), "1", "U"),
            Row("3a", 1, CONTAINS, "CODE", sct("276214006", "Finding category"), "1", "U"),
            Row("3b", 1, CONTAINS, "CODE", dcm("121071", "Finding"), "1", "U"),
            Row("3c", 1, CONTAINS, "CODE", dcm("130400"), "1", "U"),
            Row(
                "5",
                1,
                CONTAINS,
                "SCOORD",
                REGION_OF_IMAGE,
                "1",
                "MC",
                condition=xor("7", "7b", "8b"),
                graphic_types=NOT_MULTIPOINT,
            ),
            Row("6", 2, SELECTED, "IMAGE", None, "1", "M"),
            Row("7", 1, CONTAINS, "IMAGE", dcm("121214"), "1", "MC", condition=xor("5", "7b", "8b")),
            Row("7b", 1, CONTAINS, "SCOORD3D", REGION_OF_IMAGE, "1", "MC", condition=xor("5", "7", "8b")),
            Row("8b", 1, CONTAINS, "COMPOSITE", dcm("130488"), "1", "MC", condition=xor("5", "7", "7b")),
            Row("11", 1, CONTAINS, INCLUDE, "1419", "1", "U"),
            Row("12", 1, CONTAINS, "CODE", None, "1-n", "U"),
            Row("13", 1, CONTAINS, "TEXT", None, "1-n", "U"),
        ),
        extensible=True,
        ordered=False,
    ),
    Template(
        "1419",
        "ROI Measurements",
        (
            Row("1", 0, MOD, "CODE", METHOD, "1", "U"),
            Row("2", 0, MOD, "CODE", SITE, "1-n", "U"),
            Row("3", 1, MOD, "CODE", LATERALITY, "1", "U", cid(244)),
            Row("4", 1, MOD, "CODE", TOPOGRAPHY, "1", "U"),
            Row("4b", 0, MOD, INCLUDE, "4019", "1", "U"),
            # A Finding Site without a measurement is an extension of the group, as TID 1410 permits.
            Row("5", 0, "", "NUM", None, "1-n", "M", condition=lambda place: True if place.counts["4b"] else None),
            Row("7", 1, MOD, "CODE", METHOD, "1", "U"),
            Row("8", 1, MOD, "CODE", DERIVATION, "1", "U"),
            Row("9", 1, MOD, "CODE", SITE, "1-n", "U"),
            Row("10", 2, MOD, "CODE", LATERALITY, "1", "U", cid(244)),
        ),
        extensible=True,
        ordered=False,
    ),
    Template(
        "1600",
        "Image Library",
        (
            Row("1", 0, "", "CONTAINER", dcm("111028", "Image Library"), "1", "M"),
            Row("2", 1, CONTAINS, "CONTAINER", dcm("126200", "Image Library Group"), "1-n", "U"),
            Row("3", 2, ACQ, INCLUDE, "1602", "1", "U"),
            Row("4", 2, CONTAINS, INCLUDE, "1601", "1-n", "U"),
        ),
        extensible=True,
        ordered=False,
    ),
    Template(
        "1601",
        "Image Library Entry",
        (
            Row("1", 0, "", "IMAGE", None, "1", "M"),
            Row("2", 1, ACQ, INCLUDE, "1602", "1", "U"),
        ),
        extensible=True,
        ordered=False,
    ),
    Template(
        "1602",
        "Image Library Entry Descriptors",
        (
            Row("1", 0, ACQ, "CODE", dcm("121139", "Modality"), "1", "U", cid(29)),
            Row("2", 0, ACQ, "CODE", dcm("123014", "Target Region"), "1", "U", cid(4031)),
            Row("3", 0, ACQ, "CODE", dcm("111027", "Image Laterality"), "1", "U", cid(244)),
            Row("4", 0, ACQ, "DATE", dcm("111060", "Study Date"), "1", "U"),
            Row("5", 0, ACQ, "TIME", dcm("111061", "Study Time"), "1", "U"),
            Row("6", 0, ACQ, "DATE", dcm("111018", "Content Date"), "1", "U"),
            Row("7", 0, ACQ, "TIME", dcm("111019", "Content Time"), "1", "U"),
            Row("8", 0, ACQ, "DATE", dcm("126201", "Acquisition Date"), "1", "U"),
            Row("9", 0, ACQ, "TIME", dcm("126202", "Acquisition Time"), "1", "U"),
            Row("10", 0, ACQ, "UIDREF", dcm("112227", "Frame of Reference UID"), "1", "U"),
            Row("11", 0, ACQ, "NUM", dcm("110910", "Pixel Data Rows"), "1", "U", ucum("{pixels}")),
            Row("12", 0, ACQ, "NUM", dcm("110911", "Pixel Data Columns"), "1", "U", ucum("{pixels}")),
            Row(
                "13",
                0,
                ACQ,
                INCLUDE,
                "1603",
                "1",
                "MC",
                condition=modality("CR", "DX", "IO", "MG", "PX", "RF", "RG", "XA"),
            ),
            Row("14", 0, ACQ, INCLUDE, "1604", "1", "MC", condition=modality("CT", "MR", "PT")),
        ),
        extensible=True,
        ordered=False,
    ),
    Template(
        "1603",
        "Image Library Entry Descriptors for Projection Radiography",
        (
            Row("1", 0, ACQ, "CODE", dcm("111031", "Image View"), "1", "U"),
            Row("2", 1, MOD, "CODE", dcm("111032", "Image View Modifier"), "1-n", "U"),
            Row("3", 0, ACQ, "TEXT", dcm("111044", "Patient Orientation Row"), "1", "U"),
            Row("4", 0, ACQ, "TEXT", dcm("111043", "Patient Orientation Column"), "1", "U"),
            Row("5", 0, ACQ, "NUM", dcm("111026"), "1", "U", MILLIMETRE, check=above_zero),
            Row("6", 0, ACQ, "NUM", dcm("111066"), "1", "U", MILLIMETRE, check=above_zero),
            Row("7", 0, ACQ, "NUM", dcm("112011"), "1", "U", ucum("deg")),
            Row("8", 0, ACQ, "NUM", dcm("112012"), "1", "U", ucum("deg")),
        ),
        extensible=True,
        ordered=False,
    ),
)

TABLE: Mapping[str, Template] = MappingProxyType({template.tid: template for template in (*CAD, *SHARED, *REPORT)})
"""TID → template."""
