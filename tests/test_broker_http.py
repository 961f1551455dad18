"""One request, at most once, within its time: tried against peers on real sockets that behave as badly as they can."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import broker_http
from broker_http import Answered, Http, Lost, NeverSent

CERTIFICATE = Path(__file__).parent / "data" / "self_signed.pem"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Left: 7\r\n\r\nok"

Serve = Callable[[socket.socket], None]


class Peer:
    """A server on loopback: `serve` has each connection; `requests` is what came, `connections` how often."""

    def __init__(self, serve: Serve | None = None, *, tls: bool = False) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self._serve = serve or self.answer
        self._tls = tls
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self._tls:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(CERTIFICATE)
                client = context.wrap_socket(client, server_side=True)
            self._serve(client)

    def read(self, client: socket.socket) -> bytes:
        """The next request, to its end; empty when the client has left."""
        data = b""
        while b"\r\n\r\n" not in data:
            more = client.recv(65536)
            if not more:
                return b""
            data += more
        self.requests.append(data)
        return data

    def answer(self, client: socket.socket, reply: bytes = OK) -> None:
        while self.read(client):
            client.sendall(reply)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    made: list[Peer] = []

    def make(serve: Callable[[Peer, socket.socket], None] | None = None, *, tls: bool = False) -> Peer:
        if serve is None:
            made.append(Peer(tls=tls))
        else:
            made.append(Peer(lambda client: serve(made[-1], client), tls=tls))
        return made[-1]

    yield make
    for each in made:
        each.close()


def answering(reply: bytes, then: Serve = lambda client: None) -> Callable[[Peer, socket.socket], None]:
    """Reads one request, sends this, and does `then`."""

    def serve(peer: Peer, client: socket.socket) -> None:
        peer.read(client)
        client.sendall(reply)
        then(client)

    return serve


def reset(client: socket.socket) -> None:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def hold(client: socket.socket) -> None:
    client.settimeout(5)
    with contextlib.suppress(OSError):
        client.recv(1)


# ---- answered


def test_an_answer_is_told_with_its_status_body_and_headers_whatever_the_status(peer: Callable[..., Peer]) -> None:
    reply = Http(peer(answering(b"HTTP/1.1 504 Gone\r\nContent-Length: 3\r\nRetry-After: 9\r\n\r\nlow")).url).ask(
        "GET", "/a?b=%20c", seconds=2
    )
    assert reply == Answered(504, b"low", {"content-length": "3", "retry-after": "9"})


def test_method_path_headers_and_body_leave_as_they_are_given(peer: Callable[..., Peer]) -> None:
    there = peer()
    Http(there.url + "/openApi/", {"X-Key": "k"}).ask("POST", "/order?x=%7B1", seconds=2, body=b"", headers={"A": "b"})
    (request,) = there.requests
    head = request.decode().split("\r\n")
    assert head[0] == "POST /openApi/order?x=%7B1 HTTP/1.1"
    assert {f"Host: 127.0.0.1:{there.port}", "X-Key: k", "A: b", "Content-Length: 0"} <= set(head)


def test_a_reply_in_chunks_is_one_body(peer: Callable[..., Peer]) -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
    reply = Http(peer(answering(chunked)).url).ask("GET", "/", seconds=2)
    assert isinstance(reply, Answered)
    assert reply.body == b"abc"


def test_a_connection_is_used_again_and_one_that_was_hung_up_is_not(peer: Callable[..., Peer]) -> None:
    def serve(peer: Peer, client: socket.socket) -> None:
        for _ in range(2):
            peer.read(client)
            client.sendall(OK)

    there = peer(serve)
    http = Http(there.url)
    for _ in range(2):
        assert isinstance(http.ask("GET", "/", seconds=2), Answered)
    time.sleep(0.1)  # its FIN is here by now
    assert isinstance(http.ask("POST", "/", seconds=2), Answered)
    assert (there.connections, len(there.requests)) == (2, 3)


def test_a_connection_that_says_something_unasked_is_not_used_again(peer: Callable[..., Peer]) -> None:
    def say_more(client: socket.socket) -> None:
        time.sleep(0.05)
        client.sendall(OK)
        hold(client)

    there = peer(answering(OK, say_more))
    http = Http(there.url)
    http.ask("GET", "/1", seconds=2)
    time.sleep(0.2)
    assert isinstance(http.ask("GET", "/2", seconds=2), Answered)
    assert there.connections == 2


def test_a_connection_whose_peer_says_that_it_is_the_last_reply_is_not_used_again(peer: Callable[..., Peer]) -> None:
    there = peer(answering(OK.replace(b"X-Left: 7", b"Connection: close"), hold))
    http = Http(there.url)
    for _ in range(2):
        assert isinstance(http.ask("GET", "/", seconds=2), Answered)
    assert there.connections == 2


def test_a_connection_that_nobody_used_for_long_is_not_used_again(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_http, "IDLE_SECONDS", 0)
    there = peer()
    http = Http(there.url)
    for _ in range(2):
        http.ask("GET", "/", seconds=2)
    assert there.connections == 2


def test_many_threads_each_get_their_own_answer(peer: Callable[..., Peer]) -> None:
    def echo(peer: Peer, client: socket.socket) -> None:
        while request := peer.read(client):
            name = request.split()[1]
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(name), name))

    http = Http(peer(echo).url)
    wrong: list[object] = []

    def ask(number: int) -> None:
        for turn in range(20):
            reply = http.ask("GET", f"/{number}/{turn}", seconds=5)
            if not isinstance(reply, Answered) or reply.body.decode() != f"/{number}/{turn}":
                wrong.append(reply)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_redirect_is_an_answer_and_nobody_goes_there(peer: Callable[..., Peer]) -> None:
    elsewhere = peer()
    moved = f"HTTP/1.1 307 Moved\r\nLocation: {elsewhere.url}/\r\nContent-Length: 0\r\n\r\n".encode()
    reply = Http(peer(answering(moved)).url).ask("POST", "/order", seconds=2)
    assert isinstance(reply, Answered)
    assert reply.status == 307
    assert elsewhere.connections == 0


def test_no_proxy_and_no_netrc_of_the_environment_is_asked(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    proxy, there = peer(), peer()
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login a password b")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert isinstance(Http(there.url).ask("GET", "/", seconds=2), Answered)
    assert proxy.connections == 0
    assert b"authorization" not in there.requests[0].lower()


def test_a_reply_that_echoes_a_key_does_not_show_it(peer: Callable[..., Peer]) -> None:
    body = b"who is sekret-1?"
    there = peer(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + body))
    reply = Http(there.url, hidden=("sekret-1", "")).ask("GET", "/", seconds=2)
    assert isinstance(reply, Answered)
    assert reply.body == b"who is ***?"


# ---- never sent


def test_a_refused_connection_is_never_sent(peer: Callable[..., Peer]) -> None:
    there = peer()
    there.close()
    assert Http(there.url).ask("POST", "/order", seconds=2) == NeverSent("ConnectionRefusedError")


def test_a_name_that_is_not_found_is_never_sent() -> None:
    assert Http("https://nowhere.invalid").ask("POST", "/order", seconds=5) == NeverSent("gaierror")


def test_a_server_that_does_not_take_connections_is_never_sent_and_waited_for_only_so_long() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        filler = [socket.socket() for _ in range(4)]
        for each in filler:
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        began = time.monotonic()
        reply = Http(f"http://127.0.0.1:{full.getsockname()[1]}").ask("POST", "/order", seconds=0.4)
        assert reply == NeverSent("TimeoutError")
        assert time.monotonic() - began < 1
        for each in filler:
            each.close()


def test_a_name_that_took_too_long_to_find_is_not_followed_by_an_order(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    there = peer()
    find = socket.getaddrinfo

    def slowly(*args: object) -> object:
        time.sleep(0.3)
        return find(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", slowly)
    assert Http(there.url).ask("POST", "/order", seconds=0.2) == NeverSent("TimeoutError")
    time.sleep(0.1)
    assert there.requests == []


def test_the_second_address_of_a_broker_is_tried_when_the_first_refuses(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    there, gone = peer(), peer()
    gone.close()
    kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    both = [(*kind, ("127.0.0.1", gone.port)), (*kind, ("127.0.0.1", there.port))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: both)
    assert isinstance(Http(there.url).ask("POST", "/", seconds=2), Answered)


def test_a_certificate_of_its_own_making_is_refused_before_anything_is_sent(peer: Callable[..., Peer]) -> None:
    there = peer(tls=True)
    assert Http(there.url).ask("POST", "/order", seconds=2) == NeverSent("SSLCertVerificationError")
    assert there.requests == []


def test_the_environment_cannot_name_certificates_to_trust(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.setenv(name, str(CERTIFICATE))
    reply = Http(peer(tls=True).url).ask("POST", "/order", seconds=2)
    assert reply == NeverSent("SSLCertVerificationError")


def test_a_certificate_that_is_trusted_but_of_another_host_is_refused(peer: Callable[..., Peer]) -> None:
    there = peer(tls=True)
    reply = Http(f"https://localhost:{there.port}", ca_file=str(CERTIFICATE)).ask("POST", "/order", seconds=2)
    assert isinstance(reply, NeverSent)
    assert there.requests == []


def test_a_trusted_certificate_is_talked_to_and_its_connection_used_again(peer: Callable[..., Peer]) -> None:
    there = peer(tls=True)
    http = Http(there.url, ca_file=str(CERTIFICATE))
    for _ in range(3):
        assert isinstance(http.ask("GET", "/", seconds=2), Answered)
    assert (there.connections, len(there.requests)) == (1, 3)


def test_a_server_that_never_finishes_its_handshake_is_never_sent(peer: Callable[..., Peer]) -> None:
    there = peer(lambda peer, client: time.sleep(2))
    began = time.monotonic()
    reply = Http(there.url.replace("http", "https")).ask("POST", "/order", seconds=0.3)
    assert isinstance(reply, NeverSent)
    assert time.monotonic() - began < 1


@pytest.mark.parametrize("target", ["/a\r\nX: y", "/a b", "/ä", "/a\x00"])
def test_what_is_not_one_line_of_ascii_is_never_sent(peer: Callable[..., Peer], target: str) -> None:
    there = peer()
    assert Http(there.url).ask("GET", target, seconds=2) == NeverSent("ValueError")
    assert there.requests == []


@pytest.mark.parametrize("url", ["http://open-api.bingx.com", "http://192.168.1.1", "ftp://127.0.0.1", "127.0.0.1", ""])
def test_keys_never_travel_in_the_open(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        Http(url)


# ---- lost: it may have arrived

CUT_OFF: dict[str, tuple[bytes, Serve]] = {
    "reset before the reply": (b"", reset),
    "hung up before the reply": (b"", socket.socket.close),
    "reset in the head": (b"HTTP/1.1 200 OK\r\nContent-Le", reset),
    "hung up in the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", socket.socket.close),
    "reset in the body": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort", reset),
    "hung up in a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc", socket.socket.close),
    "no HTTP": (b"hello\r\n\r\n", hold),
    "too many headers": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 200 + b"\r\n", hold),
    "a body said to be huge": (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", hold),
}


@pytest.mark.parametrize("how", CUT_OFF)
def test_a_reply_that_is_not_whole_is_lost_and_the_request_is_not_sent_again(
    peer: Callable[..., Peer], how: str
) -> None:
    data, then = CUT_OFF[how]
    there = peer(answering(data, then))
    assert isinstance(Http(there.url).ask("POST", "/order", seconds=2), Lost)
    time.sleep(0.05)
    assert len(there.requests) == 1
    assert there.connections == 1


def test_a_connection_that_breaks_when_it_is_used_again_is_lost_and_not_tried_anew(peer: Callable[..., Peer]) -> None:
    def serve(peer: Peer, client: socket.socket) -> None:
        peer.read(client)
        client.sendall(OK)
        peer.read(client)  # and not a word

    there = peer(serve)
    http = Http(there.url)
    assert isinstance(http.ask("GET", "/", seconds=2), Answered)
    assert isinstance(http.ask("POST", "/order", seconds=2), Lost)
    assert (there.connections, len(there.requests)) == (1, 2)


def test_silence_is_lost_when_the_time_is_over(peer: Callable[..., Peer]) -> None:
    began = time.monotonic()
    assert Http(peer(answering(b"", hold)).url).ask("POST", "/order", seconds=0.3) == Lost("TimeoutError")
    assert 0.25 < time.monotonic() - began < 0.8


@pytest.mark.parametrize("head", [b"", OK[:20], b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n"])
def test_a_peer_that_drips_does_not_get_more_time_for_every_drop(peer: Callable[..., Peer], head: bytes) -> None:
    def drip(client: socket.socket) -> None:
        for _ in range(100):
            client.sendall(b"x")
            time.sleep(0.05)

    began = time.monotonic()
    assert Http(peer(answering(head, drip)).url).ask("POST", "/order", seconds=0.4) == Lost("TimeoutError")
    assert time.monotonic() - began < 1


def test_a_reply_without_end_is_lost_and_never_held_whole(peer: Callable[..., Peer]) -> None:
    sent = 0

    def pour(client: socket.socket) -> None:
        nonlocal sent
        while sent < 20 * broker_http.MAX_BODY_BYTES:
            sent += client.send(b"x" * 65536)

    assert isinstance(Http(peer(answering(b"HTTP/1.1 200 OK\r\n\r\n", pour)).url).ask("GET", "/", seconds=5), Lost)
    assert sent < 5 * broker_http.MAX_BODY_BYTES


def test_the_largest_reply_that_is_read_is_read_whole(
    peer: Callable[..., Peer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker_http, "MAX_BODY_BYTES", 1000)
    for size, kind in ((1000, Answered), (1001, Lost)):
        reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        assert isinstance(Http(peer(answering(reply)).url).ask("GET", "/", seconds=2), kind)


def test_what_is_told_of_a_failure_holds_nothing_of_the_request(peer: Callable[..., Peer]) -> None:
    there = peer(answering(b"", reset))
    reply = Http(there.url).ask("POST", "/order?signature=abc123", seconds=2)
    assert isinstance(reply, Lost)
    assert "abc123" not in repr(reply)
