"""The figures of the bill, made once for the page, for notebooks and for reports.

Each is a Plotly figure with a sentence that says in words what it shows. Draws what it is given and
computes nothing. Plotly is imported when the first figure is made: that takes a moment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from html import escape
from typing import Any

from emulator.core import MIB, MILLISECOND, SECOND
from emulator.decision import Choice
from emulator.series import Course, Steps

# Told apart by everybody, on white and on black (Okabe and Ito's).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#999999")
BAD, WORSE, COLD = "#E69F00", "#D55E00", "#56B4E9"
LINE_POINTS = 60


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure, with its name, its title, and what it says."""

    name: str
    title: str
    text: str
    figure: Any  # plotly.graph_objects.Figure

    def document(self) -> dict[str, Any]:
        """JSON types, for Plotly's script."""
        made: dict[str, Any] = self.figure.to_plotly_json()
        return {"name": self.name, "title": self.title, "text": self.text,
                "data": made["data"], "layout": made["layout"]}  # fmt: skip


def costs(steps: Steps, amounts: Mapping[str, Sequence[float]], currency: str) -> Chart:
    """What was spent in each step, by usage type."""
    figure = _figure(steps, f"{currency} in {_length(steps.width)}", barmode="stack")
    order = sorted(amounts, key=lambda name: -sum(amounts[name]))
    for number, name in enumerate(order):
        figure.add_bar(x=_times(steps), y=[*amounts[name]], name=_text(name),
                       marker_color=COLOURS[number % len(COLOURS)])  # fmt: skip
    total = sum(map(sum, amounts.values()))
    text = f"{_amount(total)} {currency} in all"
    if order and total:
        text += f"; the largest part is {order[0]} with {sum(amounts[order[0]]) / total:.0%}"
    return Chart("costs", "Cost over time", f"{text}.", figure)


def requests(steps: Steps, found: Sequence[Course]) -> Chart:
    """Answers, errors and throttles of each step."""
    figure = _figure(steps, f"requests in {_length(steps.width)}", barmode="stack")
    throttles = [sum(one.steps[n].throttles for one in found) for n in range(steps.count)]
    errors = [sum(one.steps[n].errors for one in found) for n in range(steps.count)]
    for number, course in enumerate(found):
        fine = [one.invocations - one.throttles - one.errors for one in course.steps]
        figure.add_bar(x=_times(steps), y=fine, name=_text(course.endpoint),
                       marker_color=COLOURS[number % len(COLOURS)])  # fmt: skip
    for name, values, colour in (("errors", errors, WORSE), ("throttles", throttles, BAD)):
        figure.add_bar(x=_times(steps), y=values, name=name, marker_color=colour,
                       marker_pattern_shape="/")  # fmt: skip
    count = sum(one.invocations for course in found for one in course.steps)
    text = f"{count:,} requests, {sum(throttles):,} throttled, {sum(errors):,} errors."
    return Chart("requests", "Requests, throttles and errors", text, figure)


def latencies(steps: Steps, found: Sequence[Course]) -> Chart:
    """The median and the 95th percentile of each step, and where there were cold starts."""
    figure = _figure(steps, "ms", hovermode="x")
    colds = 0
    for number, course in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        quantiles = [one.latencies for one in course.steps]
        for index, dash, name in ((0, "solid", "median"), (1, "dot", "p95")):
            values = [None if one is None else one[index] / MILLISECOND for one in quantiles]
            figure.add_scatter(x=_times(steps), y=values, name=f"{_text(course.endpoint)}, {name}",
                               mode="lines+markers", line={"color": colour, "dash": dash},
                               marker={"size": 4})  # fmt: skip
        cold = [(time, quantile, one.cold_starts) for time, quantile, one
                in zip(_times(steps), quantiles, course.steps, strict=True)
                if one.cold_starts and quantile]  # fmt: skip
        colds += sum(count for *_, count in cold)
        if cold:
            figure.add_scatter(
                x=[time for time, *_ in cold],
                y=[quantile[2] / MILLISECOND for _, quantile, _ in cold],
                name=f"{_text(course.endpoint)}, cold starts", mode="markers",
                text=[f"{count} cold" for *_, count in cold],
                marker={"symbol": "x", "size": 9, "color": colour},
            )  # fmt: skip
    figure.update_yaxes(type="log")
    text = f"{colds:,} cold starts are marked, at the 99th percentile of their time."
    return Chart("latencies", "Latency, with cold starts", text, figure)


def environments(steps: Steps, found: Sequence[Course]) -> Chart:
    """The most that were alive in each step, and how many there may be."""
    figure = _figure(steps, "environments")
    for number, course in enumerate(found):
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(x=_times(steps), y=course.environments, name=_text(course.endpoint),
                           mode="lines", line={"color": colour, "shape": "hv"})  # fmt: skip
        if course.concurrency:
            edges = [_times(steps)[0], _times(steps)[-1]]
            figure.add_scatter(x=edges, y=[course.concurrency] * 2, mode="lines",
                               name=f"{_text(course.endpoint)}, MaxConcurrency",
                               line={"color": colour, "dash": "dash"})  # fmt: skip
    most = max((max(one.environments, default=0) for one in found), default=0)
    text = f"At most {most} environments of one endpoint were alive at once."
    return Chart("environments", "Environments alive", text, figure)


