"""A build in a process of its own, which may be killed or traced; of a site that is there."""

from pathlib import Path

from builds import Site
from made import store_at

from chlaunch.image.build.binds import Bind


def main(directory: str, ch_run: str, text: str) -> None:
    """Build a Dockerfile's text; in its steps, /log is the directory log beside the context, if there is one."""
    store = store_at(Path(directory, "storage"))
    log = Path(directory, "log")
    binds = (Bind(log, "/log", read_only=False),) if log.is_dir() else ()
    Site(Path(directory, "context"), store, ch_run).build(text, binds=binds)
