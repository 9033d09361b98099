"""Commands that train: train, recipes."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress, TaskID
from rich.table import Column, Table

from ai.training.phases import Precision
from node.cli.data import (
    DataArgument,
    FoldsFileOption,
    KindOption,
    LeaveOutOption,
    SkipUnlabelledOption,
    SubsetOption,
    WhereOption,
    conditions,
)
from node.cli.options import (
    DeviceOption,
    JsonOption,
    ThreadsOption,
    named_model,
    print_json,
    progress,
    require_extra,
    stdout_console,
)

if TYPE_CHECKING:
    from ai.training.engine import Step
    from ai.training.phases import Part
    from ai.training.recipe import Recipe

RANDOM = "random"
RecipeArgument = Annotated[str, typer.Argument(help="TABLE/ROW of `mammonode recipes`, FILE.toml or FILE.toml#ROW.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("train")(train)
    app.command("recipes")(recipes)


def recipes(
    name: Annotated[str, typer.Argument(help="Show one: TABLE/ROW, FILE.toml or FILE.toml#ROW.")] = "",
    *,
    as_json: JsonOption = False,
) -> None:
    """List the recipes that come with this version, one for each row of the papers' tables, or show one in full."""
    from ai.training.recipe import list_recipes, open_recipe  # noqa: PLC0415 (keeps --help quick)

    if name:
        print_json(open_recipe(name).model_dump(mode="json"))
        return
    found = list(list_recipes())
    if as_json:
        print_json([recipe.model_dump(mode="json") for recipe in found])
        return
    table = Table(Column("recipe", no_wrap=True), "networks", "published in")
    for recipe in found:
        networks = ", ".join(dict.fromkeys(part.network for part in recipe.parts))
        table.add_row(recipe.name, networks, ", ".join(filter(None, (recipe.paper.partition(",")[0], recipe.table))))
    stdout_console().print(table)


