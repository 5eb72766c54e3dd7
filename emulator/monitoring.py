"""CloudWatch's queries: our endpoints' metrics from the ledger, everything else from moto.

Imports moto, so it is imported when somebody asks for CloudWatch. moto reads requests and writes
answers here, whichever protocol they are in.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from moto.cloudwatch.exceptions import (
    InvalidParameterCombination,
    InvalidParameterValue,
    ValidationError,
)
from moto.cloudwatch.responses import CloudWatchResponse
from moto.core.responses import ActionResult

from emulator.address import Home
from emulator.alarms import COMPARISONS, Rule
from emulator.core import SECOND
from emulator.expressions import NotUnderstood, Series, evaluate
from emulator.figures import (
    ENDPOINT,
    MINUTE,
    NAMESPACES,
    VARIANT,
    Bucket,
    Figures,
    Listed,
    Metric,
    metric,
)

STATISTICS = ("SampleCount", "Average", "Sum", "Minimum", "Maximum")
MOST_STATISTICS = 1440  # data points of one GetMetricStatistics
MOST_DATA = 100_800  # of one page of GetMetricData
PAGE = 500  # metrics of one page of ListMetrics
_PERCENTILE = re.compile(r"p(\d{1,2}(?:\.\d{1,10})?|100)")
_DESCENDING = "TimestampDescending"


class Responses(CloudWatchResponse):  # type: ignore[misc]
    """Answers to requests. `figures` is the server's."""

    figures: Figures

    @property
    def _home(self) -> Home:
        return Home(self.current_account, self.region)

    def get_metric_statistics(self) -> ActionResult:
        asked = self._get_params()
        if asked["Namespace"] not in NAMESPACES:
            return super().get_metric_statistics()
        plain, extended = asked.get("Statistics") or [], asked.get("ExtendedStatistics") or []
        if bool(plain) == bool(extended):
            raise InvalidParameterCombination(
                "Must specify either Statistics or ExtendedStatistics"
            )
        _check_statistics(plain, extended)
        start, end = _instant(asked["StartTime"]), _instant(asked["EndTime"])
        if start >= end:
            raise InvalidParameterValue(
                "The parameter StartTime must be less than the parameter EndTime."
            )
        width_ns = _width(asked["Period"])
        points = math.ceil((end - start) / width_ns)
        if points > MOST_STATISTICS:
            raise InvalidParameterCombination(
                f"You have requested up to {points:,} datapoints, which exceeds the limit of "
                f"{MOST_STATISTICS:,}. You may reduce the datapoints requested by increasing "
                "Period, or decreasing the time range."
            )
        row = metric(asked["Namespace"], asked["MetricName"])
        buckets = self._buckets(row, asked, (start, end, width_ns), extended) if row else []
        datapoints = [_datapoint(row, one, plain, extended) for one in buckets if row]
        return ActionResult({"Label": asked["MetricName"], "Datapoints": datapoints})

    def _buckets(
        self,
        row: Metric,
        asked: Mapping[str, Any],
        period: tuple[int, int, int],
        percentiles: Sequence[str],
    ) -> list[Bucket]:
        """The buckets of a metric that is asked for with all of its dimensions and its unit;
        of any other, CloudWatch has none, too."""
        dimensions = {one["Name"]: one["Value"] for one in asked.get("Dimensions") or []}
        if dimensions.keys() != {ENDPOINT, VARIANT} or asked.get("Unit") not in (None, row.unit):
            return []
        start, end, width_ns = period
        start = start // MINUTE * MINUTE
        whole = start, end + -end % MINUTE, width_ns
        percents = [_percent(one) for one in percentiles]
        place = dimensions[ENDPOINT], dimensions[VARIANT]
        return self.figures.series(self._home, row, place, whole, percents)

    # -- GetMetricData ------------------------------------------------------------------------

    def get_metric_data(self) -> ActionResult:
        asked = self._get_params()
        queries = asked.get("MetricDataQueries") or []
        if not any(_is_ours(query) for query in queries):
            return super().get_metric_data()
        start, end = _instant(asked["StartTime"]), _instant(asked["EndTime"])
        if start >= end:
            raise ValidationError("The parameter EndTime must be greater than StartTime.")
        found: dict[str, Series] = {}
        for query in queries:
            if "MetricStat" in query:
                found[query["Id"]] = self._of_query(query, start, end, asked)
        for query in queries:
            if "MetricStat" not in query:
                found[query["Id"]] = _of_expression(query, found)
        shown = [query for query in queries if query.get("ReturnData", True)]
        descending = (asked.get("ScanBy") or _DESCENDING) == _DESCENDING
        most = min(asked.get("MaxDatapoints") or MOST_DATA, MOST_DATA)
        results, token = _paged(shown, found, descending, most, asked.get("NextToken"))
        return ActionResult({"MetricDataResults": results, "NextToken": token})

    def _of_query(
        self, query: Mapping[str, Any], start: int, end: int, asked: Mapping[str, Any]
    ) -> Series:
        stat = query["MetricStat"]
        if not _is_ours(query):
            (theirs,) = self.cloudwatch_backend.get_metric_data(
                queries=[{**query, "ReturnData": True}],
                start_time=asked["StartTime"],
                end_time=asked["EndTime"],
                scan_by="TimestampAscending",
            )
            instants = map(_instant, theirs["timestamps"])
            return dict(zip(instants, theirs["values"], strict=True))
        name, wanted = stat["Stat"], stat["Metric"]
        plain = [name] if name in STATISTICS else []
        extended = [] if plain else [name]
        _check_statistics(plain, extended)
        row = metric(wanted["Namespace"], wanted["MetricName"])
        if row is None:
            return {}
        period = start, end, _width(stat["Period"])
        buckets = self._buckets(row, {**wanted, "Unit": stat.get("Unit")}, period, extended)
        return {one.start_ns: _statistic(one, name) for one in buckets}

    # -- alarms -------------------------------------------------------------------------------

    def describe_alarms(self) -> ActionResult:
        self._evaluate()
        return super().describe_alarms()

    def describe_alarms_for_metric(self) -> ActionResult:
        self._evaluate()
        return super().describe_alarms_for_metric()

    def _evaluate(self) -> None:
        """Bring the states of alarms on our metrics up to now; moto evaluates none."""
        for alarm in tuple(self.cloudwatch_backend.alarms.values()):
            row = metric(alarm.namespace or "", alarm.metric_name or "")
            if row is None or alarm.comparison_operator not in COMPARISONS:
                continue
            needed = int(alarm.datapoints_to_alarm or alarm.evaluation_periods)
            missing = alarm.treat_missing_data or "missing"
            rule = Rule(alarm.comparison_operator, float(alarm.threshold), needed, missing)
            try:
                values = self._last_periods(row, alarm)
            except InvalidParameterValue:  # moto has taken what cannot be computed
                continue
            state = rule.state(values, alarm.state_value)
            if state != alarm.state_value:
                shown = ", ".join("none" if one is None else f"{one:g}" for one in values)
                reason = f"The last periods had {shown}; the threshold is {alarm.threshold}."
                alarm.update_state(reason, "{}", state)

    def _last_periods(self, row: Metric, alarm: Any) -> list[float | None]:
        """The alarm's statistic in each of the periods that it looks at, the oldest first. The
        last one ends with the last whole minute."""
        width_ns, count = _width(alarm.period), int(alarm.evaluation_periods)
        end = self.figures.now() // MINUTE * MINUTE
        start = end - count * width_ns
        asked = {
            "Dimensions": [{"Name": one.name, "Value": one.value} for one in alarm.dimensions],
            "Unit": alarm.unit,
        }
        name = alarm.statistic or alarm.extended_statistic
        _check_statistics(*(([name], []) if alarm.statistic else ([], [name])))
        extended = [] if alarm.statistic else [name]
        buckets = self._buckets(row, asked, (start, end, width_ns), extended)
        found = {one.start_ns: _statistic(one, name) for one in buckets}
        return [found.get(start + number * width_ns) for number in range(count)]

    # -- ListMetrics --------------------------------------------------------------------------

    def list_metrics(self) -> ActionResult:
        asked = self._get_params()
        ours = [one for one in self.figures.listed(self._home) if _is_wanted(one, asked)]
        token = asked.get("NextToken")
        if asked.get("Namespace") in NAMESPACES or str(token or "").startswith("ours-"):
            first = int(token.removeprefix("ours-")) if token else 0
            more = f"ours-{first + PAGE}" if len(ours) > first + PAGE else None
            page = [_shown(one) for one in ours[first : first + PAGE]]
            return ActionResult({"Metrics": page, "NextToken": more})
        theirs = self.cloudwatch_backend.list_metrics(
            token, asked.get("Namespace"), asked.get("MetricName"), asked.get("Dimensions") or []
        )
        more, page = theirs
        if token is None and not asked.get("Namespace"):
            page = [*map(_shown, ours), *page]
        return ActionResult({"Metrics": page, "NextToken": more})


