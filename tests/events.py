"""Every event that our code can log, found in its source."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
LEVELS = ("debug", "info", "warning", "error", "exception", "critical")


@dataclass(frozen=True)
class Logged:
    """A call that logs: where, at which levels, which event; None when its name is not a constant."""

    where: str
    levels: tuple[str, ...]
    event: str | None


def logged_events() -> list[Logged]:
    """Return what all modules of our packages log."""
    paths = [path for room in ("node", "ai", "storage", "config") for path in sorted((ROOT / room).rglob("*.py"))]
    return [logged for path in paths for logged in _in_module(path)]


def _in_module(path: Path) -> Iterator[Logged]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    # A logging method may have been given a name, or be chosen between two, before it is called.
    named = {
        target.id: levels
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and (levels := _levels(node.value, {}))
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (levels := _levels(node.func, named)):
            where = f"{path.relative_to(ROOT)}:{node.lineno}"
            for event in _constants(node.args[0]) if node.args else [None]:
                yield Logged(where, levels, event)


def _levels(node: ast.expr, named: dict[str, tuple[str, ...]]) -> tuple[str, ...]:
    match node:
        case ast.Attribute(value=ast.Name(id="log"), attr=level) if level in LEVELS:
            return (level,)
        case ast.IfExp(body=one, orelse=other):
            return _levels(one, named) + _levels(other, named)
        case ast.Name(id=name):
            return named.get(name, ())
        case _:
            return ()


def _constants(node: ast.expr) -> list[str | None]:
    match node:
        case ast.Constant(value=str(event)):
            return [event]
        case ast.IfExp(body=one, orelse=other):
            return _constants(one) + _constants(other)
        case _:
            return [None]
