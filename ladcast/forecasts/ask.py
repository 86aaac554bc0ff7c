"""Answers one question about an ensemble: how likely something is at each point, in an area, and over time.

A question is `CONDITION [for TIME] [in REGION | at PLACE]`, such as

    wind10 > 20 m/s and msl < 980 hPa for 12 h in -10,50,10,60

Comparisons of fields (`Event`) are joined by `and`, `or`, `not` and parentheses: at one point and time of one member.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_, or_
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Shaped

from ladcast.data.lexicon import CONVERSIONS
from ladcast.fields import VARIABLES
from ladcast.forecasts import Selection
from ladcast.forecasts.open import AnyForecast, open_part, without_analysis
from ladcast.forecasts.products import EVENT, Event
from ladcast.grid import Place, row_weights
from ladcast.run import show_progress
from ladcast.times import HOUR
from ladcast.units import spell_units

FORM = "Expected a question as CONDITION [for 12 h] [in west,south,east,north | at PLACE], such as 'wind10 > 20 m/s'"
TIME, WHERE = r"\s+for\s+(?P<time>\d+)\s*(?P<unit>h|hours?|d|days?)", r"\s+(?P<how>in|at)\s+(?P<where>\S.*?)"
PARTS = re.compile(rf"\s*(?P<condition>.+?)(?:{TIME})?(?:{WHERE})?\s*")
WORDS = re.compile(r"(\(|\)|\b(?:and|or|not|for|in|at)\b)")
DEEPEST = 20
AREA = ("latitude", "longitude")
QUANTILES = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Joint:
    """Says that all parts of it happen (`and`), any of them (`or`), or that its one part does not (`not`)."""

    word: str
    parts: tuple[Condition, ...]

    @property
    def events(self) -> tuple[Event, ...]:
        """Returns all that is compared."""
        return tuple(event for part in self.parts for event in _events(part))


Condition = Event | Joint


@dataclass(frozen=True)
class Question:
    """What is asked, where, and for how long it must hold without a break."""

    text: str
    condition: Condition
    hours: int = 0
    region: str | None = None
    place: Place | None = None

    @classmethod
    def parse(cls, text: str) -> Question:
        """Reads a question; raises ValueError that shows the form, or what is wrong with a part of it."""
        parts = PARTS.fullmatch(text)
        if parts is None:
            raise ValueError(f"{FORM}, got '{text}'.")
        words = [word.strip() for word in WORDS.split(parts["condition"]) if word.strip()]
        if words.count("(") > DEEPEST or words.count("not") > DEEPEST:
            raise ValueError(f"Expected at most {DEEPEST} parentheses and not, got '{text:.60}'.")
        condition = _either(words, text)
        if words:
            raise ValueError(f"{FORM}, got '{text}', where '{' '.join(words)}' is left over.")
        where = parts["where"]
        return cls(
            text.strip(),
            condition,
            hours=int(parts["time"] or 0) * (24 if (parts["unit"] or "h")[0] == "d" else 1),
            region=where if parts["how"] == "in" else None,
            place=Place.parse(where) if parts["how"] == "at" else None,
        )

    @cached_property
    def events(self) -> tuple[Event, ...]:
        """Returns all that is compared."""
        return _events(self.condition)

    def selection(self, **part: Any) -> Selection:
        """Returns the part of a forecast that the answer needs: no other variable, level or point."""
        variables = dict.fromkeys(name for event in self.events for name in event.variables)
        levels = dict.fromkeys(event.level for event in self.events if event.level is not None)
        return Selection(variables=tuple(variables), levels=tuple(levels), region=self.region, **part)

    def frames(self, leads: Shaped[np.ndarray, " lead"]) -> int:
        """Returns over how many frames in a row it must hold: 12 h are three of every 6 h, but two sums over 6 h.

        Raises:
            ValueError: the lead times do not serve for such a time.
        """
        summed = {VARIABLES[name].accumulated_hours for event in self.events for name in event.variables}
        accumulated = summed.pop() if len(summed) == 1 else 0  # the first sum reaches so far back
        if self.hours in (0, accumulated):
            return 1
        steps = np.unique(np.diff(leads) / HOUR)
        count = (self.hours - accumulated) / steps[0] + 1 if len(steps) == 1 and steps[0] > 0 else 0.0
        if count != int(count) or not 1 <= count <= len(leads):
            sums = f" (sums over {accumulated} h: at least that, and a part of the rest)" * bool(accumulated)
            there = ", ".join(f"{lead / HOUR:g}" for lead in leads)
            raise ValueError(
                f"'for {self.hours} h' needs lead times evenly apart, by a part of that time, that reach it{sums}; "
                f"got {there} h. Ask for another time, or choose other --leads."
            )
        return int(count)


def ask(
    forecast: AnyForecast, question: str | Question, *, quantiles: Sequence[float] = QUANTILES, **part: Any
) -> xr.Dataset:
    """Answers a question about a forecast; one frame after another is read, and decoded where latents are kept.

    Args:
        forecast: a forecast, or the path of one.
        question: what is asked.
        quantiles: fractions of the members.
        part: `leads`, `members` and `times` of `Selection`: what is not named stays whole.

    Returns:
        shares of the members, by initial time (`time`) and lead time (at which a time that is asked for ends):
        `probability` at each point, `probability_ever` at any lead time, `probability_anywhere` at any point,
        `probability_by` anywhere at or before a lead time. Quantiles of the members: `area_share`, the share of the
        area; of a single comparison, `peak`, the highest value in the area (the lowest of `<`), in its units.
        Where a field is unknown in any member, so is the share (NaN), as of the sea surface temperature on land; of an
        area, only the other points of each member count.

    Raises:
        ValueError: the question cannot be read, or the forecast lacks what it needs.
    """
    asked = Question.parse(question) if isinstance(question, str) else question
    if not quantiles or min(quantiles) < 0 or max(quantiles) > 1:
        raise ValueError(f"Expected quantile levels within [0, 1] such as 0.1 0.5 0.9, got {list(quantiles)}.")
    opened = without_analysis(open_part(forecast, asked.selection(**part)))
    if asked.place is not None:
        row, column = asked.place.nearest(opened)
        opened = opened.isel(latitude=[row], longitude=[column])
    starts = range(opened.sizes["time"])
    answers = [_answer(opened.isel(time=[index]), asked, list(quantiles)) for index in starts]
    together: xr.Dataset = xr.concat(answers, "time", data_vars="all", combine_attrs="override")
    return together.assign_attrs({**opened.attrs, "title": f"how likely: {asked.text}", "question": asked.text})


def _answer(forecast: xr.Dataset, question: Question, quantiles: list[float]) -> xr.Dataset:
    """Answers a question for one initial time."""
    leads = forecast["prediction_timedelta"].values
    needed = question.frames(leads)
    weight = row_weights(forecast)
    in_a_row, (ever, ever_known, before) = xr.DataArray(0), [xr.DataArray(False)] * 3
    made = []
    for index in show_progress(range(len(leads)), len(leads), "lead times"):
        frame = forecast.isel(time=0, prediction_timedelta=index, drop=True).load()
        happens = _happens(question.condition, frame)
        known = reduce(and_, [event.of(frame).notnull() for event in question.events])
        in_a_row = (in_a_row + 1) * (happens & known)
        if index < needed - 1:
            continue
        holds = in_a_row >= needed
        anywhere, some = holds.any(AREA), known.any(AREA)
        ever, ever_known, before = ever | holds, ever_known | known, before | anywhere
        share = holds.weighted(weight.where(known, 0.0)).mean(AREA)
        parts = {
            "probability": _share(holds, known),
            "probability_anywhere": _share(anywhere, some),
            "probability_by": _share(before, some),
            "area_share": share.quantile(quantiles, "number", skipna=False).drop_attrs(),
        }
        if isinstance(question.condition, Event):
            parts["peak"] = _peak(question.condition, frame, quantiles)
        made.append(xr.Dataset(parts).drop_vars("number", errors="ignore"))
    answer = xr.concat(made, forecast["prediction_timedelta"][needed - 1 :], data_vars="all")
    answer["probability_ever"] = _share(ever, ever_known)
    for name, field in answer.data_vars.items():
        units = field.attrs["units"] if name == "peak" else "1"  # not those of the field that is compared
        field.attrs = {"units": units, "long_name": f"{LONG_NAMES[str(name)]}: {question.text}"}
    dims = ("time", "prediction_timedelta", "latitude", "longitude", "quantile")
    return answer.astype(np.float32).expand_dims(time=forecast["time"].values).transpose(*dims)


LONG_NAMES = {
    "probability": "share of members in which it holds at this time",
    "probability_ever": "share of members in which it holds at any time",
    "probability_anywhere": "share of members in which it holds anywhere at this time",
    "probability_by": "share of members in which it has held anywhere by this time",
    "area_share": "share of the area in which it holds",
    "peak": "extreme value in the area",
}


def _share(happens: xr.DataArray, known: xr.DataArray) -> xr.DataArray:
    share: xr.DataArray = happens.where(known).mean("number", skipna=False)
    return share


def _peak(event: Event, frame: xr.Dataset, quantiles: list[float]) -> xr.DataArray:
    """Returns quantiles of the members' highest value, or the lowest of `<`, in the units of the event."""
    field = event.of(frame).astype(np.float64)
    extreme = field.min(AREA) if event.comparison[0] == "<" else field.max(AREA)
    parts = EVENT.fullmatch(event.text)
    assert parts is not None  # it was read from this
    units = spell_units(parts["units"])
    ours = {rule.units: rule for rule in CONVERSIONS.get(VARIABLES[event.variables[0]].units, ())}
    if units in ours:
        extreme = (extreme - ours[units].offset) / ours[units].factor
    return extreme.quantile(quantiles, "number", skipna=False).assign_attrs(units=units)


