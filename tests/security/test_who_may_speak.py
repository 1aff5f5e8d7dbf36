"""Who may speak to a farm, and to which one a client speaks: token, user, TLS, and allowed folders."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import trustme
from real_farm import IMPORTED_FROM, RealFarm, Wire

from luna_farm.core import protocol
from luna_farm.errors import FarmUnavailable, InvalidRequest, Unauthorized
from luna_farm_client import AsyncFarmClient, FarmClient, SaveImage, SaveRequest
from luna_farm_client.endpoint import Endpoint

Start = Callable[..., RealFarm]
PIXELS = np.zeros((8, 8, 3), np.uint8)
SECRET = "not-for-any-log-4711-abcdef"
NOBODY = 65534

other_users = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0 or sys.platform != "linux",
    reason="only root on Linux can become another user: who is refused by user was not tested",
)


def request(folder: Path | str, **fields: object) -> SaveRequest:
    return SaveRequest([SaveImage(PIXELS)], output_dir=folder, filename="a", **fields)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- the token


def test_the_token_is_for_its_user_only_and_new_at_each_start(start: Start) -> None:
    farm = start()
    first = farm.token
    assert (mode(farm.state), mode(farm.state / "token")) == (0o700, 0o600)
    assert len(first) >= 43
    farm.stop()
    farm.start()
    assert farm.token != first
    with Wire(farm.knock()) as wire:
        wire.send(protocol.hello(first, os.getpid()))
        assert [told["code"] for told in wire.last_words()] == ["unauthorized"]


def test_everything_in_the_state_folder_is_for_its_user_only(start: Start) -> None:
    old = os.umask(0)
    try:
        farm = start()
    finally:
        os.umask(old)
    with farm.client() as client:
        client.wait(client.submit(request(farm.out, durable=True)).job_id, 60)
    open_to_others = {}
    for path in farm.state.rglob("*"):
        with suppress(FileNotFoundError):  # a running farm removes files, too
            if mode(path) & 0o077 and not path.is_socket() and path.parent.stat().st_mode & 0o077:
                open_to_others[str(path.relative_to(farm.state))] = oct(mode(path))
    assert open_to_others == {}
    segments = [name for name in (farm.state / "arena").read_text().split() if name.startswith("shm:")]
    assert segments
    for segment in segments:
        assert not mode(Path("/dev/shm", segment.removeprefix("shm:"))) & 0o077


def test_a_restart_with_a_new_token_fails_no_submit_of_a_running_client(start: Start, tmp_path: Path) -> None:
    """One thread goes on submitting while the farm is ended and started, in both ways of ending."""
    farm = start()
    done, failed = [], []
    enough, tokens = threading.Event(), {farm.token}
    with farm.client(restart_s=60.0) as client:
        done.append(client.submit(request(tmp_path / "out")).job_id)

        def go_on() -> None:
            while not enough.is_set():
                try:
                    done.append(client.submit(request(tmp_path / "out")).job_id)
                except Exception as error:
                    failed.append(error)

        thread = threading.Thread(target=go_on)
        thread.start()
        try:
            for number in (signal.SIGTERM, signal.SIGKILL, signal.SIGTERM):
                farm.stop(number)
                farm.start()
                tokens.add(farm.token)
                seen = len(done)
                while len(done) < seen + 5 and not failed:
                    enough.wait(0.01)
        finally:
            enough.set()
            thread.join()
        assert failed == []
        assert len(tokens) == 4
        assert {client.wait(job_id, 300).state for job_id in done} == {"done"}
    assert len(list((tmp_path / "out").glob("*.png"))) == len(set(done)) == len(done)


def test_a_token_is_no_argument(start: Start) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "luna_farm", "start", "--token", SECRET],
        env={**os.environ, "PYTHONPATH": str(IMPORTED_FROM)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 2
    assert "no option --token" in ended.stderr
    assert SECRET not in ended.stderr


def test_no_secret_is_in_arguments_logs_notes_status_or_files(start: Start) -> None:
    farm = start(LUNA_FARM_TOKEN=SECRET, log_level="debug")
    assert farm.token == SECRET
    with Wire(farm.knock()) as wire:
        wire.send(protocol.hello(SECRET + "x", os.getpid()))
        assert SECRET not in str(wire.last_words())
    workflow = {"nodes": [{"widgets_values": ["sk-proj-0123456789abcdefghijABCDEFGHIJ"]}]}
    prompt = {"1": {"inputs": {"api_key": "hunter2-hunter2", "text": "a cat"}, "class_type": "Ask"}}
    with farm.client(token=SECRET) as client:
        sent = request(farm.out, prompt=prompt, extra_pnginfo={"workflow": workflow}, quality_gate="both")
        report = client.wait(client.submit(sent).job_id, 60)
        assert report.state == "done"
        told = json.dumps(client.status()) + str(report)
    family = [psutil.Process(farm.pid), *psutil.Process(farm.pid).children(recursive=True)]
    arguments = " ".join(part for process in family for part in process.cmdline())
    assert len(family) >= 2
    for secret in (SECRET, "hunter2", "sk-proj-"):
        assert secret not in arguments
        assert secret not in farm.said()
        assert secret not in told
    (sample,) = farm.out.rglob("*.png")
    assert b"hunter2" not in sample.read_bytes()
    assert b"sk-proj-" not in sample.read_bytes()
    assert b"a cat" in sample.read_bytes()


def test_the_token_is_compared_in_constant_time(farm: RealFarm, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not measurable in a test without depending on speed: what compares is looked at instead."""
    import inspect

    from luna_farm.feed import auth
    from luna_farm.supervisor import connection

    assert "hmac.compare_digest(" in inspect.getsource(connection.ClientConnection._hello)
    assert "hmac.compare_digest(" in inspect.getsource(auth.FeedAuth._is_token)


