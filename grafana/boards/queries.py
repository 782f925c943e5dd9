"""PromQL that panels are made of, with the dashboards' selectors."""

from __future__ import annotations

from builder import Panel

S = '{job=~"$job", instance=~"$instance"}'


def m(name: str, *more: str) -> str:
    """A metric of ours with the dashboard's selectors, and more of them."""
    selectors = ", ".join(['job=~"$job"', 'instance=~"$instance"', *more])
    return f"abusemon_{name}{{{selectors}}}"


def per_second(name: str, by: str = "", *more: str) -> str:
    """The rate of a counter, summed over replicas."""
    return f"sum{f' by ({by})' if by else ''} (rate({m(name, *more)}[$__rate_interval]))"


def in_range(name: str, by: str = "", *more: str) -> str:
    """How often a counter rose in the range that the dashboard shows."""
    return f"sum{f' by ({by})' if by else ''} (increase({m(name, *more)}[$__range]))"


def per_step(name: str, by: str, *more: str) -> str:
    """How often a counter rose in a step of the graph."""
    return f"sum by ({by}) (increase({m(name, *more)}[$__rate_interval]))"


def quantile(q: float, name: str, by: str = "") -> str:
    """A quantile of a histogram over replicas."""
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, sum by ({labels}) (rate({m(f'{name}_bucket')}[$__rate_interval])))"


def judging(expression: str) -> str:
    """The expression of replicas that have rules: ``monitor ingest`` exports the same metrics, all at zero."""
    return f"({expression} and on (job, instance) (sum by (job, instance) ({m('rules_loaded')}) > 0))"


def stat(
    title: str, question: str, query: str, unit: str = "short", width: int = 3, height: int = 4,
    thresholds: tuple[tuple[float, str], ...] = (), mappings: tuple[tuple[str, str, str], ...] = (),
) -> Panel:  # fmt: skip
    """One number."""
    return Panel(title, question, "stat", {"": query}, unit, width, height, thresholds, mappings)


YES_NO = (("1", "yes", "green"), ("0", "no", "red"))
NO_YES = (("0", "no", "green"), ("1", "yes", "red"))
ALERT = 'mode="alert"'
SHADOW = 'mode="shadow"'
HIGH = 'severity=~"high|critical"'