def train(
    recipe: RecipeArgument,
    data: DataArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder for the model and its checkpoints; a run resumes here.")
    ],
    *,
    fold: Annotated[
        list[int] | None, typer.Option("--fold", min=0, help="Train this inner fold now; repeatable. All if not given.")
    ] = None,
    start: Annotated[
        str, typer.Option("--start", help="Your file or model directory to start from, or `random`.")
    ] = "",
    upon: Annotated[
        str,
        typer.Option(
            "--upon",
            help="Finished model that a second look, a further network or a student is trained upon: name or directory.",
        ),
    ] = "",
    final: Annotated[
        str,
        typer.Option(
            "--final",
            help="Finished model by this recipe: learn from whom it held out, too, and take over its threshold and figures.",
        ),
    ] = "",
    budget: Annotated[
        int | None, typer.Option(min=1, help="Examples that a fold sees in all: the recipe's epochs are cut to it.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of every random choice but the split.")] = None,
    split_seed: Annotated[int | None, typer.Option(help="Of the deal of the patients.")] = None,
    parts: Annotated[int | None, typer.Option(min=2, help="Parts that the patients are dealt to.")] = None,
    part: Annotated[int | None, typer.Option(min=0, help="The part that is held out.")] = None,
    folds: Annotated[int | None, typer.Option(min=1, help="Inner folds; 1 trains on all, without validation.")] = None,
    folds_file: FoldsFileOption = None,
    incomplete_exams: Annotated[
        bool,
        typer.Option("--incomplete-exams", help="Take exams that lack views too, where the recipe leaves them out."),
    ] = False,
    kind: KindOption = "auto",
    where: WhereOption = None,
    subset: SubsetOption = "",
    skip_unlabelled: SkipUnlabelledOption = False,
    leave_out_mismatched: LeaveOutOption = False,
    name: Annotated[str, typer.Option(help="The model's name, for its card; the recipe's if not given.")] = "",
    data_name: Annotated[str, typer.Option(help="What the training data are, for the card.")] = "",
    data_licence: Annotated[str, typer.Option(help="Their licence, for the card.")] = "",
    attribution: Annotated[str, typer.Option(help="Whom to name for them, for the card.")] = "",
    note: Annotated[list[str] | None, typer.Option(help="A sentence for every report; repeatable.")] = None,
    evaluation: Annotated[bool, typer.Option(help="Measure the model on the part that is held out.")] = True,
    precision: Annotated[
        Precision, typer.Option(help="Numbers to compute with; auto is bfloat16 where that is quick.")
    ] = Precision.AUTO,
    repeatable: Annotated[
        bool,
        typer.Option("--repeatable/--fast", help="On a GPU: the same weights bit by bit every time, or sooner."),
    ] = True,
    device: DeviceOption = "auto",
    threads: ThreadsOption = 0,
) -> None:
    """Train a recipe on a data set, and measure the model on the patients that were held out.

    The run can be stopped at any time: the same command goes on after the last whole epoch. At the end OUTPUT holds a
    model directory that `mammonode read`, `evaluate`, `models install` and the node accept, and in `runs` the
    checkpoint, history.csv and curves.png of each fold.
    """
    from ai.datasets.registry import open_dataset  # noqa: PLC0415 (keeps --help quick)
    from ai.training.recipe import open_recipe  # noqa: PLC0415

    require_extra("matplotlib", "tomlkit")
    chosen = _changed(open_recipe(recipe), start, seed, incomplete_exams=incomplete_exams)
    if folds_file is not None:
        chosen = _dealt_by(chosen, folds_file, seed=split_seed, part=part, folds=folds)
    else:
        chosen = chosen.dealt(seed=split_seed, parts=parts, part=part, folds=folds)

    import torch  # noqa: PLC0415 (a recipe that is not there needs no torch)

    from ai.readers.registry import torch_device  # noqa: PLC0415
    from ai.training.card import Provenance  # noqa: PLC0415
    from ai.training.run import Settings  # noqa: PLC0415
    from ai.training.run import train as run  # noqa: PLC0415
    from ai.training.systems import system_of  # noqa: PLC0415

    settings = Settings(
        device=torch_device(device),
        threads=threads,
        precision=precision,
        repeatable=repeatable,
        start=Path(start) if start and start != RANDOM else None,
        upon=named_model(upon) if upon else None,
        final=named_model(final) if final else None,
        folds=None if fold is None else tuple(dict.fromkeys(fold)),
        budget=budget,
        skip_unlabelled=skip_unlabelled,
        subset=subset,
        evaluate=evaluation,
    )
    if threads:
        torch.set_num_threads(threads)
    system_of(chosen)
    with progress() as bar:
        opening = bar.add_task("opening", total=None)
        dataset = open_dataset(
            data,
            kind,
            lambda: bar.advance(opening),
            where=conditions(where),
            leave_out_mismatched=leave_out_mismatched,
        )
        bar.remove_task(opening)
        source = replace(
            dataset.source,
            name=data_name or dataset.source.name,
            licence=data_licence or dataset.source.licence,
            attribution=attribution or dataset.source.attribution,
        )
        called = name or chosen.name.replace(".toml", "").replace("/", "-").replace("#", "-")
        provenance = Provenance(called, source, tuple(note or ()))
        card = run(chosen, dataset, output, provenance, settings, _Bars(bar))
    typer.echo(f"wrote {card}", err=True)


def _dealt_by(recipe: "Recipe", file: Path, *, seed: int | None, part: int | None, folds: int | None) -> "Recipe":
    """Return the recipe with the deal of a file, and as many inner folds as that leaves where it has any."""
    from ai.datasets.folds import read_folds  # noqa: PLC0415

    parts = read_folds(file).count
    inner = folds or (1 if recipe.split.folds == 1 else parts - 1)
    return recipe.dealt(file=file, seed=seed, parts=parts, part=part, folds=inner)


def _changed(recipe: "Recipe", start: str, seed: int | None, *, incomplete_exams: bool) -> "Recipe":
    changes = {} if seed is None else {"seed": seed}
    recipe = recipe.model_copy(update=changes | ({"complete_exams": False} if incomplete_exams else {}))
    return recipe.at_random() if start == RANDOM else recipe


class _Bars:
    """Shows a run: one bar for each task, and one for each fold's part.

    Parameters
    ----------
    bar
        Where they are drawn.
    """

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[object, TaskID] = {}

    def images(self, what: str, done: int, total: int) -> None:
        """Advance a task with images."""
        self._bar.update(self._task(what, what), completed=done, total=total)

    def step(self, fold: int, part: "Part", step: "Step") -> None:
        """Advance a fold's part."""
        words = f"fold {fold}, {part.role}, phase {step.phase}, epoch {step.epoch}, loss {step.loss:.3f}"
        task = self._task((fold, part.role), words)
        self._bar.update(task, completed=step.done, total=step.total, description=words)

    def says(self, what: str) -> None:
        """Print a line above the bars."""
        self._bar.console.print(what, markup=False, highlight=False)

    def _task(self, key: object, words: str) -> TaskID:
        if key not in self._tasks:
            self._tasks[key] = self._bar.add_task(words, total=None)
        return self._tasks[key]
