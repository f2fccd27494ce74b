import gzip
import hashlib
import logging
import os
import random
import socket
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
import requests

from workbench.ingest.fetch import (
    ChangedError,
    DownloadError,
    Remote,
    StoppedError,
    download,
    inspect,
    stream,
    stream_side_by_side,
)
from workbench.ingest.links import parse_links
from workbench_demo.bucket import Bucket, Faults

pytestmark = pytest.mark.usefixtures("hasty")

NAME = "knee_multicoil_val.tar.xz"
PATH = f"/v2.0/{NAME}"
SMALL = "/v2.0/knee_multicoil_test.tar.xz"
# More than two parts of what one connection fetches, so that several are at work.
DATA = random.Random(5).randbytes(1 << 20) * 36 + b"end"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bucket")
    (folder / NAME).write_bytes(DATA)
    (folder / "knee_multicoil_test.tar.xz").write_bytes(DATA[:1_000_000])
    return folder


@pytest.fixture
def served(folder):
    """Serve the folder with faults; yields the bucket and a link."""

    @contextmanager
    def serve(*faults, path=PATH, folder=folder, **how):
        with Bucket(folder, *faults) as bucket:
            yield bucket, parse_links(bucket.link(path, **how))[0]

    return serve


@pytest.mark.parametrize("version", [2, 4])
def test_size_and_first_bytes_come_without_head(served, version):
    with served(version=version) as (bucket, link):
        remote = inspect(link)
        assert {method for method, _, _ in bucket.requests} == {"GET"}
        with requests.head(bucket.link(PATH), timeout=5) as answer:
            assert answer.status_code == 403  # as S3 does
    assert (remote.size, remote.head, remote.ranges) == (len(DATA), DATA[:512], True)
    assert remote.version


@pytest.mark.parametrize("there", [0, 30_000_000])
@pytest.mark.parametrize("connections", [1, 4])
def test_file_and_hash_are_those_of_the_object(served, tmp_path, connections, there):
    (tmp_path / "x.part").write_bytes(DATA[:there])
    with served() as (bucket, link):
        digest = download(inspect(link), tmp_path / "x.part", connections=connections)
        assert bucket.sent < len(DATA) + 1_000_000 - there
    assert (tmp_path / "x.part").read_bytes() == DATA
    assert digest == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("connections", [1, 3])
def test_dropped_connections_are_taken_up_by_range(served, tmp_path, connections):
    with served(Faults(drop_after=3_000_000, drops=9)) as (bucket, link):
        digest = download(inspect(link), tmp_path / "x.part", connections=connections)
        assert bucket.faults[0].drops < 0
        assert bucket.sent < len(DATA) * 1.3
    assert digest == hashlib.sha256(DATA).hexdigest()


def test_server_that_ignores_ranges_does_not_corrupt(served, tmp_path):
    faults = Faults(ignore_range=True), Faults(drop_after=400_000, drops=1)
    (tmp_path / "x.part").write_bytes(DATA[:300_000])
    with served(*faults, path=SMALL) as (_, link):
        remote = inspect(link)
        assert not remote.ranges
        assert b"".join(stream_side_by_side(remote)) == DATA[:1_000_000]
        download(remote, tmp_path / "x.part")
    assert (tmp_path / "x.part").read_bytes() == DATA[:1_000_000]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_errors_are_waited_out_and_lasting_ones_name_the_file(served, status):
    with served(Faults(status=status, times=3), path=SMALL) as (_, link):
        assert b"".join(stream(inspect(link))) == DATA[:1_000_000]
    with (
        served(Faults(status=status)) as (_, link),
        pytest.raises(DownloadError, match=rf"^{NAME}: the server answered {status}, 4 times in a"),
    ):
        inspect(link)


def test_part_that_fails_ends_the_others_at_once(served, hasty):
    with served() as (bucket, link):
        remote = inspect(link)
        hasty(attempts=2, first_delay=30, longest_delay=30)
        bucket.faults.append(Faults(drop_after=1, drops=2))
        bucket.faults.append(Faults(status=404))
        with pytest.raises(DownloadError):
            list(stream_side_by_side(remote))
    asked = [part for _, _, part in bucket.requests]
    assert len(asked) == len(set(asked))  # what was dropped is not asked for again


def test_object_that_changes_is_never_spliced(served, tmp_path):
    (tmp_path / NAME).write_bytes(DATA[:1_000_000])
    with served(folder=tmp_path) as (_, link):
        remote = inspect(link)
        (tmp_path / NAME).write_bytes(DATA[1_000_000:2_000_000])
        os.utime(tmp_path / NAME, (1, 1))
        with pytest.raises(ChangedError, match=rf"^{NAME}: the object on the server is no longer"):
            b"".join(stream(remote, 500_000))