# --- users of this machine

KNOCK = """
import encodings.idna, os, socket, sys
sys.path[:0] = {paths!r}
from luna_farm.core import protocol
from real_farm import Wire
os.setgroups([]); os.setgid({uid}); os.setuid({uid})
with Wire(socket.create_connection(("127.0.0.1", {port}), 60)) as wire:
    wire.send({{**protocol.hello({token!r}, os.getpid()), "id": 1}})
    print(wire.hear())
"""


def as_user(uid: int, port: int, token: str) -> str:
    paths = [str(IMPORTED_FROM), str(Path(__file__).parent), str(Path(__file__).parents[1])]
    code = KNOCK.format(paths=paths, uid=uid, port=port, token=token)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@other_users
def test_another_user_is_refused_even_with_the_token(farm: RealFarm) -> None:
    assert "'code': 'unauthorized'" in as_user(NOBODY, farm.port, farm.token)
    assert "'protocol': 'luna-farm'" in as_user(0, farm.port, farm.token)


@other_users
def test_a_farm_with_an_explicit_token_and_allowed_folders_may_be_shared(
    start: Start, tmp_path: Path
) -> None:
    farm = start(LUNA_FARM_TOKEN=SECRET, allowed_dirs=str(tmp_path / "shared"))
    assert "'protocol': 'luna-farm'" in as_user(NOBODY, farm.port, SECRET)
    assert "'code': 'unauthorized'" in as_user(NOBODY, farm.port, SECRET + "x")


@other_users
def test_an_explicit_token_alone_lets_no_other_user_write_as_root(start: Start) -> None:
    farm = start(LUNA_FARM_TOKEN=SECRET)
    assert "'code': 'unauthorized'" in as_user(NOBODY, farm.port, SECRET)


IMPOSTOR = """
import os, socket
os.setuid(65534)
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    sock, _ = server.accept()
    sock.settimeout(60)
    try:
        print("heard", sock.recv(4096), flush=True)
    except OSError:
        print("heard nothing", flush=True)
"""


