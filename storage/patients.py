"""Patients, as exams and images name them."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from storage.tables import patients


@dataclass(frozen=True)
class PatientRecord:
    """A patient, identified by Issuer of Patient ID ('' when absent) and Patient ID; values as in the header."""

    issuer: str
    patient_id: str
    name: str = ""
    birth_date: str = ""
    sex: str = ""


def patient_key(connection: Connection, patient: PatientRecord) -> int | None:
    """Return the primary key of a patient, or None."""
    query = select(patients.c.id).where(
        patients.c.issuer == patient.issuer, patients.c.patient_id == patient.patient_id
    )
    return connection.execute(query).scalar_one_or_none()
