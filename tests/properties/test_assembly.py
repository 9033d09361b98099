"""Exam assembly under any arrival order, any duplication and any time."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from ai.exam import STANDARD_VIEWS, Laterality, View
from config.policy import CompletionPolicy
from node.exams import Candidate, Close, Completeness, Wait, assemble, decide, outcome
from node.views import ImageKind
from storage.states import Plan

NOON = datetime(2026, 1, 10, 12, tzinfo=UTC)


@st.composite
def some_candidate(draw: st.DrawFn, number: int) -> Candidate:
    view = draw(st.none() | st.sampled_from(STANDARD_VIEWS))
    usable = view is not None and draw(st.booleans())
    obstacle = st.sampled_from(["lossy compressed", "partial view", "several frames"])
    return Candidate(
        instance_uid=f"1.2.{number}",
        kind=ImageKind.FOR_PRESENTATION if usable else draw(st.sampled_from(ImageKind)),
        laterality=view.laterality if view else draw(st.none() | st.sampled_from(Laterality)),
        view=view,
        usable=usable,
        obstacles=() if usable else tuple(draw(st.lists(obstacle, min_size=1, max_size=2, unique=True))),
        acquired_at=draw(st.sampled_from(["", "20260110101500.000000", "20260110101600.000000"])),
        instance_number=draw(st.none() | st.integers(0, 3)),
        unilateral=draw(st.booleans()),
    )


@st.composite
def some_candidates(draw: st.DrawFn) -> list[Candidate]:
    return [draw(some_candidate(number)) for number in range(draw(st.integers(0, 10)))]


durations = st.integers(0, 20_000).map(lambda seconds: timedelta(seconds=seconds))
policies = st.builds(CompletionPolicy, durations, durations, durations)


@given(candidates=some_candidates(), data=st.data(), one_breast_suffices=st.booleans())
def test_any_arrival_order_and_duplication_give_the_same_assembly(
    candidates: list[Candidate], data: st.DataObject, *, one_breast_suffices: bool
) -> None:
    repeats = data.draw(st.lists(st.sampled_from(candidates), max_size=5)) if candidates else []
    shuffled = data.draw(st.permutations(candidates + repeats))
    assembly = assemble(candidates, one_breast_suffices=one_breast_suffices)
    again = assemble(shuffled, one_breast_suffices=one_breast_suffices)
    assert again == assembly
    assert list(again.chosen) == list(assembly.chosen)


@given(candidates=some_candidates())
def test_every_candidate_is_chosen_or_rejected_with_a_reason(candidates: list[Candidate]) -> None:
    assembly = assemble(candidates)
    chosen = set(assembly.chosen.values())
    assert chosen | assembly.rejected.keys() == {candidate.instance_uid for candidate in candidates}
    assert not chosen & assembly.rejected.keys()
    assert all(assembly.rejected.values())


@given(candidates=some_candidates())
def test_only_usable_images_of_their_view_are_chosen_and_none_is_left_out(candidates: list[Candidate]) -> None:
    by_uid = {candidate.instance_uid: candidate for candidate in candidates}
    assembly = assemble(candidates)
    for view, uid in assembly.chosen.items():
        assert by_uid[uid].usable
        assert by_uid[uid].view == view
    assert set(assembly.chosen) == {candidate.view for candidate in candidates if candidate.usable}


@given(candidates=some_candidates())
def test_no_repeat_of_a_chosen_image_was_taken_later(candidates: list[Candidate]) -> None:
    by_uid = {candidate.instance_uid: candidate for candidate in candidates}
    for view, uid in assemble(candidates).chosen.items():
        moments = [candidate.acquired_at for candidate in candidates if candidate.usable and candidate.view == view]
        assert by_uid[uid].acquired_at == max(moments)


@given(candidates=some_candidates(), one_breast_suffices=st.booleans())
def test_what_is_missing_and_what_is_chosen_make_up_what_is_expected(
    candidates: list[Candidate], *, one_breast_suffices: bool
) -> None:
    assembly = assemble(candidates, one_breast_suffices=one_breast_suffices)
    assert not set(assembly.missing) & set(assembly.chosen)
    expected = [*assembly.chosen, *assembly.missing]
    if assembly.unilateral:
        assert {view.laterality for view in expected} == {assembly.unilateral}
        assert len(expected) == 2
        assert assembly.complete
    else:
        assert set(expected) == set(STANDARD_VIEWS)


@given(candidates=some_candidates(), policy=policies, last=durations, times=st.lists(durations, min_size=2))
def test_a_decision_to_close_stands_as_time_passes(
    candidates: list[Candidate], policy: CompletionPolicy, last: timedelta, times: list[timedelta]
) -> None:
    assembly = assemble(candidates)
    verdicts = [
        decide(
            assembly,
            candidates,
            opened_at=NOON,
            last_image_at=NOON + last,
            now=NOON + max(time, last),
            policy=policy,
        )
        for time in sorted(times)
    ]
    closed = [verdict for verdict in verdicts if isinstance(verdict, Close)]
    waits = verdicts[: len(verdicts) - len(closed)]
    assert all(isinstance(verdict, Wait) for verdict in waits)
    assert len(set(closed)) <= 1
    assert len(set(waits)) <= 1


@given(candidates=some_candidates(), policy=policies, last=durations)
def test_an_exam_is_closed_exactly_when_it_said_it_would_be(
    candidates: list[Candidate], policy: CompletionPolicy, last: timedelta
) -> None:
    def verdict(now: datetime) -> Wait | Close:
        return decide(
            assemble(candidates), candidates, opened_at=NOON, last_image_at=NOON + last, now=now, policy=policy
        )

    early = verdict(NOON + last)
    if isinstance(early, Wait):
        assert early.until <= NOON + policy.hard_cap
        assert isinstance(verdict(early.until), Close)
        assert verdict(early.until - timedelta(microseconds=1)) == early


@given(candidates=some_candidates())
def test_the_answer_that_is_asked_for_fits_what_is_there(candidates: list[Candidate]) -> None:
    assembly = assemble(candidates)
    policy = CompletionPolicy(timedelta(0), timedelta(0), timedelta(0))
    verdict = decide(assembly, candidates, opened_at=NOON, last_image_at=NOON, now=NOON, policy=policy)
    assert isinstance(verdict, Close)
    assert (verdict.plan is Plan.READ) == bool(assembly.chosen)
    assert (verdict.completeness is Completeness.COMPLETE) == (len(assembly.chosen) == 4)
    assert (verdict.completeness is Completeness.UNILATERAL) == (assembly.unilateral is not None)
    assert bool(verdict.reasons) == (verdict.completeness is not Completeness.COMPLETE)
    assert len(set(verdict.reasons)) == len(verdict.reasons)


@given(candidates=some_candidates(), data=st.data(), one_breast_suffices=st.booleans())
def test_a_view_is_read_from_the_best_of_its_images_that_can_be_read_and_all_others_have_a_reason(
    candidates: list[Candidate], data: st.DataObject, *, one_breast_suffices: bool
) -> None:
    planned = assemble(candidates, one_breast_suffices=one_breast_suffices)
    broken = set(data.draw(st.lists(st.sampled_from([uid for _, uid in planned.in_order] or [""]), max_size=8)))
    # Those are tried until one can be read.
    not_read: dict[str, str] = {}
    read: dict[str, View] = {}
    for view, uid in planned.in_order:
        if view not in read.values():
            if uid in broken:
                not_read[uid] = "broken"
            else:
                read[uid] = view
    done = outcome(candidates, not_read, one_breast_suffices=one_breast_suffices)
    assert {uid: view for uid, view in done.views.items() if uid not in not_read} == read
    assert sorted(done.views.values()) == sorted(planned.chosen)
    assert done.not_read.keys() | read.keys() == {candidate.instance_uid for candidate in candidates}
    assert not done.not_read.keys() & read.keys()
    assert set(done.missing) == set(planned.missing) | (set(planned.chosen) - set(read.values()))
    assert len(done.stand_ins) == sum(planned.chosen[view] != uid for uid, view in read.items())