@pytest.mark.parametrize("fault", [Faults(), Faults(ignore_range=True)])
def test_change_of_size_is_seen_without_etags(served, fault):
    with served(fault, path=SMALL) as (_, link), pytest.raises(ChangedError):
        b"".join(stream(Remote(link, 999_999, None, b"", ranges=True), 500_000))


@pytest.mark.parametrize("version", [2, 4])
def test_refusals_say_why_at_once_and_what_to_do(served, version):
    expired = (
        rf"^{NAME}: the server answers 403 AccessDenied: the link expired on \d{{4}}-.* UTC: ask "
        "anew at https://fastmri.med.nyu.edu"
    )
    with served(version=version, lifetime=timedelta(seconds=-5)) as (bucket, link):
        with pytest.raises(DownloadError, match=expired):
            inspect(link)
        (link,) = parse_links(bucket.link(PATH, version=version).replace(PATH, SMALL))
        with pytest.raises(DownloadError, match=r"403 SignatureDoesNotMatch: its signature is"):
            inspect(link)
        (link,) = parse_links(bucket.link("/v2.0/knee_multicoil_train.tar", version=version))
        with pytest.raises(DownloadError, match=r"^knee_multicoil_train.tar: .* 404 NoSuchKey"):
            inspect(link)
        assert len(bucket.requests) == 3


@pytest.mark.parametrize("connections", [1, 2])
def test_stopped_download_ends_and_keeps_what_came(served, tmp_path, connections):
    stopped, part = threading.Event(), tmp_path / "x.part"
    with served(Faults(seconds_per_mb=0.005)) as (_, link):
        remote = inspect(link)
        how = {"connections": connections, "stopped": stopped}
        with pytest.raises(StoppedError):
            download(remote, part, on_bytes=lambda count: stopped.set(), **how)
    assert 0 < len(there := part.read_bytes()) < len(DATA)
    assert DATA.startswith(there)


def test_no_link_in_any_exception_or_log(served, caplog):
    caplog.set_level(logging.DEBUG)
    texts = []
    with served(Faults("val", status=503)) as (bucket, link):
        (absent,) = parse_links(bucket.link("/v2.0/knee_multicoil_train.tar"))
        (whole,) = parse_links(bucket.link(SMALL))
        list(stream(inspect(whole)))
        for each in (link, absent):
            with pytest.raises(DownloadError) as error:
                inspect(each)
            texts.append("".join(traceback.format_exception(error.value)))
    # urllib3 warns of headers that it cannot read, with the link, where nobody configured a log.
    with answering(GOOD.replace(b"\r\n", b"\r\nno header\r\n", 1)) as link:
        with suppress(DownloadError):
            inspect(link)
        assert "Failed to parse headers" in caplog.text
    # The server is gone: the connection is refused.
    with pytest.raises(DownloadError) as error:
        inspect(whole)
    texts.append("".join(traceback.format_exception(error.value)))
    assert error.value.__context__ is None
    assert "GET" in caplog.text
    for text in [*texts, caplog.text]:
        assert "Signature=" not in text
        assert "AKIA" not in text


# ---- answers that make no sense ----------------------------------------------------------

BODY = bytes(range(256)) * 400


