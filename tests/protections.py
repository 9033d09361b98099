"""Protections and the tests that fail without them: ``python -m tests.protections [WORDS]`` takes out one after the other.

Each is taken out in a copy of the sources, where its test must fail. A protection whose text is not there any more is told
by `tests/unit/test_protections.py`.
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("ai", "config", "node", "storage", "tests", "pyproject.toml", "docs", "README.md", "Makefile")
PATIENCE = 600


@dataclass(frozen=True)
class Protection:
    """What is taken out, and what must fail then.

    Attributes
    ----------
    name
        What it protects, in words.
    file, text, without
        Where it stands, and what stands there without it.
    test
        Arguments of pytest.
    """

    name: str
    file: str
    text: str
    without: str
    test: str


RECEIVING = "tests/integration/test_failing_writes.py"
HOSTILE = "tests/properties/test_hostile_pdus.py"
BODIES = "tests/integration/test_web_bodies.py"
PROTECTIONS = (
    Protection(
        "the bytes of an instance go to the disk before it is in its place",
        "node/intake.py",
        "beside.map(self._store.flush, [temp])\n",
        "beside.map(str, [temp])\n",
        f"{RECEIVING} tests/acceptance/test_faults.py -k 'written_in_this_order or system_calls or kernel'",
    ),
    Protection(
        "an image of which only the row is left is kept again when it comes again",
        "node/intake.py",
        "                put_back(self._engine, self._store, temp, record, lost[0])\n",
        "",
        "tests/integration/test_lost_files.py -k 'again or too'",
    ),
    Protection(
        "nobody brings a database up to date under a serve of the former version",
        "node/parts.py",
        "        raise DatabaseServed(other)\n",
        "        pass\n",
        "tests/integration/test_versions.py -k under",
    ),
    Protection(
        "a worker reads nothing of a database that another version has",
        "node/worker.py",
        "        require_schema(self._engine)\n",
        "",
        "tests/integration/test_versions.py -k at_work",
    ),
    Protection(
        "the folder of an instance goes to the disk before success is answered",
        "storage/files.py",
        "        _flush(target.parent)\n        temp.unlink()\n",
        "        temp.unlink()\n",
        f"{RECEIVING} -k written_in_this_order",
    ),
    Protection(
        "the folders that lead to it do so, too",
        "storage/files.py",
        "                _flush(self.root / folder.parent)\n",
        "",
        f"{RECEIVING} -k written_in_this_order",
    ),
    Protection(
        "SQLite waits for the disk at each commit",
        "storage/database.py",
        "PRAGMA synchronous=FULL",
        "PRAGMA synchronous=OFF",
        "tests/acceptance/test_faults.py -k kernel",
    ),
    Protection(
        "what went wrong while receiving is no success",
        "node/scp.py",
        "            answer.Status = receiving_status(error)\n",
        "            answer.Status = SUCCESS\n",
        f"{RECEIVING} -k step_of_receiving",
    ),
    Protection(
        "what a sender asks while it is told of its storage commitment is served",
        "node/guard.py",
        "            if message.is_valid_request:\n                self.assoc._serve_request(message, number)",
        "            if False:\n                self.assoc._serve_request(message, number)",
        "tests/integration/test_safekeeping.py -k crosses",
    ),
    Protection(
        "a storage commitment is reported after the request was answered",
        "node/guard.py",
        " or self.msg_queue.unfinished_tasks\n",
        "\n",
        "tests/integration/test_safekeeping.py -k however_late",
    ),
    Protection(
        "what was received in vain is removed",
        "node/intake.py",
        "            finally:\n                temp.unlink(missing_ok=True)\n",
        "            finally:\n                pass\n",
        "tests/integration/test_intake.py -k 'not_dicom or not_what_it_should_be'",
    ),
    Protection(
        "a disk below the watermark takes nothing",
        "node/intake.py",
        "                self.require_space()\n                return",
        "                return",
        "tests/integration/test_intake.py -k too_full",
    ),
    Protection(
        "an instance without end stops at the watermark",
        "node/guard.py",
        "            self._require_space()\n",
        "            pass\n",
        f"{HOSTILE} -k does_not_end_stops",
    ),
    Protection(
        "the file of an instance that was cut off is closed",
        "node/guard.py",
        "            self._close()\n        with self._lock:",
        "            pass\n        with self._lock:",
        "tests/integration/test_receiving.py -k cut_association",
    ),
    Protection(
        "the file of an instance that was cut off is removed",
        "node/guard.py",
        "                path.unlink(missing_ok=True)\n",
        "                pass\n",
        "tests/integration/test_receiving.py -k cut_association",
    ),
    Protection(
        "no PDU is longer than any that is read",
        "node/line.py",
        "        if nr_bytes > LONGEST_PDU:",
        "        if nr_bytes > 1 << 40:",
        f"{HOSTILE} -k claimed_length",
    ),
    Protection(
        "half a PDU is not waited for",
        "node/line.py",
        "_await(self.socket, _left(until))",
        "_await(self.socket, 1e6)",
        f"{HOSTILE} -k 'does_not_end_is_not_waited_for and byte'",
    ),
    Protection(
        "an error in the protocol ends its association alone",
        "node/guard.py",
        "            self._end()\n        except Exception",
        "            raise\n        except Exception",
        f"{HOSTILE} -k no_sequence_of_pdus",
    ),
    Protection(
        "an association that is mixed up is ended",
        "node/guard.py",
        "        if number != self._context:",
        "        if number < 0:",
        f"{HOSTILE} -k 'breaks_the_rules'",
    ),
    Protection(
        "a deflated bomb is not unpacked",
        "node/records.py",
        "256 << 20",
        "1 << 40",
        "tests/properties/test_hostile_datasets.py -k 'bomb'",
    ),
    Protection(
        "a job goes to another worker when its lease has ended",
        "storage/jobs.py",
        ".where(waits | abandoned, ",
        ".where(waits, ",
        "tests/integration/test_storage_jobs.py -k lease_ended",
    ),
    Protection(
        "a lost lease hands nothing over",
        "storage/jobs.py",
        "        if connection.execute(held).one_or_none() is None:\n            raise LeaseLost",
        "        if connection.execute(held).one_or_none() is None and not job.id:\n            raise LeaseLost",
        "tests/integration/test_storage_jobs.py tests/integration/test_worker_again.py -k 'lost'",
    ),
    Protection(
        "an exam on which the reader always breaks is answered",
        "storage/jobs.py",
        "            if not self._gave_up(job, now):\n                return job\n",
        "            return job\n",
        "tests/integration/test_storage_jobs.py tests/integration/test_worker_again.py -k 'used_up or always_fails'",
    ),
    Protection(
        "a reading that hangs ends its worker",
        "node/worker.py",
        "            self._on_hang()\n",
        "            pass\n",
        "tests/integration/test_worker_hangs.py",
    ),
    Protection(
        "an error of a reader does not end the worker",
        "node/worker.py",
        "                self._fail(job, error)\n",
        "                raise\n",
        "tests/integration/test_worker_again.py -k failed_is_tried_again",
    ),
    Protection(
        "an image that cannot be decoded costs the others nothing",
        "node/analysis.py",
        "        except UndecodablePixels as error:\n            self.not_read[source.uid] = str(error)\n            return None\n",
        "        except UndecodablePixels as error:\n            raise\n",
        "tests/integration/test_worker_failures.py -k cannot_be_decoded_costs",
    ),
    Protection(
        "what the gate refuses no reader sees",
        "node/analysis.py",
        "            self.not_read[image.uid] = gated.refusal\n            return None\n",
        "            return gated.image\n",
        "tests/integration/test_worker_failures.py -k gate_refuses",
    ),
    Protection(
        "one UID is never issued with two contents",
        "storage/results.py",
        "            if issued != record.path:\n",
        "            if issued is None:\n",
        "tests/integration/test_storage_jobs.py -k two_contents",
    ),
    Protection(
        "memory that does not suffice is asked for less",
        "ai/readers/memory.py",
        "if way is Economy.NONE and not is_out_of_memory(error):",
        "if way is Economy.NONE:",
        "tests/unit/test_ai_memory.py",
    ),
    Protection(
        "what half precision cannot hold is no answer",
        "ai/readers/memory.py",
        "            raise FloatingPointError\n",
        "            pass\n",
        "tests/unit/test_ai_memory.py -k cannot_hold",
    ),
    Protection(
        "a clock that was put back holds nothing up",
        "storage/database.py",
        "    return (moment <= now) | (moment > now + longest)\n",
        "    return moment <= now\n",
        "tests/integration/test_storage_jobs.py tests/integration/test_storage_outbox.py -k put_back",
    ),
    Protection(
        "an exam does not wait until a clock that was put back has caught up",
        "node/clock.py",
        "        if max(exam.opened_at, exam.last_image_at) > now:\n",
        "        if exam.last_image_at is None:\n",
        f"{RECEIVING} -k clock_that_jumps_back",
    ),
    Protection(
        "a clock that was put back changes no order of an exam's answers",
        "storage/results.py",
        "    return now if last is None or last <= now else last + timedelta.resolution\n",
        "    return now\n",
        "tests/integration/test_storage_outbox.py -k changes_no_order",
    ),
    Protection(
        "nothing is removed for its age while the clock may be ahead",
        "node/retention.py",
        "        if not self._is_doubtful():\n",
        "        if True:\n",
        "tests/integration/test_retention.py -k doubtful",
    ),
    Protection(
        "an image that comes while its exam is being closed is not left out",
        "storage/exams.py",
        "    if (present.revision, present.arrivals) != (exam.revision, exam.arrivals):\n",
        "    if present.revision != exam.revision:\n",
        "tests/integration/test_clock.py -k being_closed",
    ),
    Protection(
        "no older answer follows a newer one",
        "storage/exams.py",
        "    _supersede(connection, (jobs.c.exam_id == exam.id) & (jobs.c.revision < exam.revision), now)\n",
        "",
        "tests/integration/test_storage_jobs.py -k no_older_answer",
    ),
    Protection(
        "one destination holds up no other",
        "storage/outbox.py",
        "        deliveries.c.destination == destination,\n",
        "",
        "tests/integration/test_storage_outbox.py -k 'one_destination'",
    ),
    Protection(
        "nothing is sent twice at once",
        "storage/outbox.py",
        "deliveries.c.id.not_in(taken)",
        "deliveries.c.id.is_not(None)",
        "tests/integration/test_storage_outbox.py -k in_hand",
    ),
    Protection(
        "what was sent is sent again until the destination has answered",
        "node/delivery.py",
        "                state = self._outbox.again(",
        "                state = self._outbox.refused(delivery, response.message, response.status, now) or self._outbox.again(",
        "tests/integration/test_delivery.py -k 'abort_costs'",
    ),
    Protection(
        "a held exam is not delivered",
        "storage/outbox.py",
        "        exams.c.held.is_(False),\n        ~paused",
        "        ~paused",
        "tests/integration/test_storage_outbox.py -k held",
    ),
    Protection(
        "what was not committed is sent again",
        "storage/commitments.py",
        "                elif word.verdict is Verdict.SEND_AGAIN:\n",
        "                elif word.verdict is None:\n",
        "tests/integration/test_commitment.py -k not_committed_is_sent_again",
    ),
    Protection(
        "an old failure does not undo what was sent since",
        "storage/commitments.py",
        "                elif delivery.sent_at is None or asked.asked_at < delivery.sent_at:\n",
        "                elif delivery.sent_at is None:\n",
        "tests/integration/test_commitment.py -k too_late",
    ),
    Protection(
        "nothing is waived that may still go out",
        "storage/waiving.py",
        "_ENDED_BADLY | (_OPEN & stands_still)",
        "_ENDED_BADLY | _OPEN",
        "tests/integration/test_waiving.py -k may_be_waived",
    ),
    Protection(
        "what was accepted while it was waived is sent",
        "storage/outbox.py",
        "[DeliveryState.WAIVED, DeliveryState.RECALLED] if state is",
        "[DeliveryState.RECALLED] if state is",
        "tests/integration/test_waiving.py -k in_hand",
    ),
    Protection(
        "of a result that was recalled while it was being sent it is known that it arrived",
        "storage/outbox.py",
        "DeliveryState.RECALLED] if state is DeliveryState.SENT else []",
        "] if state is DeliveryState.SENT else []",
        "tests/integration/test_delivery_lanes.py -k recalled_while",
    ),
    Protection(
        "no earlier answer follows a later one that has overtaken it",
        "storage/outbox.py",
        "            if recalled:\n",
        "            if not recalled:\n",
        "tests/integration/test_storage_outbox.py -k has_overtaken",
    ),
    Protection(
        "nor where it was sent and is missing",
        "storage/proofs.py",
        "overtaking(delivery).where(deliveries.c.state.in_(_THERE))",
        "overtaking(delivery).where(deliveries.c.state.is_(None))",
        "tests/integration/test_storage_outbox.py -k later_answer_is_there",
    ),
    Protection(
        "nor does another association overtake it",
        "node/delivery.py",
        "if not hand.precedes(each)]",
        "if hand]",
        "tests/integration/test_delivery_lanes.py -k takes_a_later",
    ),
    Protection(
        "no report is kept back before a later one is there",
        "storage/deliveries.py",
        "dict.fromkeys(ResultKind, tuple(ResultKind)) | dict.fromkeys(_TELLING, _TELLING)",
        "dict.fromkeys(ResultKind, tuple(ResultKind))",
        "tests/integration/test_storage_outbox.py -k the_later_one_is_refused",
    ),
    Protection(
        "what a destination has already is delivered",
        "node/status.py",
        "    if status in {SUCCESS, DUPLICATE_INSTANCE} or",
        "    if status == SUCCESS or",
        "tests/unit/test_status.py -k already",
    ),
    Protection(
        "what is left of a damaged result is not sent for the whole",
        "node/delivery.py",
        "path.stat().st_size) != size",
        "path.stat().st_size) < 0",
        "tests/integration/test_delivery_lanes.py -k part_is_left",
    ),
    Protection(
        "what failed without a reason, or with one of its service's own, is not taken to be stored",
        "node/status.py",
        "is_failure = reason != SUCCESS and not is_warning(reason)",
        "is_failure = True",
        "tests/integration/test_stow_delivery.py -k taken_as_a_status",
    ),
    Protection(
        "nothing is sent again that a destination is not to get any more",
        "storage/resending.py",
        "if (row.destination, row.kind) in pairs",
        "if row.destination in wanted",
        "tests/integration/test_waiving.py -k is_to_get_by_now",
    ),
    Protection(
        "nothing is removed before it is delivered",
        "storage/removals.py",
        ".where(~delivered.where(_keeps(due)).exists())",
        "",
        "tests/integration/test_retention.py -k 'before_its'",
    ),
    Protection(
        "an answer that went nowhere keeps its images",
        "storage/removals.py",
        "            | delivered.exists()\n",
        "            | exams.c.id.is_not(None)\n",
        "tests/integration/test_retention.py -k went_nowhere",
    ),
    Protection(
        "nothing is removed that an operator has to decide about",
        "storage/removals.py",
        "        ~undecided.exists(),\n        paths.exists(),\n",
        "        paths.exists(),\n",
        "tests/integration/test_retention.py -k operator",
    ),
    Protection(
        "a different image under a known UID does not replace the first",
        "node/intake.py",
        "            found = differences(self._store.resolve(first.path), temp)\n",
        "            found = ()\n",
        "tests/integration/test_intake.py -k set_aside",
    ),
    Protection(
        "a part of the node that died is started again",
        "node/supervisor.py",
        "            self.process, self.start_at = None, time.monotonic() + RESTART_AFTER\n",
        "            self.process, self.start_at = None, time.monotonic() + 1e9\n",
        "tests/acceptance/test_main_job.py -k part_that_dies",
    ),
    Protection(
        "a body whose sender has fallen silent is given up by the thread that reads it",
        "node/web/connection.py",
        "self._line.settimeout(silence)",
        "self._line.settimeout(3600)",
        f"{BODIES} -k 'anything_was_kept or image_was_kept'",
    ),
    Protection(
        "and by the event loop",
        "node/web/limits.py",
        "None if is_whole else self._silence",
        "None",
        f"{BODIES} -k of_unknown_length",
    ),
    Protection(
        "headers are not waited for without end",
        "node/web/connection.py",
        "self.loop.call_later(self._patience, self.timeout_keep_alive_handler)",
        "self.loop.call_later(3600, self.timeout_keep_alive_handler)",
        f"{BODIES} -k 'of_headers or from_the_beginning'",
    ),
    Protection(
        "nor is an answer kept for whoever takes no more of it",
        "node/web/connection.py",
        "        else:\n            self.transport.abort()\n",
        "",
        "tests/integration/test_web_door.py -k takes_no_more",
    ),
    Protection(
        "a thread reads no further than its body's end",
        "node/web/connection.py",
        "block = bytearray(self._left)",
        "block = bytearray(BLOCK)",
        f"{BODIES} -k sent_at_once",
    ),
    Protection(
        "what nobody reads of a body is read to its end before the next request",
        "node/web/connection.py",
        "return self._room[: self._unseen] if self._unseen else self._room",
        "return self._room",
        f"{BODIES} -k refused_in_the_middle",
    ),
    Protection(
        "the file of a body is not taken away while its thread still writes, however often the request is given up",
        "node/web/stow.py",
        "with suppress(asyncio.CancelledError):  # once more, while the server ends",
        "with suppress(KeyError):",
        f"{BODIES} -k door_that_closes",
    ),
    Protection(
        "promise: a corrected report from elsewhere recalls no answer",
        "storage/conflicts.py",
        "    if left and first.opens_exam and conflict.identity_changed:",
        "    if left and conflict.identity_changed:",
        "tests/integration/test_corrections.py -k report_from_elsewhere",
    ),
    Protection(
        "promise: a decision waits for what arrives for its exams",
        "storage/exams.py",
        ".order_by(exams.c.id).with_for_update())",
        ".order_by(exams.c.id))",
        "tests/integration/test_decisions_at_once.py",
    ),
    Protection(
        "promise: what was said before the last answer is said anew",
        "node/reply.py",
        "for issue in again[-1:] for record",
        "for issue in again for record",
        "tests/integration/test_worker_again.py -k said_anew",
    ),
    Protection(
        "promise: an image whose file cannot be parsed costs the others nothing",
        "node/analysis.py",
        "            if not _may_pass(error):\n",
        "            if False:\n",
        "tests/integration/test_worker_failures.py -k damaged_attributes",
    ),
    Protection(
        "promise: an exam whose files are gone gets an answer",
        "node/worker.py",
        "                if may_be_lost is not None and record.uid not in may_be_lost:\n",
        "                if True:\n",
        "tests/integration/test_worker_failures.py -k ones_are_gone",
    ),
    Protection(
        "promise: an exam one of whose files is gone is read from the others",
        "node/worker.py",
        "last = self._queue.is_last(job, self._clock())",
        "last = False",
        "tests/integration/test_worker_failures.py -k files_is_gone",
    ),
    Protection(
        "promise: a file that is gone and was not needed costs no reading",
        "node/worker.py",
        "None if last or job.exhausted else",
        "None if job.exhausted else",
        "tests/integration/test_worker_failures.py -k costs_the_exam_no_reading",
    ),
    Protection(
        "promise: an answer that went nowhere keeps its images",
        "storage/removals.py",
        "            | delivered.exists()\n",
        "            | ~delivered.where(_keeps(due)).exists()\n",
        "tests/integration/test_retention.py -k went_nowhere",
    ),
    Protection(
        "promise: a recall finds the other form of what was refused meanwhile",
        "storage/outbox.py",
        "            lock_keys(connection, [delivery.exam_id])\n            # One that",
        "            # One that",
        "tests/integration/test_decisions_at_once.py",
    ),
    Protection(
        "promise: a reload that fails ends nothing",
        "node/running.py",
        "            _reload(reload)\n",
        "            reload()\n",
        "tests/unit/test_supervision.py -k reload_that_fails",
    ),
    Protection(
        "promise: a finished reading is not told as cancelled",
        "node/worklist.py",
        "    if found.job_state is JobState.SUPERSEDED or (found.job_state is None and exam.revision != item.revision):",
        "    if found.job_state is JobState.SUPERSEDED or exam.revision != item.revision:",
        "tests/integration/test_ups.py",
    ),
    Protection(
        "promise: a mask that is not white on black is no negative",
        "ai/datasets/truth.py",
        "    if 0 < highest <= limit:",
        "    if False:",
        "tests/unit/test_datasets_truth.py",
    ),
    Protection(
        "promise: the path of a removed copy is not used again",
        "storage/files.py",
        "{uuid.uuid4().hex}.dcm",
        "1.dcm",
        "tests/integration/test_retention.py -k after_a_removed_copy",
    ),
    Protection(
        "a recall waits for the other form of what was refused",
        "storage/outbox.py",
        "            lock_keys(connection, [delivery.exam_id])\n            # One that",
        "            # One that",
        "tests/integration/test_decisions_at_once.py -k other_form",
    ),
    Protection(
        "promise: no answer overtakes an earlier one that waits to be tried again",
        "storage/outbox.py",
        "come | before)",
        "come)",
        "tests/integration/test_storage_outbox.py -k goes_before_a_later_one",
    ),
    Protection(
        "promise: time in which nothing was tried gives no delivery up",
        "config/policy.py",
        "        moved = idle if idle > self.slow else timedelta(0)",
        "        moved = timedelta(0)",
        "tests/integration/test_storage_outbox.py -k counts_for_nothing",
    ),
    Protection(
        "promise: an object that a service hangs up on counts against no other",
        "node/user_agent.py",
        "                    if not _was_reached(error):\n                        raise\n",
        "                    raise\n",
        "tests/integration/test_stow_delivery.py -k hangs_up_on",
    ),
)


def take_out(protection: Protection, folder: Path) -> None:
    """Take a protection out of the sources in a folder.

    Raises
    ------
    ValueError
        When it does not stand there exactly once.
    """
    path = folder / protection.file
    text = path.read_text(encoding="utf-8")
    if text.count(protection.text) != 1:
        raise ValueError(f"{protection.name}: {text.count(protection.text)} times in {protection.file}")
    path.write_text(text.replace(protection.text, protection.without), encoding="utf-8")


def fails_without(protection: Protection, folder: Path) -> tuple[bool, str]:
    """Run a protection's test without it in a copy of the sources; return whether it failed, and pytest's last line."""
    before = (folder / protection.file).read_text(encoding="utf-8")
    take_out(protection, folder)
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *shlex.split(protection.test)]
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            # Bytecode is told from its source by size and second, and both may be those of the file before.
            env=os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired:
        return True, f"did not end within {PATIENCE} seconds"
    else:
        last = (done.stdout.strip().splitlines() or [done.stderr[-200:]])[-1]
        return done.returncode == 1, last
    finally:
        (folder / protection.file).write_text(before, encoding="utf-8")


def main() -> None:
    """Try all, or those whose names hold the words that are given."""
    words = " ".join(sys.argv[1:])
    survived = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in COPIED:
            source = ROOT / part
            if source.is_dir():
                shutil.copytree(source, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, folder / part)
        for protection in PROTECTIONS:
            if words not in protection.name:
                continue
            failed, last = fails_without(protection, folder)
            survived += [] if failed else [protection.name]
            print(f"{'fails' if failed else 'SURVIVED'} | {protection.name} | {last}", flush=True)  # noqa: T201
    sys.exit(f"{len(survived)} protections that no test misses" if survived else 0)


if __name__ == "__main__":
    main()
