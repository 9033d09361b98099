"""UIDs of result objects: the same reading gives the same UIDs, and no other reading gives them (rule R1)."""

import hashlib
import json
from dataclasses import astuple, dataclass

from ai.findings import Mass
from node.identity import VERSION
from node.results.answer import Answer
from node.results.appraisal import doubts


@dataclass(frozen=True)
class ObjectUIDs:
    """Names everything that one answer makes.

    Attributes
    ----------
    installation
        Random identifier of this installation: two sites never make the same UID.
    study, exam
        Study Instance UID and exam identifier.
    model
        Digest of the model.
    mix
        Digest of the object mix that shows the answer.
    reading
        Digest of the images, the settings and the content of the answer.
    """

    installation: str
    study: str
    exam: str
    model: str
    mix: str
    reading: str

    @classmethod
    def of(cls, answer: Answer, installation: str, settings_digest: str, mix_digest: str) -> "ObjectUIDs":
        """Name the objects of an answer.

        Parameters
        ----------
        answer
            The answer; all of its content takes part.
        installation
            Random identifier of this installation.
        settings_digest
            Digest of every setting that changes the objects' content.
        mix_digest
            Digest of the destination's object mix.
        """
        study = str(answer.images[0].header.StudyInstanceUID)
        reading = _digest(VERSION, settings_digest, sorted(image.uid for image in answer.images), *_content(answer))
        return cls(installation, study, answer.exam, answer.model.digest, mix_digest, reading)

    def instance(self, kind: str, image: str = "") -> str:
        """Return the SOP Instance UID of an object of this kind, for an image or for the whole exam."""
        return self._uid("instance", kind, image, self.model, self.mix, self.reading)

    def series(self, kind: str, image: str = "") -> str:
        """Return the UID of the series that holds only this instance (rule R2)."""
        return self._uid("series", kind, image, self.model, self.mix, self.reading)

    def report_series(self, kind: str) -> str:
        """Return the UID of the series in which all reports of this kind and object mix of an exam stay (rule R2)."""
        return self._uid("report series", kind, self.exam, self.mix)

    def dimensions(self, kind: str, image: str) -> str:
        """Return the Dimension Organization UID of an image's object."""
        return self._uid("dimensions", kind, image, self.model, self.mix, self.reading)

    def tracking(self, image: str, number: int) -> str:
        """Return the Tracking UID of a mass, or of the whole image when the number is 0: one for all object mixes."""
        return self._uid("tracking", image, number, self.model, self.reading)

    def device(self) -> str:
        """Return the Device UID: another one for another model or release, as IHE AIR asks."""
        return name_based_uid(self.installation, "device", VERSION, self.model)

    def _uid(self, *name: object) -> str:
        return name_based_uid(self.installation, self.study, *name)


def _content(answer: Answer) -> list[object]:
    """Return everything in the answer that shows in its objects, as plain values."""
    found = answer.findings
    return [
        answer.revision,
        answer.status,
        answer.created_at.isoformat(),
        [(image.uid, str(image.view), image.not_read) for image in answer.images],
        [str(view) for view in answer.missing],
        answer.reasons,
        sorted(former.instance_uid for former in (*answer.predecessors, *answer.superseded)),
        answer.changes,
        (answer.model.name, answer.model.version, answer.model.notes),
        (found.score, found.span, [(breast.laterality, breast.score) for breast in found.breasts]) if found else None,
        (answer.prevalence, astuple(answer.recall) if answer.recall else None),
        [(match.laterality, match.cc, match.mlo) for match in (found.matches if found else ())],
        [
            (image.uid, image.shape, image.score, image.warnings, [_mass(mass) for mass in image.masses])
            for image in (found.images if found else ())
        ],
        *(doubts(found) if found else ()),
    ]


def _mass(mass: Mass) -> list[object]:
    size = mass.size
    return [
        (mass.number, mass.origin, mass.suspicion, mass.mask.shape),
        hashlib.sha256(mass.mask.tobytes() + mass.contour.tobytes()).hexdigest(),
        (size.area, size.long_axis, size.short_axis, size.unit, size.rule),
    ]


def _digest(*values: object) -> str:
    return hashlib.sha256(json.dumps(values, default=float).encode()).hexdigest()


def name_based_uid(*name: object) -> str:
    """Return the UID of a name-based UUID (PS3.5 B.2) of the first 128 bits of SHA-256, version 8 (RFC 9562, 5.8)."""
    bits = int.from_bytes(bytes.fromhex(_digest(*name))[:16])
    bits = bits & ~(0xF << 76) | 0x8 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return f"2.25.{bits}"