@other_users
def test_a_client_says_nothing_to_another_user_on_the_farms_port(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    with subprocess.Popen([sys.executable, "-c", IMPOSTOR], stdout=subprocess.PIPE, text=True) as impostor:
        assert impostor.stdout is not None
        port = int(impostor.stdout.readline())
        endpoint = Endpoint("127.0.0.1", port, None, tmp_path)
        with FarmClient(port=port) as client:
            client.endpoint = endpoint
            with pytest.raises(Unauthorized, match="belongs to user 65534"):
                client.ping()
        assert impostor.stdout.readline() == "heard b''\n"

        async def ask() -> None:
            twin = AsyncFarmClient(port=port)
            twin.endpoint = endpoint
            await twin.call("ping")

        with pytest.raises(Unauthorized, match="belongs to user 65534"):
            asyncio.run(ask())
        assert impostor.stdout.readline() == "heard b''\n"
        impostor.kill()


# --- beyond this machine


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A certificate for this machine's names, its key, and what to trust it by."""
    folder = tmp_path_factory.mktemp("certificates")
    authority = trustme.CA()
    leaf = authority.issue_cert("localhost", "127.0.0.1")
    paths = {name: folder / f"{name}.pem" for name in ("cert", "key", "authority", "foreign")}
    leaf.private_key_pem.write_to_path(str(paths["key"]))
    paths["cert"].write_bytes(b"".join(blob.bytes() for blob in leaf.cert_chain_pems))
    authority.cert_pem.write_to_path(str(paths["authority"]))
    trustme.CA().cert_pem.write_to_path(str(paths["foreign"]))
    return paths


@pytest.fixture
def far(start: Start, certificates: dict[str, Path], tmp_path: Path) -> RealFarm:
    """A farm that listens beyond loopback: on all addresses."""
    (tmp_path / "shared").mkdir()
    return start(
        host="0.0.0.0",
        tls_cert=str(certificates["cert"]),
        tls_key=str(certificates["key"]),
        allowed_dirs=str(tmp_path / "shared"),
        LUNA_FARM_TOKEN=SECRET,
    )


@pytest.mark.parametrize("missing", ["tls_cert", "tls_key", "allowed_dirs", "LUNA_FARM_TOKEN"])
def test_beyond_loopback_nothing_may_be_missing(
    certificates: dict[str, Path], tmp_path: Path, missing: str
) -> None:
    given = {
        "host": "0.0.0.0",
        "tls_cert": str(certificates["cert"]),
        "tls_key": str(certificates["key"]),
        "allowed_dirs": str(tmp_path),
        "LUNA_FARM_TOKEN": SECRET,
    }
    del given[missing]
    farm = RealFarm(tmp_path / "farm", **given)
    with pytest.raises(AssertionError, match="the farm ended"):
        farm.start()
    assert missing.removeprefix("LUNA_FARM_").lower() in farm.log()
    assert SECRET not in farm.log()


def test_tls_from_end_to_end(
    far: RealFarm, certificates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUNA_FARM_TOKEN", SECRET)
    monkeypatch.setenv("LUNA_FARM_TLS_CERT", str(certificates["authority"]))
    monkeypatch.setenv("LUNA_FARM_HOST", "localhost")
    big = np.random.default_rng(7).integers(0, 256, (700, 700, 3), np.uint8)
    with FarmClient(port=far.port) as client:
        for pixels in (PIXELS, big):
            sent = SaveRequest([SaveImage(pixels)], output_dir=tmp_path / "shared", filename="a")
            assert client.wait(client.submit(sent).job_id, 60).state == "done"
    assert len(list((tmp_path / "shared").glob("*.png"))) == 2

    async def twin() -> str:
        async with AsyncFarmClient(port=far.port) as other:
            receipt = await other.submit(request(tmp_path / "shared"))
            return (await other.wait(receipt.job_id, 300)).state

    loop = asyncio.new_event_loop()  # which does nothing more once that is done
    assert loop.run_until_complete(twin()) == "done"
    loop.close()
    gc.collect()  # a connection that is still open is told here
    command = [sys.executable, "-m", "luna_farm", "status", "--json", "--port", str(far.port)]
    environ = {**os.environ, "PYTHONPATH": str(IMPORTED_FROM), "LUNA_FARM_STATE_DIR": str(tmp_path / "none")}
    told = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60)
    assert json.loads(told.stdout)["pid"] == far.pid, told.stderr


def test_pixels_travel_over_tls_where_there_is_no_shared_memory(
    far: RealFarm, certificates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luna_farm.errors import ArenaError
    from luna_farm.storage.arena import Segments

    def elsewhere(self: Segments, name: str) -> None:
        raise ArenaError("another machine")

    monkeypatch.setattr(Segments, "arena", elsewhere)
    trusted = ssl.create_default_context(cafile=certificates["authority"])
    big = np.random.default_rng(7).integers(0, 256, (900, 900, 3), np.uint8)
    with FarmClient("localhost", far.port, SECRET, tls=trusted) as client:
        sent = SaveRequest([SaveImage(big), SaveImage(PIXELS)], output_dir=tmp_path / "shared", filename="a")
        assert client.wait(client.submit(sent).job_id, 60).state == "done"


def test_a_client_does_not_talk_to_what_it_cannot_trust(
    far: RealFarm, certificates: dict[str, Path], tmp_path: Path
) -> None:
    foreign = ssl.create_default_context(cafile=certificates["foreign"])
    with (
        FarmClient("localhost", far.port, SECRET, tls=foreign) as client,
        pytest.raises(FarmUnavailable, match="LUNA_FARM_TLS_CERT"),
    ):
        client.ping()
    named = ssl.create_default_context(cafile=certificates["authority"])
    with (
        FarmClient("127.0.0.2", far.port, SECRET, tls=named) as client,
        pytest.raises(FarmUnavailable, match="not trusted"),
    ):
        client.ping()


def test_without_tls_or_with_an_old_one_there_is_no_answer(
    far: RealFarm, certificates: dict[str, Path], recwarn: pytest.WarningsRecorder
) -> None:
    with Wire(far.knock()) as wire:
        wire.send(protocol.hello(SECRET, os.getpid()))
        try:
            heard = wire.sock.recv(4096)
        except ConnectionError:
            heard = b""
        assert b"luna" not in heard
    old = ssl.create_default_context(cafile=certificates["authority"])
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.maximum_version = ssl.TLSVersion.TLSv1_1
    recwarn.clear()
    with pytest.raises((ssl.SSLError, ConnectionError)), far.knock() as sock:
        old.wrap_socket(sock, server_hostname="localhost")


def test_handshakes_that_do_not_end_keep_nobody_out(
    far: RealFarm, certificates: dict[str, Path], tmp_path: Path
) -> None:
    slow = [far.knock() for _ in range(200)]
    trusted = ssl.create_default_context(cafile=certificates["authority"])
    with FarmClient("localhost", far.port, SECRET, tls=trusted) as client:
        assert client.wait(client.submit(request(tmp_path / "shared")).job_id, 300).state == "done"
    for sock in slow:
        sock.close()
    assert "Traceback" not in far.said()


def test_a_token_from_the_state_folder_never_leaves_the_machine(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(SECRET)
    assert Endpoint("127.0.0.1", 1, None, tmp_path).token() == SECRET
    assert Endpoint("farm.example", 1, None, tmp_path).token() == ""


@pytest.mark.parametrize("host", ["farm.example", "10.0.0.5", "2001:db8::1"])
def test_beyond_this_machine_a_client_speaks_tls_only(host: str) -> None:
    context = Endpoint.find(host, 1, "t", None).tls
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED


@pytest.mark.parametrize(("given", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "::1")])
def test_a_farm_on_all_addresses_is_reached_by_this_machines(given: str, reached: str) -> None:
    assert Endpoint.find(given, 1, "t", None).host == reached


# --- folders that are allowed


def test_only_allowed_folders_are_written_to_on_every_road(start: Start, tmp_path: Path) -> None:
    shared, elsewhere = tmp_path / "shared", tmp_path / "elsewhere"
    (shared / "inside").mkdir(parents=True)
    elsewhere.mkdir()
    (shared / "out").symlink_to(elsewhere)
    (shared / "in").symlink_to(shared / "inside")
    (tmp_path / "auth").symlink_to(shared)
    farm = start(allowed_dirs=str(shared), output_dir=str(shared), fallback_dir=str(shared / "fallback"))
    with farm.client() as client:
        for folder in (
            elsewhere,
            shared / "out",
            shared / "out" / "deep",
            f"{shared}/../elsewhere",
            f"{shared}-not",
            tmp_path,
            "/",
        ):
            sent = request(shared)
            outgoing = {**fields_of(sent), "output_dir": str(folder)}
            with pytest.raises(InvalidRequest, match="allowed_dirs"):
                submit_raw(farm, outgoing)
        for folder in (shared, shared / "in", tmp_path / "auth" / "new" / "deep", f"{shared}/x/../y"):
            report = client.wait(client.submit(request(folder, save_path="a/b")).job_id, 60)
            assert report.state == "done"
            assert Path(report.paths[0]).resolve().is_relative_to(shared)
        with pytest.raises(InvalidRequest, match="real folders"):
            client.submit(request(shared, save_path="out/x"))
    assert list(elsewhere.iterdir()) == []
    assert not (tmp_path / "shared-not").exists()


def test_a_fallback_folder_elsewhere_is_refused_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    farm = RealFarm(
        tmp_path / "farm", allowed_dirs=str(tmp_path / "shared"), fallback_dir=str(tmp_path / "b")
    )
    with pytest.raises(AssertionError, match="the farm ended"):
        farm.start()
    assert "fallback_dir" in farm.log()
    (tmp_path / "shared" / "link").symlink_to(tmp_path)
    hidden = RealFarm(
        tmp_path / "farm2",
        allowed_dirs=str(tmp_path / "shared"),
        fallback_dir=str(tmp_path / "shared" / "link" / "b"),
    )
    with pytest.raises(AssertionError, match="the farm ended"):
        hidden.start()
    assert "--fallback-dir" in hidden.log()
    noted = (hidden.state / "arena").read_text().split()  # its memory was made already
    assert noted
    assert not [name for name in noted if Path("/dev/shm", name.removeprefix("shm:")).exists()]


def fields_of(sent: SaveRequest) -> dict[str, object]:
    from luna_farm_client.outgoing import Outgoing

    return Outgoing(sent).fields


def submit_raw(farm: RealFarm, fields: dict[str, object]) -> None:
    """Submit as no honest client does: the output_dir as it is, not made absolute and normal."""
    with farm.let_in() as wire:
        (lease,) = wire.ask({"cmd": "lease", "id": 1, "sizes": [192]})["leases"]
        wire.send({**fields, "cmd": "save_images_async", "id": 2, "images": [{"shape": [1, 8, 8, 3]}]})
        answer = wire.ask({"cmd": "seal", "id": 2, "parts": [[lease["lease"], 1]]})
        protocol.check(answer)