@contextmanager
def answering(*answers):
    """Serve raw answers, one a connection, the last one again and again; yield a signed link."""
    left = list(answers)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve():
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection, suppress(OSError):
                    while not connection.recv(65536).endswith(b"\r\n\r\n"):
                        pass
                    answer = left.pop(0) if len(left) > 1 else left[0]
                    for piece in answer if isinstance(answer, list) else [answer]:
                        connection.sendall(piece)
                        if isinstance(answer, list):
                            time.sleep(0.02)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        host = f"http://127.0.0.1:{listening.getsockname()[1]}"
        query = f"AWSAccessKeyId=AKIA{16 * 'A'}&Signature={27 * 'A'}%3D&Expires=4102444800"
        try:
            yield parse_links(f"{host}{SMALL}?{query}")[0]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def answer(status="200 OK", body=BODY, **headers):
    given = {"Content-Length": str(len(body)), "Connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in given.items() if value is not None]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode() + body


GOOD = answer(ETag='"v1"')


def streamed(answers, size=102_400, version='"v1"'):
    """Return what comes of an object whose server gives these answers."""
    with answering(*answers) as link:
        remote = Remote(link, size, version, b"", ranges=True)
        return b"".join(stream(remote))


@pytest.mark.parametrize("length", [None, "", "many", "-5", "1e9", "0x10", "9" * 50, "²"])
def test_answer_without_a_size_is_tried_again_then_named(length):
    bad = answer(ETag='"v1"', Content_Length=length)
    assert streamed((bad, GOOD)) == BODY
    with (
        answering(bad) as link,
        pytest.raises(DownloadError, match=r"does not say how large .*, 4 times in a row"),
    ):
        inspect(link)


@pytest.mark.parametrize(
    "extent",
    [None, "", "bytes 0-9", *(f"bytes {x}" for x in ("*/9", "5-9/102400", "9-0/9", "0-1/1"))],
)
def test_answer_of_a_wrong_range_is_never_spliced(extent):
    bad = answer("206 Partial Content", ETag='"v1"', Content_Range=extent and f"bytes {extent}")
    assert streamed((bad, GOOD)) == BODY


@pytest.mark.parametrize(
    ("status", "headers", "more"),
    [
        ("200 OK", {"ETag": '"v2"'}, b""),
        ("206 Partial Content", {"ETag": '"v2"', "Content_Range": "bytes 0-102399/102400"}, b""),
        ("206 Partial Content", {"ETag": '"v1"', "Content_Range": "bytes 0-102399/102401"}, b""),
        ("200 OK", {"ETag": '"v1"'}, b"more"),
        ("412 Precondition Failed", {}, b""),
        ("416 Range Not Satisfiable", {}, b""),
    ],
)
def test_answer_of_another_object_is_a_change(status, headers, more):
    with pytest.raises(ChangedError, match="no longer the one"):
        streamed([answer(status, BODY + more, **headers)])


def test_answer_without_the_version_that_the_plan_saw_is_not_taken():
    assert streamed((answer(), GOOD)) == BODY
    with pytest.raises(DownloadError, match="no longer says which"):
        streamed([answer()])


def test_weak_version_is_compared_but_not_asked_for():
    assert streamed([answer(ETag='W/"v1"')], version='W/"v1"') == BODY
    with pytest.raises(ChangedError):
        streamed([answer(ETag='W/"v2"')], version='W/"v1"')


def test_web_page_with_200_is_never_taken_for_the_file():
    page = answer(body=b"<html>log in</html>", Content_Type="text/html; charset=utf-8")
    assert streamed((page, GOOD)) == BODY
    with answering(page) as link, pytest.raises(DownloadError, match="a web page came instead"):
        inspect(link)


def test_bytes_are_those_of_the_object_whatever_coding_its_metadata_names():
    packed = gzip.compress(BODY, mtime=0)
    coded = answer(body=packed, ETag='"v1"', Content_Encoding="gzip")
    assert streamed([coded], size=len(packed)) == packed


IN_HOURS = format_datetime(datetime.now(UTC) + timedelta(hours=9), usegmt=True)


@pytest.mark.parametrize(
    ("asked", "waits"),
    [
        *(("120", True), (" 7 ", True), (IN_HOURS, True), ("9" * 50, True)),
        *((bad, False) for bad in ("Wed, 05 Nov 2025 09:00:00 GMT", "", "-5", "soon", "9" * 5000)),
    ],
    # The same for all processes that run the tests, whatever the time.
    ids=["seconds", "blanks", "date", "digits", "past", "nothing", "below 0", "word", "9s"],
)
def test_server_that_asks_for_time_gets_it_up_to_the_longest_delay(hasty, asked, waits):
    class Clock(threading.Event):
        def wait(self, timeout=None):
            self.waited = timeout
            return False

    hasty(longest_delay=5)
    clock = Clock()
    with answering(answer("429 Too Many Requests", b"", Retry_After=asked), GOOD) as link:
        remote = Remote(link, len(BODY), '"v1"', b"", ranges=True)
        assert b"".join(stream(remote, stopped=clock)) == BODY
    assert clock.waited == 5 if waits else clock.waited < 1


CHUNKED = answer(
    "206 Partial Content",
    b"",
    ETag='"v1"',
    Content_Range=f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
    Transfer_Encoding="chunked",
    Content_Length=None,
)


@pytest.mark.parametrize(
    ("start", "drop"),
    [
        (GOOD[: -len(BODY)], b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (answer("403 Forbidden", b"", Content_Length="4096"), b"x"),
        (CHUNKED, b"0"),
    ],
    ids=["body", "headers", "answers before the answer", "an error's text", "a chunk's size"],
)
def test_server_that_drips_is_given_up(hasty, start, drop):
    dripping = [start, *(drop for _ in range(200))]
    hasty(timeout=0.1)
    with pytest.raises(DownloadError, match="sends too slowly, 4 times in a row"):
        streamed([dripping])
    assert len(streamed((dripping, GOOD))) == len(BODY)


def test_server_that_sends_a_few_bytes_at_each_try_is_given_up():
    with pytest.raises(DownloadError, match="4 times in a row"):
        streamed([GOOD[:-102_300]])


def test_redirects_are_followed_but_not_for_ever():
    def to(address):
        return answer("307 Temporary Redirect", b"", Location=address)

    assert streamed((to("/elsewhere"), to("/v2.0/again"), GOOD)) == BODY
    with pytest.raises(DownloadError, match="without an end"):
        streamed([to("/round")])
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/x", "https://[bad", "http://[::1"):
        with pytest.raises(DownloadError, match="not https"):
            streamed([to(address)])
