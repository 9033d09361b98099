"""What can go wrong at the doors; a class's docstring is its message and says what to check."""


class NodeError(Exception):
    """The node failed."""

    def __init__(self, particular: object = "") -> None:
        message = " ".join((type(self).__doc__ or "").split())
        super().__init__(f"{message} ({particular})" if particular != "" else message)


class UnparsableDataset(NodeError):
    """The data set cannot be parsed."""


class TooManyLargeHeaders(NodeError):
    """Too many large headers at once: send it again."""


class UIDsMissing(NodeError):
    """A class, study or series UID is missing or malformed."""


class InstanceUIDInvalid(NodeError):
    """The SOP Instance UID is malformed or not the announced one."""


class ClassMismatch(NodeError):
    """The SOP Class UID is not the announced one."""


class ClassNotTaken(NodeError):
    """The SOP class is none that this node takes."""


class SyntaxNotTaken(NodeError):
    """The transfer syntax is none that this node takes for the SOP class."""


class StudyMismatch(NodeError):
    """The instance does not belong to the study that it was sent to."""


class CannotListen(NodeError):
    """A door cannot be opened: check bind and port in [dicom] and [http], and whether another program uses them."""


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


class BadRequest(NodeError):
    """The request cannot be understood."""


class NotAuthenticated(NodeError):
    """Credentials are missing or not valid: send a token as Authorization: Bearer, or log in."""


class NotAllowed(NodeError):
    """The credentials do not allow it: ask for a token of the scope that is named."""


class NoSuchResource(NodeError):
    """There is nothing under this address."""


class NotAcceptable(NodeError):
    """None of the media types that are accepted can be given: check the Accept header."""


class UnsupportedMediaType(NodeError):
    """The media type is not taken: check the Content-Type header."""


class BodyTooLarge(NodeError):
    """The body is larger than this node takes: send less at once, or raise http.maximum_body_mb."""


class BodyStalled(NodeError):
    """Nothing more of the body came: look whether the sender or its network has stopped, or raise http.network_timeout."""


class HeadTooLarge(NodeError):
    """The request's address and header fields are longer than this node takes: send fewer or shorter ones, as of cookies."""


class TooManyParts(NodeError):
    """The body has more parts than this node takes: send fewer at once, or raise http.maximum_parts."""


class TooManyRequests(NodeError):
    """Too many requests in a short time: wait as long as Retry-After says."""


class Overloaded(NodeError):
    """Too many requests at once: try again as Retry-After says, or raise http.maximum_requests."""


class NotProtected(NodeError):
    """The HTTP door stays closed to the network while callers need not say who they are: mammonode tokens add."""


class Gone(NodeError):
    """It was here, and was removed after its time."""


class NotRenderable(NodeError):
    """It has no picture, or one that cannot be decoded or given in this form."""


class TlsUnusable(NodeError):
    """The certificate, key or list cannot be used: check which file it is, and who may read it."""


class HandshakeFailed(NodeError):
    """There is no TLS connection with the destination: check the certificates of both sides."""


class CertificateUnusable(NodeError):
    """The certificate cannot be used: check certificate, key and client_ca in [http], and who may read these files."""


class PerformedHere(NodeError):
    """The node performs its workitems itself: others can ask for one, watch it, and ask for it to be cancelled."""


class SourceUnknown(NodeError):
    """The study cannot be retrieved from there: add the web service to worklist.sources in the settings."""


class NodeRuns(NodeError):
    """The node runs, and would not see what changes under it: stop it first (systemctl stop 'mammonode*')."""
