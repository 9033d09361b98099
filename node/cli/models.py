"""Commands for models: list, show, verify, install."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table

from ai.errors import ModelError
from ai.models import CARD, SHIPPED, Model, model_folders, open_model, read_card
from config.settings import load_settings
from node.cli.options import ConfigOption, JsonOption, print_json


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    group = typer.Typer(no_args_is_help=True, help="Models: list, show and verify them, and install your own.")
    for command in (list_models, show, verify, install):
        group.command(command.__name__.removesuffix("_models"))(command)
    app.add_typer(group, name="models")


Name = Annotated[str, typer.Argument(help="Name of a shipped or installed model, or a model directory.")]
Names = Annotated[list[str] | None, typer.Argument(help="As for show; without any, all shipped and installed ones.")]


def list_models(*, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """List the models that the node finds by name: those that came with this version, then the installed ones."""
    table = Table(Column("name", no_wrap=True), "where", "version", "reader", "digest", "trained on")
    told = []
    for folder in model_folders(_installed(config)):
        where = "shipped" if folder.parent == SHIPPED else "installed"
        row: dict[str, Any] = {"name": folder.name, "where": where, "folder": str(folder)}
        try:
            model = Model(folder, read_card(folder / CARD))
        except ModelError as error:
            told.append(row | {"fault": str(error)})
            table.add_row(folder.name, where, "", "", "", str(error), style="red")
            continue
        card = model.card
        told.append(_facts(model) | row)
        table.add_row(folder.name, where, card.version, card.reader, model.digest[:12], card.training.data)
    if as_json:
        print_json(told)
    else:
        _print(table)


def show(name: Name, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Show a model's card: what it is for, what it was trained on, its networks, thresholds, weights and figures."""
    model = open_model(name, _installed(config))
    if as_json:
        print_json({"folder": str(model.folder), **_facts(model)})
        return
    for title, values in _tables({"folder": model.folder, **_facts(model)}):
        table = Table(Column("key", no_wrap=True), Column("value", overflow="fold"), title=title, title_justify="left")
        for key, value in _flat(values):
            table.add_row(key, value)
        _print(table)


def verify(names: Names = None, *, config: ConfigOption = None, as_json: JsonOption = False) -> None:
    """Try models as the node would: card, reader, digests of all weights, networks that these tensors fit.

    Exit status 1 when a model has a fault; every weights file that is missing or another one is named.
    """
    from ai.installation import verify as faults_of  # noqa: PLC0415 (keeps --help quick)

    installed = _installed(config)
    told = []
    for name in names or [folder.name for folder in model_folders(installed)]:
        try:
            model = open_model(name, installed)
            found = {"name": name, "digest": model.digest, "faults": [str(fault) for fault in faults_of(model)]}
        except ModelError as error:
            found = {"name": name, "digest": "", "faults": [str(error)]}
        told.append(found)
    if as_json:
        print_json(told)
    for found in () if as_json else told:
        for fault in found["faults"]:
            typer.echo(f"{typer.style('FAIL', fg=typer.colors.RED)} {found['name']}: {fault}")
        if not found["faults"]:
            typer.echo(f"{typer.style('ok  ', fg=typer.colors.GREEN)} {found['name']}, digest {found['digest'][:12]}")
    raise typer.Exit(1 if any(found["faults"] for found in told) else 0)


def install(
    source: Annotated[Path, typer.Argument(help="Model directory, or a ZIP of one.", exists=True)],
    *,
    into: Annotated[Path | None, typer.Option(help="Models folder; else reader.models_folder of the settings.")] = None,
    config: ConfigOption = None,
) -> None:
    """Copy a model into the models folder once it is verified; the node then finds it by the name on its card.

    Nothing is ever overwritten: another model of that name is refused.
    """
    from ai.installation import install as run  # noqa: PLC0415 (as above)

    found_by_name = _installed(config)
    model, new = run(source, into or found_by_name)
    typer.echo(f"{model.folder} {'installed' if new else 'was there already'}, digest {model.digest[:12]}", err=True)
    name = model.folder.resolve() if into and into.resolve() != found_by_name.resolve() else model.card.name
    typer.echo(f'[reader]\nmodel = "{name}"')


def _installed(config: Path | None) -> Path:
    return load_settings(config).reader.models_folder


def _print(table: Table) -> None:
    Console(markup=False).print(table)  # a card's words may have brackets


def _facts(model: Model) -> dict[str, Any]:
    return {"digest": model.digest, **model.card.model_dump(mode="json")}


def _tables(facts: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the card's tables with their names, what stands in none of them first: short keys leave room for values."""
    named = {key: value for key, value in facts.items() if isinstance(value, Mapping) and value}
    yield "", {key: value for key, value in facts.items() if key not in named}
    for name, values in named.items():
        if name == "evaluation":
            yield from ((f"evaluation.{part}", figures) for part, figures in values.items())
        else:
            yield name, values


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield every value of nested tables with its dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            for number, item in enumerate(value):
                yield from _flat(item, f"{prefix}{key}.{number}.")
        else:
            yield f"{prefix}{key}", ", ".join(map(str, value)) if isinstance(value, list) else str(value)
