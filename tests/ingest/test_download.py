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
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import requests

from demo.bucket import Bucket, Faults
from workbench.ingest.download import download, stream, stream_side_by_side
from workbench.ingest.links import parse_links
from workbench.ingest.server import (
    ChangedError,
    DownloadError,
    Patience,
    RemoteObject,
    StoppedError,
    inspect,
    seconds_asked,
)
from workbench.stores.disk import disk_is_full

NAME = "knee_multicoil_val.tar.xz"
PATH = f"/v2.0/{NAME}"
# More than two parts of what one connection fetches, so that several are at work.
DATA = random.Random(5).randbytes(1 << 20) * 36 + b"end"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bucket")
    (folder / NAME).write_bytes(DATA)
    (folder / "knee_multicoil_test.tar.xz").write_bytes(DATA[:1_000_000])
    return folder


def link_to(bucket, path=PATH, **how):
    return parse_links(bucket.link(path, **how))[0]


SMALL = "/v2.0/knee_multicoil_test.tar.xz"


@pytest.mark.parametrize("version", [2, 4])
def test_size_and_first_bytes_come_without_head(folder, hasty, version):
    with Bucket(folder) as bucket:
        remote = inspect(link_to(bucket, version=version), hasty)
        methods = {method for method, _, _ in bucket.requests}
    assert (remote.size, remote.head, remote.ranges) == (len(DATA), DATA[:512], True)
    assert remote.version
    assert methods == {"GET"}


def test_the_bucket_refuses_head_like_s3(folder):
    with Bucket(folder) as bucket:
        url = bucket.link(PATH)
        with requests.head(url, timeout=5) as answer:
            assert answer.status_code == 403


@pytest.mark.parametrize("connections", [1, 4])
def test_bytes_and_hash_are_those_of_the_object(folder, hasty, tmp_path, connections):
    with Bucket(folder) as bucket:
        link = link_to(bucket)
        digest = download(
            link, inspect(link, hasty), tmp_path / "x.part", connections=connections, patience=hasty
        )
    assert (tmp_path / "x.part").read_bytes() == DATA
    assert digest == hashlib.sha256(DATA).hexdigest()


@pytest.mark.parametrize("connections", [1, 3])
def test_dropped_connections_are_taken_up_by_range(folder, hasty, tmp_path, connections):
    with Bucket(folder, Faults(drop_after=3_000_000, drops=9)) as bucket:
        link = link_to(bucket)
        digest = download(
            link, inspect(link, hasty), tmp_path / "x.part", connections=connections, patience=hasty
        )
        assert bucket.faults[0].drops < 0
        assert bucket.sent < len(DATA) * 1.3
    assert digest == hashlib.sha256(DATA).hexdigest()


def test_server_that_ignores_ranges_and_drops_does_not_corrupt(folder, hasty):
    faults = Faults(ignore_range=True), Faults(drop_after=400_000, drops=1)
    with Bucket(folder, *faults) as bucket:
        link = link_to(bucket, SMALL)
        remote = inspect(link, hasty)
        assert not remote.ranges
        data = b"".join(stream_side_by_side(link, remote, patience=hasty))
    assert data == DATA[:1_000_000]


def test_server_that_ignores_ranges_goes_on_behind_what_is_there(folder, hasty, tmp_path):
    (tmp_path / "x.part").write_bytes(DATA[:300_000])
    with Bucket(folder, Faults(ignore_range=True)) as bucket:
        link = link_to(bucket, SMALL)
        digest = download(link, inspect(link, hasty), tmp_path / "x.part", patience=hasty)
    assert (tmp_path / "x.part").read_bytes() == DATA[:1_000_000]
    assert digest == hashlib.sha256(DATA[:1_000_000]).hexdigest()


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_errors_are_waited_out(folder, hasty, status):
    with Bucket(folder, Faults(status=status, times=3)) as bucket:
        link = link_to(bucket, SMALL)
        data = b"".join(stream(link, inspect(link, hasty), patience=hasty))
    assert data == DATA[:1_000_000]


def test_lasting_errors_end_with_the_file_s_name(folder, hasty):
    with (
        Bucket(folder, Faults(status=503)) as bucket,
        pytest.raises(DownloadError, match=rf"^{NAME}: the server answered 503, 4 times in a row"),
    ):
        inspect(link_to(bucket), hasty)


def test_download_goes_on_behind_what_is_there(folder, hasty, tmp_path):
    (tmp_path / "x.part").write_bytes(DATA[:30_000_000])
    with Bucket(folder) as bucket:
        link = link_to(bucket)
        digest = download(link, inspect(link, hasty), tmp_path / "x.part", patience=hasty)
        assert bucket.sent < len(DATA) - 29_000_000
    assert digest == hashlib.sha256(DATA).hexdigest()


def test_object_that_changes_is_never_spliced(tmp_path, hasty):
    (tmp_path / NAME).write_bytes(DATA[:1_000_000])
    with Bucket(tmp_path) as bucket:
        link = link_to(bucket)
        remote = inspect(link, hasty)
        (tmp_path / NAME).write_bytes(DATA[1_000_000:2_000_000])
        os.utime(tmp_path / NAME, (1, 1))
        with pytest.raises(ChangedError, match=rf"^{NAME}: the object on the server is no longer"):
            b"".join(stream(link, remote, 500_000, patience=hasty))


