"""Draw the simulator's day and measure it: `python -m tools.simulator_plots`.

Writes the pictures in `docs/simulator/` and the tables between the marks in `docs/simulator.md`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import matplotlib as mpl
import numpy as np

from tickhouse.source.simulator.profiles import HALF_HOUR_MOVES, HALF_HOUR_TRADES
from tools.simulator_statistics import (
    DAYS,
    NAMES,
    REAL,
    WINDOWS_MS,
    Measured,
    Prints,
    by_half_hour,
    correlation,
    draw_prints,
    measure,
    minute_returns,
    scenario_for,
)

mpl.use("svg")
mpl.rcParams["svg.hashsalt"] = "simulator"
mpl.rcParams["font.size"] = 8

from matplotlib import pyplot as plt  # noqa: E402 - the backend is chosen first

DOCUMENT: Final = Path(__file__).parents[1] / "docs" / "simulator.md"
PICTURES: Final = DOCUMENT.with_suffix("")
REAL_COLOUR: Final = "#888888"
OURS_COLOUR: Final = "#1f6fb4"
HEADER: Final = (
    "| | Fano 0.1 / 1 / 10 / 60 s | same ms | gap CV | burst | sd bp | kurtosis | acf 1 min"
    " | acf of size 1, 10 min | bounce | zero ticks |"
)


def row(name: str, found: Measured) -> str:
    """One line of a table."""
    fano = " / ".join(f"{value:.0f}" for value in found.fano)
    return (
        f"| {name} | {fano} | {found.same_ms:.2f} | {found.gap_cv:.1f} | {found.burst:.1f}"
        f" | {found.sd_bp:.1f} | {found.kurtosis:.1f} | {found.acf1:.2f}"
        f" | {found.abs_acf[0]:.2f}, {found.abs_acf[1]:.2f} | {found.bounce:.2f}"
        f" | {found.zero_ticks:.2f} |"
    )


def real_rows() -> list[str]:
    """The measured stocks, as the document has them."""
    return [row(name, REAL[name]) for name in NAMES]


def table(week: dict[str, list[Prints]]) -> Iterator[str]:
    """Each stock and its stand-in below it."""
    yield HEADER
    yield "|---" * HEADER.count(" | ") + "|---|"
    for name, real in zip(NAMES, real_rows(), strict=True):
        yield real
        yield row("simulated", measure(week[name]))


def draw_counts(week: dict[str, list[Prints]]) -> None:
    """Variance of counts against the window, and trades and moves by half hour."""
    figure, axes = plt.subplots(1, 3, figsize=(10, 2.8), layout="constrained")
    seconds = [window / 1000 for window in WINDOWS_MS]
    for name in NAMES:
        found = measure(week[name]).fano
        (line,) = axes[0].loglog(seconds, found, "o-", markersize=3, label=name)
        axes[0].loglog(seconds, REAL[name].fano, "x--", color=line.get_color(), alpha=0.5)
    axes[0].axhline(1, color=REAL_COLOUR, linewidth=0.8)
    axes[0].set(title="Fano factor of counts (dashed: real)", xlabel="window, s")
    axes[0].legend()
    days = [day for name in NAMES for day in week[name]]
    half_hours = 9.5 + np.arange(13) / 2
    trades = np.mean([by_half_hour(day.time_ms, day.length_ms) for day in days], axis=0)
    axes[1].bar(half_hours, trades, width=0.4, align="edge", color=OURS_COLOUR)
    axes[1].step([*half_hours, 16], [*HALF_HOUR_TRADES, HALF_HOUR_TRADES[-1]], where="post",
                 color="black", linewidth=0.8)  # fmt: skip
    axes[1].set(title="Share of trades by half hour (line: real)", xlabel="New York")
    sizes = [np.abs(minute_returns(day)) for day in days]
    by_minute = np.mean([size / size.mean() for size in sizes], axis=0)
    moves = np.append(by_minute, by_minute[-1]).reshape(13, 30).mean(axis=1)
    axes[2].bar(half_hours, moves, width=0.4, align="edge", color=OURS_COLOUR)
    axes[2].step([*half_hours, 16], [*HALF_HOUR_MOVES, HALF_HOUR_MOVES[-1]], where="post",
                 color="black", linewidth=0.8)  # fmt: skip
    axes[2].set(title="Size of 1-minute returns (line: real)", xlabel="New York")
    save(figure, "counts.svg")


def draw_day(week: dict[str, list[Prints]]) -> None:
    """Price of each minute and trades of each second of one day, a row a stock."""
    figure, axes = plt.subplots(4, 2, figsize=(10, 6), layout="constrained", sharex=True)
    for (prices, counts), name in zip(axes, NAMES, strict=True):
        day = week[name][0]
        edges = np.arange(60_000, day.length_ms + 1, 60_000)
        last = day.price[np.maximum(np.searchsorted(day.time_ms, edges) - 1, 0)] / 10_000
        prices.plot(9.5 + edges / 3.6e6, last, linewidth=0.7, color=OURS_COLOUR)
        prices.set_ylabel(f"{name}-like, USD")
        per_minute = np.bincount(day.time_ms // 10_000, minlength=day.length_ms // 10_000)
        counts.plot(9.5 + np.arange(len(per_minute)) / 360, per_minute, linewidth=0.4,
                    color=OURS_COLOUR)  # fmt: skip
        counts.set_ylabel("trades in 10 s")
    axes[-1][0].set_xlabel("New York")
    axes[-1][1].set_xlabel("New York")
    save(figure, "day.png")


def draw_returns(week: dict[str, list[Prints]]) -> None:
    """Distribution of returns against a normal's, and memory of returns and of their size."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 2.8), layout="constrained")
    lags = range(1, 31)
    for name in NAMES:
        returns = [minute_returns(day) for day in week[name]]
        pooled = np.concatenate([day / day.std() for day in returns])
        density, edges = np.histogram(pooled, bins=np.arange(-6.25, 6.5, 0.5), density=True)
        axes[0].semilogy(edges[:-1] + 0.25, np.maximum(density, 1e-5), ".-", linewidth=0.7)
        sizes = [np.abs(day) for day in returns]
        axes[1].plot(lags, [correlation(sizes, lag) for lag in lags], linewidth=0.8, label=name)
    grid = np.linspace(-6, 6, 121)
    normal = np.exp(-grid * grid / 2) / np.sqrt(2 * np.pi)
    axes[0].semilogy(grid, np.maximum(normal, 1e-5), color="black", linewidth=0.8)
    axes[0].set(title="1-minute returns, in their sd (line: normal)", ylim=(5e-5, 1))
    axes[1].axhline(0, color=REAL_COLOUR, linewidth=0.8)
    axes[1].set(title="Autocorrelation of the size of returns", xlabel="lag, minutes")
    axes[1].legend()
    save(figure, "returns.svg")


def save(figure: plt.Figure, name: str) -> None:
    """Write a picture, the same bytes for the same numbers."""
    PICTURES.mkdir(exist_ok=True)
    metadata = {"Date": None} if name.endswith(".svg") else {"Software": None}
    figure.savefig(PICTURES / name, metadata=metadata, dpi=80)
    plt.close(figure)


def main() -> None:
    """Everything anew."""
    week: dict[str, list[Prints]] = {}
    for name in NAMES:
        scenario, symbol = scenario_for(name)
        week[name] = [draw_prints(scenario, day, [symbol])[symbol].regular() for day in DAYS]
    draw_counts(week)
    draw_day(week)
    draw_returns(week)
    text = DOCUMENT.read_text()
    lines = "\n".join(table(week))
    text = re.sub(
        r"(<!-- measured -->\n).*?(<!-- end -->)", rf"\g<1>{lines}\n\g<2>", text, flags=re.DOTALL
    )
    DOCUMENT.write_text(text)


if __name__ == "__main__":
    main()