def _happens(condition: Condition, frame: xr.Dataset) -> xr.DataArray:
    if isinstance(condition, Event):
        return condition.happens(frame) == 1
    parts = [_happens(part, frame) for part in condition.parts]
    if condition.word == "not":
        return ~parts[0]
    return reduce(and_ if condition.word == "and" else or_, parts)


def _events(condition: Condition) -> tuple[Event, ...]:
    return (condition,) if isinstance(condition, Event) else condition.events


def _either(words: list[str], text: str) -> Condition:
    """Takes what `or` joins from the beginning of the words."""
    return _joined("or", words, lambda: _joined("and", words, lambda: _single(words, text)))


def _joined(word: str, words: list[str], take: Any) -> Condition:
    parts = [take()]
    while words[:1] == [word]:
        del words[0]
        parts.append(take())
    return parts[0] if len(parts) == 1 else Joint(word, tuple(parts))


def _single(words: list[str], text: str) -> Condition:
    """Takes a comparison, one in parentheses, or what follows `not`."""
    if not words:
        raise ValueError(f"{FORM}, got '{text}', which ends too early.")
    word = words.pop(0)
    if word == "not":
        return Joint("not", (_single(words, text),))
    if word != "(":
        return Event.parse(word)
    inner = _either(words, text)
    if words[:1] != [")"]:
        raise ValueError(f"{FORM}, got '{text}', where a parenthesis is open.")
    del words[0]
    return inner


