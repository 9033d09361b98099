"""The house table as a page, with its picture, from the figures of its rows."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from house_rows import ROWS, Row

from ai.evaluation.detection import HitRule
from ai.evaluation.plots import Froc, plot_froc
from ai.exam import STANDARD_VIEWS

SEED: Final = 1
RULE: Final = HitRule.CENTRE
LIMITS: Final = (0.25, 0.5, 1.0)


def write(runs: Path, output: Path) -> None:
    """Write the table and its picture from the rows that are there, and keep the rows beside them."""
    pictures = output.with_suffix("")
    kept = pictures / "rows"
    kept.mkdir(parents=True, exist_ok=True)
    for row in ROWS:
        new = runs / row.name / "row.json"
        if new.is_file():
            (kept / f"{row.name}.json").write_bytes(new.read_bytes())
    told = list(there(kept))
    if not told:
        return
    curves = [froc_of(row, one) for row, one in told]
    plot_froc(curves, pictures / "froc.png", f"{RULE.value}, number of held-out images in brackets")
    output.write_text(markdown([one for _, one in told], pictures.name), encoding="utf-8")


def there(folder: Path) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Yield the rows that are done, in the table's order."""
    for row in ROWS:
        path = folder / f"{row.name}.json"
        if path.is_file():
            yield row, json.loads(path.read_text(encoding="utf-8"))


def froc_of(row: Row, told: Mapping[str, Any]) -> Froc:
    """Return a row's curve."""
    curve = told["froc"]
    return Froc(f"{told['title']} ({told['images']})", curve["fppi"], curve["sensitivity"], dict(row.points))


def markdown(rows: Sequence[Mapping[str, Any]], pictures: str) -> str:
    """Return the page."""
    most = max(rows, key=lambda row: int(row["images"]))
    head = (
        "network",
        "parameters",
        "start",
        "examples",
        "minutes",
        "converged",
        "images scored",
        *(f"at {f:g}" for f in LIMITS),
        "AUC",
        "weak Dice",
        "s/exam",
    )
    lines = [
        "# Five systems and ours, trained in one house",
        "",
        "Written by `make house` (benchmarks/house_table.py); do not edit.",
        "",
        (
            f"Scored on {most['images']} images of {most['patients']} patients, {most['masses']} masses: those of part 0 of "
            f"5 (seed {SEED}) that come first by their hash, on whom nothing was trained or chosen in the rows that were "
            "trained here; fewer of them for systems that read slowly. The threshold and outlines of mass-fpn-boxes, the first network of the shipped mass-fpn-pair, were chosen on these patients; its curve is not free of "
            "that. Every image counts, and in CBIS-DDSM every one has a mass."
        ),
        "",
        "**The budget** of the rows that were trained here:",
        "",
        *budgets(rows),
        "",
        (
            "The column *examples* says what a row saw, *minutes* what it took there, loaded as the machine was. Only Lite0's "
            "ImageNet weights could be had: the other rows start at random, where most of the papers did not."
        ),
        "",
        "Sensitivity per mass at 0.25, 0.5 and 1 false marks per image, "
        + RULE.value
        + "; 95 % intervals by bootstrap "
        "over patients. AUC: malignant against other images, by the image's malignancy, or by its strongest candidate (c) "
        "where a system does not classify. **Weak Dice** is against the ellipses inscribed in the boxes, misses 0: no "
        "measure of segmentation. Seconds per exam: four views of 2560 x 2048 on two threads, and on a GPU where one was used; "
        "~ where not all four were timed. Minutes: of training, its preparation and validation included.",
        "",
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(line(row) for row in rows),
        "",
        (
            "**Converged** means: it saw ten examples or more of each training image, the last phase had ten epochs or more, its best validation loss is not in the last fifth of them, "
            "and its training loss fell by less than 1 % from the fifth before. "
            "All other rows *run, and are not comparable*: they say that a system trains and reads here and what it costs, "
            "not how good it is."
        ),
        "",
        *(f"* {row['title']}: {row['why']}" for row in rows if row.get("why")),
        *notes(rows),
        "",
        f"![FROC curves]({pictures}/froc.png)",
        "",
        "## What the papers print",
        "",
        "On their own data, with their own training; not comparable with the table above.",
        "",
        "| network | data | figures |",
        "|---|---|---|",
        *(
            f"| {row['title']} | {data} | {', '.join(f'{k} {v:g}' for k, v in figures.items())} |"
            for row in rows
            for data, figures in row["published"].items()
        ),
        "",
    ]
    return "\n".join(lines)


def budgets(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each budget and machine, with the rows that it holds for where there are several."""
    groups: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if "budget" in row:
            groups.setdefault((row["budget"], row["machine"]), []).append(row["title"])
    return [
        f"* {budget}; on {machine}" + (f": {'; '.join(titles)}" if len(groups) > 1 else "")
        for (budget, machine), titles in groups.items()
    ]


def notes(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what rows say of themselves, with the rows that say it."""
    said: dict[str, list[str]] = {}
    for row in rows:
        if "note" in row:
            said.setdefault(row["note"], []).append(row["title"])
    return [f"* {'; '.join(titles)}: {note}" for note, titles in said.items()]


def line(row: Mapping[str, Any]) -> str:
    """Return a line of the table."""
    trained = "training_seconds" in row
    starts = {word.rpartition(": ")[2].split(",")[0].removeprefix("EfficientNet-") for word in row["start"].split("; ")}
    start = ", ".join(sorted(starts))
    cells = (
        row["title"],
        f"{row['parameters'] / 1e6:.1f} M",
        start,
        f"{row['examples']:,}",
        f"{row['training_seconds'] / 60:.1f}" if trained else "-",
        ("yes" if row["converged"] else "no") if trained else "its own plan",
        str(row["images"]),
        *(interval(row["sensitivity"][str(f)]) for f in LIMITS),
        interval(row["auc"]) + (" (c)" if row["auc_by"] == "candidates" and row["auc"] else ""),
        interval(row["weak_dice"]),
        ("" if row["views_timed"] == len(STANDARD_VIEWS) else "~")
        + f"{row['exam_seconds']:.1f}"
        + (f", GPU {row['gpu_exam_seconds']:.2f}" if "gpu_exam_seconds" in row else ""),
    )
    return f"| {' | '.join(cells)} |"


def interval(values: Sequence[float | None] | None) -> str:
    """Return a value with its interval."""
    if not values or values[0] is None:
        return "not defined"
    low, high = (f"{v:.2f}" if v is not None else "-" for v in values[1:])
    return f"{values[0]:.2f} ({low} to {high})"
