"""What is different from the former revision's answer, in sentences (rule R2)."""

from collections.abc import Mapping
from typing import Any

from ai.words import counted
from node.results.answer import Answer
from node.results.facts import facts
from node.results.uids import ObjectUIDs


def changes(former: Mapping[str, Any] | None, answer: Answer, revision: int, threshold: int) -> tuple[str, ...]:
    """Return what changed for those who see findings from a threshold on.

    Parameters
    ----------
    former
        Facts of the former answer (``node.results.facts``); None when they are not known.
    answer
        The new answer, whole.
    revision
        Revision of the former answer.
    threshold
        0 to 100: findings with a lower score are not shown.
    """
    begin = f"Supersedes the answer to revision {revision}"
    if former is None:
        return (f"{begin}.",)
    now = facts(answer, ObjectUIDs.of(answer, "", "", ""))
    differences = [
        *_images(former, now),
        *_status(former, now),
        *_masses(former, now, threshold),
        *_appraisal(former, now),
        *_model(former, now),
    ]
    return (f"{begin}: {'; '.join(differences) or 'the same findings'}.",)


def _images(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    views = [
        {image["uid"]: image["view"] for image in each["images"] if not image["not_read"]} for each in (former, now)
    ]
    before, after = views
    new = [str(after[uid]) for uid in after if uid not in before]
    gone = [str(before[uid]) for uid in before if uid not in after]
    told = {
        "another image read": [view for view in new if view in gone],
        "now read": [view for view in new if view not in gone],
        "no longer read": [view for view in gone if view not in new],
    }
    return [f"{words}: {', '.join(which)}" for words, which in told.items() if which]


def _status(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Tell whether more or less was read; whether something was found is told by the masses."""
    before, after = (str(each["status"]).removesuffix("no findings").removesuffix("findings") for each in (former, now))
    return [] if before == after else [f"the former answer was '{before.strip(', ') or 'all views read'}'"]


def _masses(former: Mapping[str, Any], now: Mapping[str, Any], threshold: int) -> list[str]:
    before, after = (_shown(each, threshold) for each in (former, now))
    lines = []
    for view, new in after.items():
        old = before.get(view, [])
        if len(old) != len(new):
            lines.append(f"{view}: {_count(new)}" + (f" (was {_count(old)})" if view in before else ""))
        elif old != new:
            lines.append(f"{view}: new outlines or scores")
    return lines


def _shown(told: Mapping[str, Any], threshold: int) -> dict[str, list[Any]]:
    return {
        str(image["view"]): [
            (mass["suspicion"], mass["contour"]) for mass in image["masses"] if mass["suspicion"] >= threshold
        ]
        for image in told["images"]
        if not image["not_read"]
    }


def _count(masses: list[Any]) -> str:
    return counted(len(masses), "mass", "masses")


def _appraisal(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Tell that the site, the model's calibration or its parts make something else of the same score."""
    anew = former["score"] == now["score"] and former.get("appraisal", []) != now["appraisal"]
    return ["other limits, probabilities or doubts for the same scores"] if anew else []


def _model(former: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    old, new = former["model"], now["model"]
    if old["digest"] == new["digest"]:
        return []
    named = [f"{each['name']} {each['version']}" for each in (new, old)]
    if named[0] == named[1]:  # other weights or thresholds under the same name
        named = [f"{name}, digest {each['digest'][:12]}" for name, each in zip(named, (new, old), strict=True)]
    return [f"read by {named[0]} (was {named[1]})"]
