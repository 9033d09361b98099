"""What can go wrong at the doors; a class's docstring is its message and says what to check."""


class NodeError(Exception):
    """The node failed."""

    def __init__(self, particular: object = "") -> None:
        message = " ".join((type(self).__doc__ or "").split())
        super().__init__(f"{message} ({particular})" if particular != "" else message)


class UnparsableDataset(NodeError):
    """The data set cannot be parsed."""


class UIDsMissing(NodeError):
    """A class, study or series UID is missing or malformed."""


class InstanceUIDInvalid(NodeError):
    """The SOP Instance UID is malformed or not the announced one."""


class ClassMismatch(NodeError):
    """The SOP Class UID is not the announced one."""


class CannotListen(NodeError):
    """The DICOM door cannot be opened: check dicom.bind and dicom.port, and whether another program uses them."""


class DestinationUnreachable(NodeError):
    """The destination does not answer: check its host, its port and the network in between."""


class AssociationRejected(NodeError):
    """The destination rejected the association: check both AE titles, and whether it must know ours."""


class ContextsRejected(NodeError):
    """The destination takes none of the SOP classes that were proposed: check what its configuration accepts."""


class QueryFailed(NodeError):
    """The destination did not answer C-FIND: check whether it lets us query (Study Root, level IMAGE)."""


class UnknownTransaction(NodeError):
    """Storage commitment was not asked for under this Transaction UID."""


class InvalidInformation(NodeError):
    """The event or action information lacks a UID or a reason."""


class NotWellKnownInstance(NodeError):
    """The SOP Instance is not the well-known one."""


class NoSuchEvent(NodeError):
    """Storage commitment has no event of this type."""


class NoSuchAction(NodeError):
    """Storage commitment has no action of this type."""
