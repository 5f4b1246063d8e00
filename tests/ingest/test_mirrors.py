import gzip
import hashlib
import http.server
import itertools
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ddpm.ingest import datasets
from ddpm.ingest import sources as module
from ddpm.ingest.fetching import fetch_files
from ddpm.ingest.sources import Folder, Mirror, Source, SourceError
from ddpm.pipeline.console import UserError

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]
Serve = Callable[[dict[str, Answer]], str]
NAMES = list(datasets.SIZES)
FILES = {name: random.Random(name).randbytes(200 + index) for index, name in enumerate(NAMES)}
ARCHIVE = gzip.compress(FILES[NAMES[0]])


@pytest.fixture(autouse=True)
def _small_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data set `mnist` is FILES, and no proxy stands before 127.0.0.1."""
    for name, data in FILES.items():
        monkeypatch.setitem(datasets.SIZES, name, len(data))
    checksums = {name: hashlib.sha256(data).hexdigest() for name, data in FILES.items()}
    monkeypatch.setitem(datasets.CHECKSUMS, "mnist", checksums)
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers whose answers are named by the request's path; any other path is a 404."""
    running = []

    def start(answers: dict[str, Answer]) -> str:
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                answer = answers.get(self.path.removeprefix("/"))
                if answer is None:
                    self.send_error(404)
                else:
                    answer(self)

            def log_message(self, *_: object) -> None:
                pass

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        server.block_on_close = False
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()
        server.server_close()


def sends(body: bytes, promised: int | None = None) -> Answer:
    """A body that is as long as promised, or breaks off before."""

    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body) if promised is None else promised))
        request.end_headers()
        request.wfile.write(body)

    return answer


def dribbles(body: bytes, piece: int, pause: float) -> Answer:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        try:
            for start in range(0, len(body), piece):
                request.wfile.write(body[start : start + piece])
                time.sleep(pause)
        except OSError:  # the client lost its patience
            pass

    return answer


def good(*names: str) -> dict[str, Answer]:
    """Right answers for these files, by default for all."""
    return {f"{name}.gz": sends(gzip.compress(FILES[name])) for name in names or NAMES}


def refused() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}/"


def failure(source: Source, file: str = NAMES[0], size: int = 200) -> str:
    with pytest.raises(SourceError) as caught:
        source.fetch(file, size)
    return str(caught.value)


def fetched(tried: list[Source]) -> tuple[dict[str, bytes], dict[str, str]]:
    """The files, and the source of each."""
    found = list(fetch_files("mnist", NAMES, tried))
    return {name: data for name, data, _ in found}, {name: source for name, _, source in found}


def final_message(tried: list[Source]) -> list[str]:
    with pytest.raises(UserError) as caught:
        fetched(tried)
    return str(caught.value).split("\n")


# --- one mirror ------------------------------------------------------------------------------------------------------


def test_a_mirror_gives_unpacked_bytes_and_shows_how_many(serve: Serve) -> None:
    shown: list[int] = []
    assert Mirror(serve(good()), shown.append).fetch(NAMES[0], 200) == FILES[NAMES[0]]
    assert shown[-1] == 200
    assert shown == sorted(shown)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(sends(b"<html>Welcome to this hotel's network</html>"), "Not a gzipped file", id="a web page"),
        pytest.param(sends(FILES[NAMES[0]]), "Not a gzipped file", id="not packed"),
        pytest.param(sends(ARCHIVE[:-1]), "ended before the end-of-stream marker", id="last byte missing"),
        pytest.param(sends(ARCHIVE[:15]), "ended before the end-of-stream marker", id="cut, and the length agrees"),
        pytest.param(sends(ARCHIVE[:100], len(ARCHIVE)), "ended before", id="the connection breaks"),
        pytest.param(sends(ARCHIVE[:-8] + bytes(8)), "CRC check failed", id="wrong check in the archive"),
        pytest.param(sends(ARCHIVE[:10] + b"\xff" * 30), "while decompressing data", id="damaged"),
    ],
)
def test_a_mirror_refuses_what_is_not_a_whole_archive(serve: Serve, answer: Answer, message: str) -> None:
    assert message in failure(Mirror(serve({f"{NAMES[0]}.gz": answer})))


def test_an_empty_answer_has_the_wrong_checksum(serve: Serve) -> None:
    address = serve({f"{name}.gz": sends(b"") for name in NAMES})
    _, *lines = final_message([Mirror(address)])
    assert lines == [f"  {address}: {name} has the wrong checksum, 0 bytes; rejected" for name in NAMES]


def test_a_mirror_without_the_file(serve: Serve) -> None:
    assert failure(Mirror(serve({}))) == "HTTP Error 404: Not Found"


@pytest.mark.parametrize("code", [403, 500, 503])
def test_a_mirror_that_answers_with_an_error(serve: Serve, code: int) -> None:
    address = serve({f"{NAMES[0]}.gz": lambda request: request.send_error(code, "because")})
    assert failure(Mirror(address)) == f"HTTP Error {code}: because"


def test_a_mirror_that_is_not_there() -> None:
    assert "Connection refused" in failure(Mirror(refused()))


def test_a_mirror_that_talks_another_language() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def talk() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 ftp ready\r\n")

        threading.Thread(target=talk, daemon=True).start()
        assert "220 ftp ready" in failure(Mirror(f"http://127.0.0.1:{server.getsockname()[1]}/"))


def test_a_mirror_with_an_invalid_address() -> None:
    assert "nonnumeric port: 'eighty'" in failure(Mirror("http://127.0.0.1:eighty/"))