@pytest.mark.parametrize("fault", [Faults(), Faults(ignore_range=True)])
def test_change_of_size_is_seen_without_etags(folder, hasty, fault):
    with Bucket(folder, fault) as bucket:
        link = link_to(bucket, SMALL)
        before = RemoteObject(999_999, None, b"", ranges=True)
        with pytest.raises(ChangedError):
            b"".join(stream(link, before, 500_000, patience=hasty))


def test_expired_link_says_when_and_where_to_ask(folder, hasty):
    with (
        Bucket(folder) as bucket,
        pytest.raises(
            DownloadError,
            match=rf"^{NAME}: the server answers 403 AccessDenied: the link expired on \d{{4}}-.* "
            "UTC: ask anew at https://fastmri.med.nyu.edu",
        ),
    ):
        inspect(link_to(bucket, lifetime=timedelta(seconds=-5)), hasty)


@pytest.mark.parametrize("version", [2, 4])
def test_bad_signature_is_told_from_an_expired_one(folder, hasty, version):
    with Bucket(folder) as bucket:
        path = "/v2.0/knee_multicoil_test.tar.xz"
        (link,) = parse_links(bucket.link(PATH, version=version).replace(PATH, path))
        with pytest.raises(DownloadError, match=r"403 SignatureDoesNotMatch: its signature is"):
            inspect(link, hasty)


def test_missing_object_is_said_at_once(folder, hasty):
    with Bucket(folder) as bucket:
        with pytest.raises(DownloadError, match=r"^knee_multicoil_train.tar: .* 404 NoSuchKey"):
            inspect(link_to(bucket, "/v2.0/knee_multicoil_train.tar"), hasty)
        assert len(bucket.requests) == 1


def test_stopped_download_ends_and_keeps_what_came(folder, hasty, tmp_path):
    stopped = threading.Event()
    with Bucket(folder, Faults(seconds_per_mb=0.005)) as bucket:
        link = link_to(bucket)
        with pytest.raises(StoppedError):
            download(
                link,
                inspect(link, hasty),
                tmp_path / "x.part",
                connections=2,
                patience=hasty,
                stopped=stopped,
                on_bytes=lambda count: stopped.set(),
            )
    part = (tmp_path / "x.part").read_bytes()
    assert part
    assert part == DATA[: len(part)]


def test_full_disk_is_an_os_error_and_keeps_what_came(folder, hasty, small_disk):
    with Bucket(folder) as bucket:
        link = link_to(bucket)
        with pytest.raises(OSError, match="No space left") as error:
            download(link, inspect(link, hasty), small_disk / "x.part", patience=hasty)
    assert disk_is_full(error.value)
    part = (small_disk / "x.part").read_bytes()
    assert len(part) > 400_000
    assert part == DATA[: len(part)]


def test_no_link_in_any_exception_or_log(folder, hasty, caplog):
    caplog.set_level(logging.DEBUG)
    texts = []
    with Bucket(folder, Faults("val", status=503)) as bucket:
        links = [
            link_to(bucket),
            link_to(bucket, "/v2.0/knee_multicoil_train.tar"),
            link_to(bucket, SMALL),
        ]
        list(stream(links[2], inspect(links[2], hasty), patience=hasty))
        for link in links[:2]:
            with pytest.raises(DownloadError) as error:
                inspect(link, hasty)
            texts.append("".join(traceback.format_exception(error.value)))
    # urllib3 warns of headers that it cannot read, with the link, where nobody configured a log.
    with answering(GOOD.replace(b"\r\n", b"\r\nno header\r\n", 1)) as link:
        with suppress(DownloadError):
            inspect(link, hasty)
        assert "Failed to parse headers" in caplog.text
    # The server is gone: the connection is refused.
    with pytest.raises(DownloadError) as error:
        inspect(links[2], hasty)
    texts.append("".join(traceback.format_exception(error.value)))
    assert error.value.__context__ is None
    assert "GET" in caplog.text
    for text in [*texts, caplog.text]:
        assert "Signature=" not in text
        assert "AKIA" not in text


# ---- answers that make no sense ----------------------------------------------------------

BODY = bytes(range(256)) * 400


