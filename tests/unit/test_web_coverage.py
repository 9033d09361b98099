"""What the documents say of PS3.18 is what the service answers."""

from pathlib import Path
from typing import Any

from starlette.routing import BaseRoute

from config.settings import Http
from node.conformance.web import NOT_COVERED, RESOURCES, coverage
from node.web.access import Guarded, GuardedSocket
from node.web.dicomweb import dicomweb_routes
from node.web.ups import UnifiedProcedureSteps
from storage.files import FolderStore

PAGE = (Path(__file__).parents[2] / "docs" / "dicomweb.md").read_text(encoding="utf-8")


def routes() -> list[BaseRoute]:
    """Return all resources; none of their collaborators is needed to list them."""
    nobody: Any = None
    steps = UnifiedProcedureSteps(nobody, nobody, ())
    return [*dicomweb_routes(Http(), nobody, FolderStore(Path()), nobody, nobody), *steps.routes()]


def test_every_resource_is_in_the_coverage_table_and_nothing_else() -> None:
    found = set()
    for route in routes():
        assert isinstance(route, Guarded | GuardedSocket)
        methods = {"GET"} if isinstance(route, GuardedSocket) else (route.methods or set()) - {"HEAD"}
        found |= {(method, route.path) for method in methods}
    assert found == set(RESOURCES)


def test_the_page_has_the_present_table() -> None:
    assert coverage() in PAGE
    assert all(what.replace("|", "\\|") in PAGE for what, _ in NOT_COVERED)
