"""A launch as a picture: SVG, one bar a rank, coloured by phase."""

from collections.abc import Iterator

from chlaunch.launch.trace import PHASES, Launch, Rank

MOST_BARS = 500
WIDTH, LEFT, RIGHT, TOP = 1100, 150, 30, 64
TALLEST_BAR, TALLEST_PICTURE = 16, 1500
TICKS_MOST = 10

# Colours that people with any kind of colour vision tell apart (Okabe and Ito, 2008), and grey.
COLOURS = {
    "planned": "#999999",
    "started": "#56b4e9",
    "waited": "#0072b2",
    "entered": "#e69f00",
    "mounted": "#d55e00",
    "joined": "#f0e442",
    "exec": "#cc79a7",
    "MPI_Init": "#009e73",
}


def draw(launch: Launch, ranks: tuple[Rank, ...]) -> str:
    """Return an SVG document. Of more than MOST_BARS ranks, each bar is the slowest of a few neighbours."""
    each = max(1, -(-len(ranks) // MOST_BARS))
    groups = [ranks[at : at + each] for at in range(0, len(ranks), each)]
    bars = [max(group, key=lambda rank: rank.end) for group in groups]
    height = min(TALLEST_BAR, TALLEST_PICTURE / max(1, len(bars)))
    bottom = TOP + height * len(bars)
    end = max((rank.end for rank in ranks), default=launch.launched - launch.begun)
    scale = (WIDTH - LEFT - RIGHT) / max(1, end)
    size = f'width="{WIDTH}" height="{bottom + 30:.0f}"'
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="11">',
        f'<rect {size} fill="white"/>',
        f'<text x="{LEFT}" y="18" font-size="14">{escape(_title(launch, ranks, each))}</text>',
        *_legend(ranks),
        *_axis(end, scale, bottom),
    ]
    for index, rank in enumerate(bars):
        parts += _bar(rank, TOP + height * index, height, scale)
    parts += _labels(bars, height)
    return "\n".join([*parts, "</svg>", ""])


def escape(text: str) -> str:
    """Return text as XML has it between tags; html.escape does it too, and takes a launch 1 ms to import."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _title(launch: Launch, ranks: tuple[Rank, ...], each: int) -> str:
    """Return the line above."""
    hosts = len({rank.host for rank in ranks})
    grouped = f"; each bar is the slowest of {each} ranks" if each > 1 else ""
    return f"{launch.launcher} from {launch.host}: {len(ranks)} ranks on {hosts} hosts{grouped}"


def _legend(ranks: tuple[Rank, ...]) -> Iterator[str]:
    """Give a key to the colours in use."""
    used = {span.phase for rank in ranks for span in rank.spans}
    for index, phase in enumerate(phase for phase in PHASES if phase in used):
        x = LEFT + 90 * index
        yield f'<rect x="{x}" y="28" width="11" height="11" fill="{COLOURS[phase]}"/>'
        yield f'<text x="{x + 15}" y="38">{phase}<title>{escape(PHASES[phase])}</title></text>'


def _axis(end: int, scale: float, bottom: float) -> Iterator[str]:
    """Give a line and its time for each tick."""
    step = tick(end)
    for time in range(0, end + 1, step):
        x = LEFT + time * scale
        yield f'<path d="M{x:.1f} {TOP - 4}V{bottom:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{x:.1f}" y="{bottom + 16:.1f}" text-anchor="middle">{time / 1000:g} ms</text>'


def tick(end: int) -> int:
    """Return the step between ticks: 1, 2 or 5 times a power of ten, microseconds, TICKS_MOST at the most."""
    step = 1
    while end > step * TICKS_MOST:
        step = step * 5 // 2 if str(step)[0] == "2" else step * 2
    return step


def _bar(rank: Rank, y: float, height: float, scale: float) -> Iterator[str]:
    """Give a rank's bar, with its numbers for those who point at it."""
    number = "" if rank.number is None else f" {rank.number}"
    times = ", ".join(f"{span.phase} {span.length / 1000:.2f} ms" for span in rank.spans)
    yield f"<g><title>{escape(f'rank{number} on {rank.host}: {times}')}</title>"
    for span in rank.spans:
        yield (
            f'<rect x="{LEFT + span.start * scale:.2f}" y="{y:.2f}" width="{span.length * scale:.2f}"'
            f' height="{height * 0.9:.2f}" fill="{COLOURS[span.phase]}"/>'
        )
    yield "</g>"


def _labels(bars: list[Rank], height: float) -> Iterator[str]:
    """Give the ranks' names, as many as there is room for."""
    every = max(1, round(TALLEST_BAR * 0.8 / height))
    for index in range(0, len(bars), every):
        number = "rank" if bars[index].number is None else bars[index].number
        y = TOP + height * index + min(height, TALLEST_BAR) * 0.5 + 4
        label = escape(f"{bars[index].host}: {number}")
        yield f'<text x="{LEFT - 6}" y="{y:.1f}" text-anchor="end">{label}</text>'