@contextmanager
def answering(*answers, link="/v2.0/knee_multicoil_test.tar.xz"):
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
            yield parse_links(f"{host}{link}?{query}")[0]
        finally:
            listening.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def answer(status="200 OK", body=BODY, **headers):
    given = {"Content-Length": str(len(body)), "Connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"{name}: {value}\r\n" for name, value in given.items() if value is not None]
    return f"HTTP/1.1 {status}\r\n{''.join(lines)}\r\n".encode() + body


WHOLE = RemoteObject(len(BODY), '"v1"', b"", ranges=True)
GOOD = answer(ETag='"v1"')


def streamed(link, patience, remote=WHOLE, start=0):
    return b"".join(stream(link, remote, start, patience=patience))


@pytest.mark.parametrize("length", [None, "", "many", "-5", "1e9", "0x10", "9" * 50, "²"])
def test_answer_without_a_size_is_tried_again_then_named(hasty, length):
    bad = answer(ETag='"v1"', Content_Length=length)
    with answering(bad, GOOD) as link:
        assert streamed(link, hasty) == BODY
    with (
        answering(bad) as link,
        pytest.raises(DownloadError, match=r"does not say how large .*, 4 times in a row"),
    ):
        inspect(link, hasty)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes 0-9",
        "bytes */102400",
        "bytes 5-9/102400",
        "bytes 9-0/102400",
        "bytes 0-1/1",
    ],
)
def test_answer_of_a_wrong_range_is_never_spliced(hasty, header):
    bad = answer("206 Partial Content", ETag='"v1"', Content_Range=header)
    with answering(bad, GOOD) as link:
        assert streamed(link, hasty) == BODY


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
def test_answer_of_another_object_is_a_change(hasty, status, headers, more):
    bad = answer(status, BODY + more, **headers)
    with answering(bad) as link, pytest.raises(ChangedError, match="no longer the one"):
        streamed(link, hasty)


def test_answer_without_the_version_that_the_plan_saw_is_not_taken(hasty):
    with answering(answer(), GOOD) as link:
        assert streamed(link, hasty) == BODY
    with answering(answer()) as link, pytest.raises(DownloadError, match="no longer says which"):
        streamed(link, hasty)


def test_weak_version_is_compared_but_not_asked_for(hasty):
    weak = RemoteObject(len(BODY), 'W/"v1"', b"", ranges=True)
    with answering(answer(ETag='W/"v1"')) as link:
        assert streamed(link, hasty, weak) == BODY
    with answering(answer(ETag='W/"v2"')) as link, pytest.raises(ChangedError):
        streamed(link, hasty, weak)


def test_web_page_with_200_is_never_taken_for_the_file(hasty):
    page = answer(body=b"<html>log in</html>", Content_Type="text/html; charset=utf-8")
    with answering(page, GOOD) as link:
        assert streamed(link, hasty) == BODY
    with answering(page) as link, pytest.raises(DownloadError, match="a web page came instead"):
        inspect(link, hasty)


def test_bytes_are_those_of_the_object_whatever_coding_its_metadata_names(hasty):
    packed = gzip.compress(BODY, mtime=0)
    remote = RemoteObject(len(packed), '"v1"', b"", ranges=True)
    with answering(answer(body=packed, ETag='"v1"', Content_Encoding="gzip")) as link:
        assert streamed(link, hasty, remote) == packed


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120", 120),
        (" 7 ", 7),
        ("Wed, 05 Nov 2025 10:01:00 GMT", 60),
        ("Wed, 05 Nov 2025 09:00:00 GMT", 0),
        *((bad, 0) for bad in ("", "-5", "soon", "1.5e9", "9" * 50, "Wed, 99 Nov 2025")),
    ],
)
def test_time_to_wait_is_read_as_seconds_or_date(header, seconds):
    assert seconds_asked(header, datetime(2025, 11, 5, 10, tzinfo=UTC)) == seconds


def test_time_to_wait_is_kept_and_capped():
    patience = Patience(first_delay=0.1, longest_delay=5)
    assert patience.delay(1, asked=3) == 3
    assert patience.delay(1, asked=1e9) == 5
    assert 0.05 <= patience.delay(1) <= 0.1


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
        (GOOD[:-102_400], b"x"),
        (b"HTTP/1.1 200 OK\r\n", b"x"),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (answer("403 Forbidden", b"", Content_Length="4096"), b"x"),
        (CHUNKED, b"0"),
    ],
    ids=["body", "headers", "answers before the answer", "an error's text", "a chunk's size"],
)
def test_server_that_drips_is_given_up(hasty, start, drop):
    dripping = [start, *(drop for _ in range(200))]
    patience = replace(hasty, timeout=0.1)
    with (
        answering(dripping) as link,
        pytest.raises(DownloadError, match="sends too slowly, 4 times in a row"),
    ):
        streamed(link, patience)
    with answering(dripping, GOOD) as link:
        assert len(streamed(link, patience)) == len(BODY)


def test_server_that_sends_a_few_bytes_at_each_try_is_given_up(hasty):
    with (
        answering(GOOD[:-102_300]) as link,
        pytest.raises(DownloadError, match="4 times in a row"),
    ):
        streamed(link, hasty)


def test_redirects_are_followed_but_not_for_ever(hasty):
    def to(address):
        return answer("307 Temporary Redirect", b"", Location=address)

    with answering(to("/elsewhere"), to("/v2.0/again"), GOOD) as link:
        assert streamed(link, hasty) == BODY
    with answering(to("/round")) as link, pytest.raises(DownloadError, match="without an end"):
        inspect(link, hasty)
    for address in ("file:///etc/passwd", "ftp://127.0.0.1/x", "https://[bad", "http://[::1"):
        with answering(to(address)) as link, pytest.raises(DownloadError, match="not https"):
            inspect(link, hasty)
