"""The DICOMweb service: all its resources together (PS3.18)."""

from sqlalchemy import Engine
from starlette.routing import BaseRoute

from config.settings import Http
from node.intake import Receiver
from node.web.decoding import Decoders
from node.web.qido import Search
from node.web.rendered import Render
from node.web.stow import Store
from node.web.wado import Retrieve
from storage.files import InstanceStore


def dicomweb_routes(
    settings: Http, engine: Engine, store: InstanceStore, intake: Receiver, decoders: Decoders
) -> list[BaseRoute]:
    """Return the resources of STOW-RS, QIDO-RS and WADO-RS.

    Parameters
    ----------
    settings
        How much one request may bring.
    engine, store
        What is held.
    intake
        Takes what is stored.
    decoders
        Decode pixels where that is asked for; the caller closes them.
    """
    retrieve = Retrieve(engine, store, decoders)
    return [
        *Store(intake, store.incoming, settings).routes(),
        *Search(engine, store).routes(),
        *retrieve.routes(),
        *Render(retrieve, store, decoders).routes(),
    ]
