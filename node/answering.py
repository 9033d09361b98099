"""What was read of an exam becomes its answer; for the worker and for the command line alike."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from pydicom import Dataset

from ai.exam import STANDARD_VIEWS
from ai.findings import ModelIdentity
from config.policy import ScorePolicy
from node.analysis import Analysis
from node.exams import Outcome
from node.headers import different_patients, differing_identity
from node.results.answer import Answer, AnswerStatus, ImageAnswer, answer_status

NO_SCORE_POLICY: Final = ScorePolicy()


def answer_of(
    headers: Mapping[str, Dataset],
    done: Outcome,
    analysis: Analysis,
    *,
    exam: str,
    revision: int,
    created_at: datetime,
    model: ModelIdentity,
    reasons: Sequence[str] = (),
    lost: Mapping[str, str] | None = None,
    failed: bool = False,
    scoring: ScorePolicy = NO_SCORE_POLICY,
    sender: str = "",
) -> Answer:
    """Return the answer, which stands on every image that it has the header of.

    Parameters
    ----------
    headers
        SOP Instance UID → data set without pixel data.
    done
        What became of the images.
    analysis
        What was read of them.
    exam, revision, created_at, model
        As in `Answer`.
    reasons
        Sentences that were known before.
    lost
        SOP Instance UID → why its file cannot be read; the answer cannot stand on it.
    failed
        Whether all attempts at reading came to nothing.
    scoring, sender
        What the site makes of the scores of images that this AE title sent.
    """
    findings = analysis.findings
    for_all = None if findings else "; ".join(reasons) or "not analysed"
    images = [
        ImageAnswer(header, done.views.get(uid), done.not_read.get(uid, for_all)) for uid, header in headers.items()
    ]
    images.sort(key=lambda image: STANDARD_VIEWS.index(image.view) if image.view else len(STANDARD_VIEWS))
    told = [*reasons, *(f"{uid}: its file cannot be read ({why})." for uid, why in (lost or {}).items())]
    if differing := differing_identity(headers.values()):
        told.append(different_patients(differing))
    if failed:
        status = AnswerStatus.FAILED
    elif findings is None:
        status = AnswerStatus.NOT_ANALYSED
        told += [f"{uid}: {why}" for uid, why in analysis.not_read.items()]
        told = told or sorted(set(done.not_read.values()))
    else:
        status = answer_status(findings, complete=not done.missing)
        told += done.stand_ins
    return Answer(
        exam=exam,
        revision=revision,
        status=status,
        created_at=created_at.astimezone(),
        images=tuple(images),
        model=model,
        findings=findings,
        missing=done.missing,
        reasons=tuple(told),
        prevalence=scoring.prevalence,
        recall=scoring.limit(sender),
    )
