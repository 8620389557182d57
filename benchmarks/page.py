"""
The page of results: tables in Markdown, bars in SVG; no name of a machine, no path.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Bars", "Section", "spread"]

COLOURS = ("#2a6f97", "#e07a5f", "#81b29a", "#b8a1cf")


def spread(values: Sequence[float]) -> tuple[str, str]:
    """
    Median and quartiles in words.
    """
    low, median, high = statistics.quantiles(values, n=4) if len(values) > 1 else [values[0]] * 3
    return f"{median:.2f}", f"{low:.2f} to {high:.2f}"


@dataclass
class Bars:
    """
    Groups of bars with one colour per series, and a line at each bound.
    """

    title: str
    _bars: list[tuple[str, float, float | None, str]] = field(default_factory=list)

    def add(
        self, label: str, value: float, *, bound: float | None = None, series: str = ""
    ) -> None:
        self._bars.append((label, value, bound, series))

    @property
    def svg(self) -> str:
        series = list(dict.fromkeys(bar[3] for bar in self._bars))
        top = max([1.0, *(max(value, bound or 0) for _, value, bound, _ in self._bars)]) * 1.1
        left, width, height, base = 50, 34, 220, 270
        labels = list(dict.fromkeys(bar[0] for bar in self._bars))
        group = width * len(series) + 26
        parts = [
            f'<text x="{left}" y="20" font-size="14">{escape(self.title)}</text>',
            *(
                f'<rect x="{left + 190 * i}" y="30" width="10" height="10" fill="{COLOURS[i]}"/>'
                f'<text x="{left + 190 * i + 14}" y="39">{escape(name)}</text>'
                for i, name in enumerate(series)
                if name
            ),
        ]
        for step in range(int(top / 0.25) + 1):
            y = base - step * 0.25 / top * height
            parts.append(
                f'<line x1="{left}" y1="{y:.1f}" x2="{left + group * len(labels)}" y2="{y:.1f}"'
                f' stroke="#ddd"/><text x="{left - 34}" y="{y + 4:.1f}">{step * 0.25:.2f}</text>'
            )
        for label, value, bound, name in self._bars:
            x = left + 13 + group * labels.index(label) + width * series.index(name)
            tall = value / top * height
            parts.append(
                f'<rect x="{x}" y="{base - tall:.1f}" width="{width - 4}" height="{tall:.1f}"'
                f' fill="{COLOURS[series.index(name)]}"/>'
                f'<text x="{x}" y="{base - tall - 4:.1f}">{value:.2f}</text>'
            )
            if bound:
                y = base - bound / top * height
                parts.append(
                    f'<line x1="{x - 6}" y1="{y:.1f}" x2="{x + width + 2}" y2="{y:.1f}"'
                    ' stroke="#c1121f" stroke-width="2"/>'
                )
        for i, label in enumerate(labels):
            x = left + 13 + group * i
            parts.append(f'<text x="{x}" y="{base + 16}">{escape(label)}</text>')
        size = f'width="{left + group * len(labels) + 20}" height="{base + 30}"'
        style = 'xmlns="http://www.w3.org/2000/svg" font-family="sans-serif" font-size="11"'
        return f"<svg {size} {style}>\n" + "\n".join(parts) + "\n</svg>\n"


@dataclass(frozen=True, kw_only=True)
class Section:
    """
    A benchmark's part of the page.
    """

    title: str
    text: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    bars: Mapping[str, Bars] = field(default_factory=dict)
    after: str = ""

    @property
    def markdown(self) -> str:
        sentences = self.text.replace(". ", ".\n")
        table = [self.head, ["---"] * len(self.head), *self.rows]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
        plots = "".join(
            f"\n![{bars.title}](results-{name}.svg)\n" for name, bars in self.bars.items()
        )
        return f"## {self.title}\n\n{sentences}\n\n{lines}\n{plots}{self.after}"
