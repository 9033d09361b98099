"""Which part of the body an image says it shows, where it says it in the standard's terms."""

from typing import Final

from pydicom import Dataset

from node.headers import first, items, values
from node.view_codes import CODING_SCHEMES

BREAST: Final = frozenset({"76752008", "T-04000", "80248007", "T-04030", "73056007", "T-04020", "63762007", "T-04080"})
"""Breast, left breast, right breast and both (PS3.16 CID 4, CID 6022), each in SNOMED CT and in SNOMED RT."""

OTHER_PARTS: Final = {
    "ABDOMEN": "818981001 113345001 T-D4000",
    "ABDOMENPELVIS": "818982008",
    "ACJOINT": "85856004 T-15420",
    "ADRENAL": "23451007 T-B3000",
    "ANKLE": "70258002 T-15750",
    "AORTA": "15825003 T-42000",
    "ARM": "40983000 T-D8200",
    "BILEDUCT": "28273000 T-60610",
    "BLADDER": "89837001 T-74000",
    "BRAIN": "12738006 T-A0100",
    "BRONCHUS": "955009 T-26000",
    "BUTTOCK": "46862004 T-D2600",
    "CALCANEUS": "80144004 T-12770",
    "CALF": "",
    "CAROTID": "69105007 T-45010",
    "CEREBELLUM": "113305005 T-A6000",
    "CERVIX": "71252005 T-83200",
    "CHEEK": "60819002 T-D1206",
    "CHEST": "816094009 51185008 T-D3000",
    "CHESTABDOMEN": "416550000 R-FAB55",
    "CHESTABDPELVIS": "416775004 R-FAB56",
    "CIRCLEOFWILLIS": "11279006 T-45520",
    "CLAVICLE": "51299004 T-12310",
    "COCCYX": "64688005 T-11BF0",
    "COLON": "71854001 T-59300",
    "CORNEA": "28726007 T-AA200",
    "CORONARYARTERY": "41801008 T-43000",
    "CSPINE": "122494005 T-11501",
    "CTSPINE": "1217257000",
    "DUODENUM": "38848004 T-58200",
    "EAR": "117590005 T-AB001",
    "ELBOW": "16953009 T-15430",
    "ESOPHAGUS": "32849002 T-56000",
    "EXTREMITY": "66019005 T-D0300",
    "EYE": "81745001 T-AA000",
    "EYELID": "80243003 T-AA810",
    "FACE": "89545001 T-D1200",
    "FEMUR": "71341001 T-12710",
    "FIBULA": "87342007 T-12750",
    "FINGER": "7569003 T-D8800",
    "FOOT": "56459004 T-D9700",
    "FOREARM": "14975008 T-D8500",
    "GALLBLADDER": "28231008 T-63000",
    "HAND": "85562004 T-D8700",
    "HEAD": "69536005 T-D1100",
    "HEADNECK": "774007 T-D1000",
    "HEART": "80891009 T-32000",
    "HIP": "24136001 T-15710 29836001 T-D2500",
    "HUMERUS": "85050009 T-12410",
    "IAC": "361078006 T-AB959",
    "ILEUM": "34516001 T-58600",
    "ILIUM": "22356005 T-12340",
    "JAW": "661005 T-D1213 91609006 T-11180",
    "JEJUNUM": "21306003 T-58400",
    "KIDNEY": "",
    "KNEE": "72696002 T-D9200",
    "LARGEINTESTINE": "14742008 T-59000",
    "LARYNX": "4596009 T-24100",
    "LEG": "30021000 T-D9400",
    "LIVER": "10200004 T-62000",
    "LSPINE": "122496007 T-11503",
    "LSSPINE": "1217253001",
    "LUNG": "39607008 T-28000",
    "MASTOID": "59066005 T-11133",
    "MAXILLA": "70925003 T-11170",
    "MEDIASTINUM": "72410000 T-D3300",
    "MOUTH": "123851003 T-D0662",
    "NECK": "45048000 T-D1600",
    "NECKCHEST": "417437006 R-FAB52",
    "NECKCHESTABDOMEN": "416152001 R-FAB53",
    "NECKCHESTABDPELV": "416319003 R-FAB54",
    "NOSE": "45206002 T-21000",
    "OPTICCANAL": "55024004 T-11102",
    "ORBIT": "363654007 T-D14AE",
    "OVARY": "15497006 T-87000",
    "PANCREAS": "15776009 T-65000",
    "PAROTID": "45289007 T-61100",
    "PATELLA": "64234005 T-12730",
    "PELVIS": "816092008 12921003 T-D6000",
    "PENIS": "18911002 T-91000",
    "PHARYNX": "54066008 T-55000",
    "PROSTATE": "41216001 T-92000",
    "RADIUS": "",
    "RADIUSULNA": "",
    "RECTUM": "34402009 T-59600",
    "RIB": "113197003 T-11300",
    "SCALP": "41695006 T-D1160",
    "SCAPULA": "79601000 T-12280",
    "SCJOINT": "7844006 T-15610",
    "SCLERA": "18619003 T-AA110",
    "SCROTUM": "20233005 T-98000",
    "SELLA": "42575006 T-D1460",
    "SESAMOID": "58742003 T-12980",
    "SHOULDER": "16982005 T-D2220",
    "SIJOINT": "39723000 T-15680",
    "SKULL": "89546000 T-11100",
    "SMALLINTESTINE": "30315005 T-58000",
    "SPINE": "421060004 T-D04FF",
    "SPLEEN": "78961009 T-C3000",
    "SSPINE": "54735007 T-11AD0",
    "STERNUM": "56873002 T-11210",
    "STOMACH": "69695003 T-57000",
    "SUBMANDIBULAR": "54019009 T-61300",
    "TESTIS": "40689003 T-94000",
    "THIGH": "68367000 T-D9100",
    "THUMB": "76505004 T-D8810",
    "THYMUS": "9875009 T-C8000",
    "THYROID": "69748006 T-B6000",
    "TIBIA": "",
    "TIBIAFIBULA": "",
    "TLSPINE": "1217256009",
    "TMJ": "53620006 T-15290",
    "TOE": "29707007 T-D9800",
    "TONGUE": "21974007 T-53000",
    "TRACHEA": "44567001 T-25000",
    "TSPINE": "122495006 T-11502",
    "ULNA": "",
    "UPRURINARYTRACT": "431491007 T-7000B",
    "URETER": "87953007 T-73000",
    "URETHRA": "13648007 T-75000",
    "UTERUS": "35039007 T-83000",
    "VAGINA": "",
    "VULVA": "45292006 T-81000",
    "WHOLEBODY": "38266002 T-D0010",
    "WRIST": "74670003 T-15460",
    "ZYGOMA": "13881006 T-11166",
}
"""Defined terms of Body Part Examined (PS3.16 annex L) → codes of the region in SNOMED CT and SNOMED RT (CID 4, CID 4031).

Breast is left out, and axilla and back, which a mammogram may be filed under: the axilla is seen in MLO.
"""


def other_part(header: Dataset) -> str:
    """Return the defined term of the other part that a header states; '' where it states none, or the breast as well.

    A mammogram has to state the breast (PS3.3 C.8.11.7). Only the standard's own words for another part count: a header
    that was filled in carelessly must not silence the reader on a mammogram.
    """
    texts = set(values(header, "BodyPartExamined"))
    regions = [*items(header, "AnatomicRegionSequence")]
    named = {first(item, "CodeValue") for item in (*regions, *items(header, "PrimaryAnatomicStructureSequence"))}
    if any("BREAST" in text for text in texts) or named & BREAST:
        return ""
    codes = {first(item, "CodeValue") for item in regions if first(item, "CodingSchemeDesignator") in CODING_SCHEMES}
    stated = (part for part, known in OTHER_PARTS.items() if part in texts or codes & set(known.split()))
    return next(stated, "")