def test_an_archive_that_unpacks_to_too_much_is_read_to_one_byte_more(serve: Serve) -> None:
    shown: list[int] = []
    bomb = gzip.compress(bytes(20_000_000), compresslevel=1)
    assert Mirror(serve({f"{NAMES[0]}.gz": sends(bomb)}), shown.append).fetch(NAMES[0], 200) == bytes(201)
    assert max(shown) == 201


def test_an_archive_without_end_is_read_to_one_byte_more(serve: Serve) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        try:
            for _ in itertools.count():
                request.wfile.write(gzip.compress(bytes(1_000_000)))
        except OSError:
            ended.set()

    ended = threading.Event()
    assert Mirror(serve({f"{NAMES[0]}.gz": answer})).fetch(NAMES[0], 3_000_000) == bytes(3_000_001)
    assert ended.wait(10)  # the mirror hears that no more is wanted


# --- patience --------------------------------------------------------------------------------------------------------


def test_a_name_that_is_never_resolved(monkeypatch: pytest.MonkeyPatch) -> None:
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: over.wait(30))
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    began = time.monotonic()
    message = failure(Mirror("http://mirror.example/"))
    over.set()
    assert message == "timed out"
    assert time.monotonic() - began < 4


def test_a_silent_mirror_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.2)
    began = time.monotonic()
    assert failure(Mirror(serve({f"{NAMES[0]}.gz": lambda _: time.sleep(3)}))) == "timed out"
    assert time.monotonic() - began < 2.5


def test_a_mirror_whose_headers_dribble_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(request: http.server.BaseHTTPRequestHandler) -> None:
        try:
            request.wfile.write(b"HTTP/1.0 200 OK\r\n")
            for _ in range(60):
                request.wfile.write(b"X-More: to come\r\n")
                time.sleep(0.05)
        except OSError:
            pass

    monkeypatch.setattr(module, "PATIENCE", 0.3)
    began = time.monotonic()
    assert failure(Mirror(serve({f"{NAMES[0]}.gz": answer}))) == "timed out"
    assert time.monotonic() - began < 2.5


LONG = random.Random(0).randbytes(600_000)
SLOW = dribbles(gzip.compress(LONG), piece=200_000, pause=0.4)  # the last of it after 1.2 s


def test_a_dribbling_mirror_is_left(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(module, "BYTES_PER_SECOND", 1e12)
    shown: list[int] = []
    assert failure(Mirror(serve({"file.gz": SLOW}), shown.append), "file", len(LONG)) == "timed out"
    assert 0 < shown[-1] < len(LONG)


def test_a_slow_mirror_that_earns_its_time_is_waited_for(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    monkeypatch.setattr(module, "BYTES_PER_SECOND", 1e5)
    assert Mirror(serve({"file.gz": SLOW})).fetch("file", len(LONG)) == LONG


def test_a_mirror_that_timed_out_does_not_cost_the_next_its_patience(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.5)
    silent, quick = serve({f"{NAMES[0]}.gz": lambda _: time.sleep(2)}), serve(good())
    assert fetched([Mirror(silent), Mirror(quick)]) == (FILES, dict.fromkeys(NAMES, quick))


# --- from source to source -------------------------------------------------------------------------------------------


def test_each_failing_source_is_passed_over(serve: Serve) -> None:
    tried = [
        Folder(Path("/nowhere"), "folder"),
        Mirror(refused()),
        Mirror(serve({})),
        Mirror(serve({f"{NAMES[0]}.gz": sends(b"<html>")})),
        Mirror(serve(good())),
    ]
    assert fetched(tried) == (FILES, dict.fromkeys(NAMES, tried[-1].name))


def test_files_of_an_earlier_source_are_kept(serve: Serve) -> None:
    """The first has two files and breaks at the third; the second is asked for the other two alone."""
    first, second = serve(good(*NAMES[:2])), serve(good(*NAMES[2:]))
    origin = dict(zip(NAMES, [first, first, second, second], strict=True))
    assert fetched([Mirror(first), Mirror(second)]) == (FILES, origin)


def test_wrong_bytes_are_rejected_and_the_same_source_goes_on(serve: Serve) -> None:
    """A mirror with one damaged file still gives the other three; only that one comes from the next."""
    damaged = bytearray(FILES[NAMES[1]])
    damaged[7] ^= 1
    first = serve({**good(), f"{NAMES[1]}.gz": sends(gzip.compress(bytes(damaged)))})
    second = serve(good(NAMES[1]))
    origin = dict(zip(NAMES, [first, second, first, first], strict=True))
    assert fetched([Mirror(first), Mirror(second)]) == (FILES, origin)


def test_the_final_message_lists_each_source_and_why(serve: Serve, tmp_path: Path) -> None:
    longer = serve({f"{name}.gz": sends(gzip.compress(bytes(5000))) for name in NAMES})
    partial = serve({**good(*NAMES[:2]), f"{NAMES[2]}.gz": sends(gzip.compress(FILES[NAMES[2]])[:40])})
    missing, nobody = serve({}), refused()
    tried = [Mirror(address) for address in (longer, partial, missing, nobody)]
    first, *lines = final_message([Folder(tmp_path, "a folder"), *tried])
    assert first == f"mnist: no source has {NAMES[2]}, {NAMES[3]}:"
    expected = [
        "  a folder: ",
        *(f"  {longer}: {name} has the wrong checksum, {len(FILES[name]) + 1} bytes; rejected" for name in NAMES),
        f"  {partial}: Compressed file ended before ",
        f"  {missing}: HTTP Error 404: Not Found",
        f"  {nobody}: ",
    ]
    assert len(lines) == len(expected)
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(start)
    assert "Connection refused" in lines[-1]
