"""What a command of a build sees besides the image, each as ch-run's option says it (ch-run(1))."""

from dataclasses import dataclass
from pathlib import Path

# Directories that ch-run shows as one.
LAYERS_MOST = 200


@dataclass(frozen=True)
class Bind:
    """Something of the host that the command sees. target: in the image."""

    source: Path
    target: str
    read_only: bool = True

    @property
    def word(self) -> str:
        """Return ch-run's option."""
        return f"--bind{'-ro' if self.read_only else ''}={self.source}:{self.target}"

    @property
    def is_directory(self) -> bool:
        """Say whether its mount point is a directory."""
        return self.source.is_dir()


@dataclass(frozen=True)
class Layers:
    """Directories of the host as one, the topmost first. Not even root in the image can write to them."""

    sources: tuple[Path, ...]
    target: str
    is_directory: bool = True

    @property
    def word(self) -> str:
        """Return ch-run's option."""
        return f"--bind-layers={':'.join(map(str, self.sources))}:{self.target}"


@dataclass(frozen=True)
class Memory:
    """A tmpfs. size: bytes; None for as much as the kernel gives, which is half of the memory."""

    target: str
    size: int | None = None
    is_directory: bool = True

    @property
    def word(self) -> str:
        """Return ch-run's option."""
        return f"--tmpfs={self.target}{f':{self.size}' if self.size else ''}"


Seen = Bind | Layers | Memory