def answer_lines(answer: xr.Dataset) -> Iterator[str]:
    """Yields an answer as a table: a row for each lead time, in per cent and in the units of the question."""
    columns = list(answer_rows(answer))
    yield answer.attrs["question"]
    widths = [max(len(row[index]) for row in columns) for index in range(len(columns[0]))]
    yield from ("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in columns)


def answer_rows(answer: xr.Dataset) -> Iterator[list[str]]:
    """Yields the cells of the table: its heading, then its rows."""
    several = [("share of area (%)", "area_share", 100)]
    several += [(f"peak ({answer['peak'].attrs['units']})", "peak", 1)] if "peak" in answer else []
    levels = answer["quantile"].values
    heading = ["initial time", "lead (h)", "valid time", "anywhere (%)", "by then (%)", "likeliest point (%)"]
    yield [*heading, *(f"{name} q{100 * level:g}" for name, _, _ in several for level in levels)]
    for start in answer["time"].values:
        for lead in answer["prediction_timedelta"].values:
            row = answer.sel(time=start, prediction_timedelta=lead)
            shares = [row["probability_anywhere"], row["probability_by"], row["probability"].max()]
            values = [100 * float(share) for share in shares]
            values += [factor * float(value) for _, name, factor in several for value in row[name].values]
            when = [np.datetime_as_string(start, "h"), f"{lead / HOUR:g}", np.datetime_as_string(start + lead, "h")]
            yield [*when, *(f"{value:.4g}" for value in values)]