def memory(steps: Steps, found: Sequence[Course]) -> Chart:
    """The peak of each step beside what an environment has, of serverless endpoints."""
    figure = _figure(steps, "MiB")
    shares = []
    for number, course in enumerate(found):
        used = [one.peak_bytes / MIB or None for one in course.steps]
        paid = max((one.memory_bytes for one in course.steps), default=0) / MIB
        if not paid:
            continue
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(x=_times(steps), y=used, name=f"{_text(course.endpoint)}, used",
                           mode="lines+markers", line={"color": colour})  # fmt: skip
        figure.add_scatter(x=[_times(steps)[0], _times(steps)[-1]], y=[paid] * 2, mode="lines",
                           name=f"{_text(course.endpoint)}, paid for",
                           line={"color": colour, "dash": "dash"})  # fmt: skip
        peak = max((value for value in used if value), default=0.0)
        shares.append(f"{course.endpoint} used {peak / paid:.0%} of {paid:,.0f} MiB")
    figure.update_yaxes(rangemode="tozero")
    text = "; ".join(shares) or "No serverless endpoint was called"
    return Chart("memory", "Memory used and paid for", f"{text}.", figure)


def decision(choice: Choice, currency: str) -> Chart:
    """A day's cost against its calls for both modes, with the traffic that there was."""
    now, crossing = choice.traffic.calls_a_day, choice.crossing
    most = 2 * max(now, crossing or Fraction(0), Fraction(1))
    calls = [most * number / LINE_POINTS for number in range(LINE_POINTS + 1)]
    figure = _plain("calls a day", f"{currency} a day")
    for mode, colour in zip(choice.modes, COLOURS, strict=False):
        figure.add_scatter(x=[float(one) for one in calls],
                           y=[float(mode.day(one)) for one in calls],
                           name=mode.name + (" (now)" if mode.current else ""), mode="lines",
                           line={"color": colour, "width": 3 if mode.current else 2})  # fmt: skip
    current = next(mode for mode in choice.modes if mode.current)
    marks = [(now, current, "now", "diamond")]
    if crossing is not None:
        marks.append((crossing, choice.serverless, f"{float(crossing):,.0f} calls a day", "circle"))
    for at, mode, label, symbol in marks:
        figure.add_scatter(x=[float(at)], y=[float(mode.day(at))], name=label, text=[label],
                           mode="markers+text", textposition="top left", showlegend=False,
                           marker={"symbol": symbol, "size": 10, "color": "#666666"})  # fmt: skip
    return Chart(f"decision-{choice.traffic.endpoint}", f"{choice.traffic.endpoint}: a day's cost",
                 _decided(choice, currency), figure)  # fmt: skip


def trade(choices: Sequence[Choice], currency: str) -> Chart:
    """What a month costs against the 95th percentile of latency: each endpoint as it is."""
    figure = _plain("p95, ms", f"{currency} in 30 days")
    points = [(one, one.traffic.p95_ns) for one in choices]
    for number, (choice, p95) in enumerate(points):
        if p95 is None:
            continue
        mode = next(mode for mode in choice.modes if mode.current)
        cost = float(30 * mode.day(choice.traffic.calls_a_day))
        colour = COLOURS[number % len(COLOURS)]
        figure.add_scatter(x=[p95 / MILLISECOND], y=[cost], mode="markers",
                           name=f"{_text(choice.traffic.endpoint)}, {mode.name}",
                           marker={"size": 12, "color": colour})  # fmt: skip
    text = f"{sum(p95 is not None for _, p95 in points)} endpoints, each as it is now."
    return Chart("trade", "Cost against latency", text, figure)


def _decided(choice: Choice, currency: str) -> str:
    calls = choice.traffic.calls_a_day
    other = next(mode for mode in choice.modes if mode is not choice.cheaper)
    best = choice.cheaper
    text = (
        f"At {float(calls):,.0f} calls a day {best.name} costs {_amount(best.day(calls))} "
        f"{currency} a day, {other.name} {_amount(other.day(calls))}"
    )
    if choice.crossing is None:
        return f"{text}; they cost the same at no traffic."
    return f"{text}; they cost the same at {float(choice.crossing):,.0f} calls a day."


def _figure(steps: Steps, unit: str, **layout: Any) -> Any:
    figure = _plain("", unit, **layout)
    ends = [_time(steps.from_ns), _time(steps.to_ns)]
    figure.update_xaxes(type="date", range=ends)
    return figure


def _plain(across: str, up: str, **layout: Any) -> Any:
    from plotly import graph_objects

    return graph_objects.Figure(
        layout={
            "xaxis": {"title": {"text": across}},
            "yaxis": {"title": {"text": up}, "rangemode": "tozero"},
            "margin": {"l": 60, "r": 16, "t": 16, "b": 40},
            "legend": {"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom"},
            "template": "none",
            **layout,
        }
    )


def _text(name: str) -> str:
    """Plotly takes tags in texts for formats and links; what is written here is a name."""
    return escape(name, quote=False)


def _times(steps: Steps) -> list[str]:
    return [_time(start) for start in steps.starts]


def _time(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // SECOND, UTC):%Y-%m-%d %H:%M:%S}"


def _length(width: int) -> str:
    minutes = width // (60 * SECOND)
    for size, name in ((1440, "day"), (60, "hour"), (1, "minute")):
        if minutes % size == 0:
            count = minutes // size
            return f"{count} {name}s" if count > 1 else f"a {name}" if name != "hour" else "an hour"
    raise AssertionError(width)


def _amount(value: float | Fraction) -> str:
    """Three significant digits, and never a power of ten."""
    number = float(value)
    digits = 2 if number >= 1 or not number else min(15, 2 - _exponent(number))
    return f"{number:,.{digits}f}"


def _exponent(number: float) -> int:
    return int(f"{number:e}".partition("e")[2])