def _is_ours(query: Mapping[str, Any]) -> bool:
    asked = query.get("MetricStat", {}).get("Metric", {}).get("Namespace")
    return asked in NAMESPACES


def _is_wanted(one: Listed, asked: Mapping[str, Any]) -> bool:
    has = {ENDPOINT: one.endpoint, VARIANT: one.variant}
    return (
        asked.get("Namespace") in (None, one.metric.namespace)
        and asked.get("MetricName") in (None, one.metric.name)
        and all(
            given["Name"] in has and given.get("Value") in (None, has[given["Name"]])
            for given in asked.get("Dimensions") or []
        )
    )


def _shown(one: Listed) -> dict[str, Any]:
    pairs = ((ENDPOINT, one.endpoint), (VARIANT, one.variant))
    return {
        "Namespace": one.metric.namespace,
        "MetricName": one.metric.name,
        "Dimensions": [{"Name": name, "Value": value} for name, value in pairs],
    }


def _instant(date: datetime) -> int:
    """Nanoseconds, of a date as moto reads it, which is UTC where it does not say."""
    date = date if date.tzinfo else date.replace(tzinfo=UTC)
    return math.floor(date.timestamp()) * SECOND


def _date(instant: int) -> datetime:
    return datetime.fromtimestamp(instant // SECOND, UTC)


def _width(period_s: int) -> int:
    """A period in nanoseconds; the metrics here are kept by the minute."""
    period_s = int(period_s)
    if period_s not in (1, 5, 10, 30) and (period_s < 60 or period_s % 60):
        raise InvalidParameterValue(
            f"The value {period_s} for parameter Period is invalid: it is 1, 5, 10, 30 or a "
            "multiple of 60."
        )
    return max(60, period_s) * SECOND


def _check_statistics(plain: Sequence[str], extended: Sequence[str]) -> None:
    for name in plain:
        if name not in STATISTICS:
            raise InvalidParameterValue(f"The value {name} for parameter Statistics is invalid.")
    for name in extended:
        if not _PERCENTILE.fullmatch(name):
            raise InvalidParameterValue(
                f"The value {name} for parameter ExtendedStatistics is not supported."
            )


def _percent(name: str) -> float:
    return float(name.removeprefix("p"))


def _statistic(bucket: Bucket, name: str) -> float:
    if name in STATISTICS:
        return {
            "SampleCount": bucket.count,
            "Average": bucket.total / bucket.count,
            "Sum": bucket.total,
            "Minimum": bucket.least,
            "Maximum": bucket.most,
        }[name]
    return bucket.percentiles[_percent(name)]


def _datapoint(
    row: Metric, bucket: Bucket, plain: Sequence[str], extended: Sequence[str]
) -> dict[str, Any]:
    made: dict[str, Any] = {"Timestamp": _date(bucket.start_ns), "Unit": row.unit}
    made |= {name: float(_statistic(bucket, name)) for name in plain}
    if extended:
        made["ExtendedStatistics"] = {name: _statistic(bucket, name) for name in extended}
    return made


def _of_expression(query: Mapping[str, Any], found: Mapping[str, Series]) -> Series:
    try:
        return evaluate(query.get("Expression") or "", found)
    except NotUnderstood as error:
        raise ValidationError(
            f"Error in expression '{query['Id']}': {error}; operators, AVG, SUM, MIN, MAX, ABS and "
            "FILL are supported here."
        ) from None


def _paged(
    shown: Sequence[Mapping[str, Any]],
    found: Mapping[str, Series],
    descending: bool,
    most: int,
    token: str | None,
) -> tuple[list[dict[str, Any]], str | None]:
    """A page of at most `most` data points, and what asks for the next one."""
    first = _read_token(token)
    results: list[dict[str, Any]] = []
    at = 0
    for query in shown:
        points = sorted(found[query["Id"]].items(), reverse=descending)
        part = points[max(0, first - at) : max(0, first + most - at)]
        whole = at + len(points) <= first + most
        at += len(points)
        if part or not token:
            results.append(
                {
                    "Id": query["Id"],
                    "Label": query.get("Label") or _label(query),
                    "Timestamps": [_date(instant) for instant, _ in part],
                    "Values": [float(value) for _, value in part],
                    "StatusCode": "Complete" if whole else "PartialData",
                }
            )
    more = base64.b64encode(b"%d" % (first + most)).decode() if at > first + most else None
    return results, more


def _read_token(token: str | None) -> int:
    try:
        return int(base64.b64decode(token)) if token else 0
    except ValueError:
        raise InvalidParameterValue("Request parameter NextToken is invalid") from None


def _label(query: Mapping[str, Any]) -> str:
    if "MetricStat" not in query:
        return str(query["Id"])
    return str(query["MetricStat"]["Metric"]["MetricName"])
