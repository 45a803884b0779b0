"""What others may put in the way: in the environment, on the node, in the time between two calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runtime import Runtime


def test_late_keeper_spares_the_next_container(runtime: Runtime, squashfs: str) -> None:
    """A keeper that learns late of its server's end finds other ranks of that tag and image: not its own."""
    result = runtime.shell(
        f"$CH_RUN --join-tag=late {squashfs} -- sh -c 'echo >/tmp/up; until [ -e /tmp/end ]; do sleep 0.01; done' & "
        "until [ -e /tmp/up ]; do sleep 0.01; done; keeper=$(pgrep -x ch-run-keeper); kill -STOP $keeper; "
        "echo >/tmp/end; wait; rm /tmp/up; "
        f"$CH_RUN --join-tag=late {squashfs} -- sh -c 'echo >/tmp/up; exec sleep 1' & "
        "until [ -e /tmp/up ]; do sleep 0.01; done; kill -CONT $keeper; "
        "while [ -e /proc/$keeper ]; do sleep 0.01; done; wait $!; echo $?; rm /tmp/up /tmp/end"
    )
    runtime.await_no_servers()
    assert (result.stdout, result.stderr) == ("0\n", "")
