"""The ear of --ch-trace: a socket for what ranks report. report.py makes the files of it.

Datagrams, not connections: a rank that sends one waits for nobody, and ten thousand at once need no queue of
connections here. A report that is lost is said to be missing. Nothing is written to a shared file system but
the two files, once, by this process.

What is imported here delays the launcher; what is imported by report.py comes while ranks start.
"""

import fcntl
import os
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from chlaunch.errors import UsageError

ADDRESSES_MOST = 8  # as in runtime/trace.c
SIOCGIFADDR = 0x8915  # netdevice(7)
BUFFER_BYTES = 8 << 20  # the kernel gives net.core.rmem_max at the most
DATAGRAM_BYTES = 1024
REPORTS_MOST = 1 << 18  # whoever sees a command line on a node knows the token: a flood ends here


@dataclass(frozen=True)
class Trace:
    """A trace that is being taken. files: where the events and the picture go.

    address: what ch-run's --trace is given. received: datagrams, grows while the thread runs.
    """

    files: tuple[Path, Path]
    drafts: tuple[Path, Path]
    begun: int
    token: str
    address: str
    socket: socket.socket
    received: list[bytes] = field(default_factory=list)


def begin(name: str) -> Trace:
    """Return a trace that will be written to name, a path, and to a picture beside it.

    Raises:
        UsageError: the files can't be made there.

    """
    begun = _process_began()
    token = os.urandom(16).hex()
    events = Path(name)
    if not events.name:
        raise UsageError(f"--ch-trace={name} is no file", "write --ch-trace=FILE.json")
    files = (events, events.with_suffix(".svg"))
    if files[0] == files[1]:
        raise UsageError(f"--ch-trace={name}: .svg is the name of the picture", "write --ch-trace=FILE.json")
    drafts = (_draft(files[0], token), files[1])
    try:
        drafts = (drafts[0], _draft(files[1], token))
    except UsageError:
        drafts[0].unlink()
        raise
    ear = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    ear.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    ear.bind(("", 0))
    address = f"{','.join(addresses(ear))}:{ear.getsockname()[1]}/{token}"
    return Trace(files, drafts, begun, token, address, ear)


def _draft(file: Path, token: str) -> Path:
    """Return a new file beside file, which can then only be renamed.

    Raises:
        UsageError: there can be none, or file is something that is not to be replaced.

    """
    if file.exists() and not file.is_file():
        raise UsageError(f"--ch-trace: {file} is no regular file", "give the name of a file that may be made")
    draft = file.with_name(f".{file.name[:200]}.{token[:8]}")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
    except OSError as error:
        raise UsageError(
            f"--ch-trace: can't write {file}: {error.strerror}", "give the name of a file that may be made"
        ) from error
    return draft


def addresses(ear: socket.socket) -> list[str]:
    """Return this host's IPv4 addresses that others may reach; the loopback one only if there is no other.

    No name is looked up: that may take seconds, and gives an address that nodes may not reach.
    """
    found = []
    for _, interface in socket.if_nameindex():
        try:
            reply = fcntl.ioctl(ear, SIOCGIFADDR, interface.encode()[:15].ljust(40, b"\0"))
        except OSError:
            continue  # it has none
        address = socket.inet_ntoa(reply[20:24])
        if not address.startswith("127."):
            found.append(address)
    return found[:ADDRESSES_MOST] or ["127.0.0.1"]


def listen(trace: Trace) -> threading.Thread:
    """Return a thread that keeps what arrives, until the bare token does."""
    thread = threading.Thread(target=_keep, args=(trace,), daemon=True)
    thread.start()
    return thread


def _keep(trace: Trace) -> None:
    """Append datagrams to what was received; those of strangers are not kept."""
    last = trace.token.encode()
    while (datagram := trace.socket.recv(DATAGRAM_BYTES)) != last:
        if datagram.startswith(last) and len(trace.received) < REPORTS_MOST:
            trace.received.append(datagram)


def end(trace: Trace, thread: threading.Thread) -> None:
    """Stop listening. The launcher has ended, so what ranks sent is here before what is sent now."""
    port = trace.socket.getsockname()[1]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth:
        while thread.is_alive():  # a full buffer loses this one too
            mouth.sendto(trace.token.encode(), ("127.0.0.1", port))
            thread.join(0.05)
    trace.socket.close()


def forget(trace: Trace) -> None:
    """Remove what was begun, as nothing was launched."""
    trace.socket.close()
    for draft in trace.drafts:
        draft.unlink(missing_ok=True)


def now() -> int:
    """Return the time of day in microseconds."""
    return time.time_ns() // 1000


def _process_began() -> int:
    """Return when this process began, microseconds of the day, to a tick (proc(5), field 22 of stat)."""
    words = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(words[19]) / os.sysconf("SC_CLK_TCK")
    return now() - int(age * 1e6)
