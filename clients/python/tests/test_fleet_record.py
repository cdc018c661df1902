"""Records: what is written can be read, and what anybody else writes cannot do harm."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from typing import Any

import pytest

from pixell_envoy.fleet import MAX_RECORD_BYTES, BadRecord, Record, read_record
from pixell_envoy.fleet.records import Records

GOOD = Record("task-b", "10.0.1.7", "abc123", 4, 17, {"id-1": "active", "id-2": "draining"})


def document(**members: Any) -> bytes:
    return json.dumps({**json.loads(GOOD.to_json()), **members}).encode()


def test_what_is_written_is_read() -> None:
    for record in (GOOD, replace(GOOD, ids={}), replace(GOOD, host="2001:db8::7")):
        assert read_record(record.task, record.to_json()) == record
    assert json.loads(GOOD.to_json()) == {
        "version": 1,
        "task": "task-b",
        "host": "10.0.1.7",
        "epoch": "abc123",
        "generation": 4,
        "beat": 17,
        "ids": {"id-1": "active", "id-2": "draining"},
    }


def test_members_of_a_later_version_are_ignored() -> None:
    assert read_record("task-b", document(zone="us-east-2a", load={"cpu": 1})) == GOOD


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (GOOD.to_json()[:-5], "not JSON"),
        (b"[]", "not a JSON object"),
        (b"null", "not a JSON object"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 60_000, "nested too deep"),
        (b" " * (MAX_RECORD_BYTES + 1), "larger than"),
        (b'{"version":1,"version":1}', "same key twice"),
        (document().replace(b'"id-2"', b'"id-1"'), "same key twice"),
        (document(version=2), "version"),
        (document(version=True), "version"),
        (document(version="1"), "version"),
        (document(task="task-a"), "the one under whose key"),
        (document(task=None), "the one under whose key"),
        (document(host="peer.example.com"), "address"),
        (document(host="10.0.1.7:50051"), "address"),
        (document(host="010.0.1.7"), "address"),
        (document(host=167772423), "address"),
        (document(host="127.0.0.1"), "address"),
        (document(host="::1"), "address"),
        (document(host="0.0.0.0"), "address"),
        (document(host="169.254.170.2"), "address"),
        (document(host="fe80::1%eth0"), "address"),
        (document(host="224.0.0.1"), "address"),
        (document(host="::ffff:127.0.0.1"), "address"),
        (document(host="1" * 5000), "address"),
        (document(epoch=""), "epoch"),
        (document(epoch=7), "epoch"),
        (document(epoch="a" * 65), "epoch"),
        (document(epoch="a\n"), "epoch"),
        (document(generation=-1), "generation"),
        (document(generation=True), "generation"),
        (document(generation="4"), "generation"),
        (document(beat=None), "beat"),
        (document(beat=1.5), "not an integer"),
        (document(beat=float("nan")), "not an integer"),
        (document(beat=10**20), "digits"),
        (document(other=10**20), "digits"),
        (document(ids=["id-1"]), "ids"),
        (document(ids=None), "ids"),
        (document(ids={"": "active"}), "ids"),
        (document(ids={"a/b": "active"}), "ids"),
        (document(ids={"a\n": "active"}), "ids"),
        (document(ids={"ä": "active"}), "ids"),
        (document(ids={"\ud800": "active"}), "ids"),
        (document(ids={"a" * 129: "active"}), "ids"),
        (document(ids={"a": "asleep"}), "state"),
        (document(ids={"a": 1}), "state"),
        (document(ids={"a": ["active"]}), "state"),
    ],
)
def test_a_bad_record_is_an_error_that_does_not_show_it(text: bytes, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason):
        read_record("task-b", text)


def test_a_key_that_is_no_name_has_no_record() -> None:
    with pytest.raises(BadRecord, match="task"):
        read_record("a b", document(task="a b"))


def test_a_long_number_costs_no_time() -> None:
    start = time.perf_counter()
    with pytest.raises(BadRecord):
        read_record("task-b", b'{"beat":' + b"9" * (MAX_RECORD_BYTES - 10) + b"}")
    assert time.perf_counter() - start < 0.5


def test_a_record_that_is_too_large_is_shortened() -> None:
    ids: dict[str, Any] = {f"{n:0>128}": "draining" for n in range(5000)}
    short = replace(GOOD, ids=ids).shortened()
    assert MAX_RECORD_BYTES - 200 < len(short.to_json()) <= MAX_RECORD_BYTES
    assert list(short.ids) == list(ids)[: len(short.ids)]
    assert read_record("task-b", short.to_json()) == short
    assert GOOD.shortened() is GOOD


def test_a_bad_record_is_named_once_and_the_others_are_read(caplog: pytest.LogCaptureFixture) -> None:
    records = Records()
    for beat in range(3):
        snapshot = {"task-b": replace(GOOD, beat=beat).to_json(), "evil": document(beat=beat), "bad": b"\xff\xfe"}
        assert records.read(snapshot) == {"task-b": replace(GOOD, beat=beat)}
    told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(told) == 2 and "'evil'" in told[0] and "'bad'" in told[1]


def test_a_hostile_name_and_many_bad_records_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    records = Records()
    for n in range(30):
        assert records.read({f"{'x' * 5000}\n{n}-{m}": b"" for m in range(50)}) == {}
    assert len(caplog.records) == 1000
    assert all(len(record.getMessage()) < 400 and "\n" not in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(
    "forged",
    [
        GOOD.to_json()[:-1] + b',"host":"10.9.9.9"}',
        GOOD.to_json()[:-3] + b'17},"beat":18}',
        GOOD.to_json().replace(b'"beat":17', b'"beat":-17'),
        GOOD.to_json().replace(b'"beat":17', b'"beat":0000000000000000000017'),
    ],
)
def test_the_shortcut_for_a_new_beat_reads_nothing_else(forged: bytes) -> None:
    records = Records()
    assert records.read({"task-b": GOOD.to_json()}) == {"task-b": GOOD}
    assert records.read({"task-b": forged}) == {}
    assert records.read({"task-b": GOOD.to_json()}) == {"task-b": GOOD}
