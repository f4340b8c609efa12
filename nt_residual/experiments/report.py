"""A report of claims in one HTML file that stands alone."""

import base64
import html
from collections.abc import Iterable, Sequence
from typing import Any

from nt_residual.experiments import record
from nt_residual.experiments.claim import VERDICTS
from nt_residual.experiments.record import Outcome

# Figures keep a white ground in the dark: their text is black.
_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h2 { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid #888; }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto; background: #fff; }
.box { overflow-x: auto; margin: 1rem 0; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid #8886; text-align: left;
  vertical-align: top; }
.numbers td { white-space: nowrap; font-variant-numeric: tabular-nums; }
.yes { color: light-dark(#11632b, #74d18e); font-weight: 600; }
.no { color: light-dark(#a11a1a, #ff9a8f); font-weight: 600; }
.open { font-weight: 600; }
details { margin: .75rem 0; }
"""


def render(outcomes: Sequence[Outcome], setting: str) -> str:
    """Return the report of a 'quick' or 'full' run as HTML, with the figures in it.

    Example:
      >>> "0 of 0 claims" in render([], "quick")
      True
    """
    agreed = sum(outcome.agrees is True for outcome in outcomes)
    overview = [
        (
            f'<a href="#{_text(outcome.claim)}">{_text(outcome.title)}</a>',
            _verdict(outcome.agrees, _count(outcome)),
        )
        for outcome in outcomes
    ]
    sections = "\n".join(_section(outcome) for outcome in outcomes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Deep wide residual networks: tests of the paper's claims</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Deep wide residual networks: tests of the paper's claims</h1>
<p>This report compares predictions of arXiv 2403.04545, and their consequences, with measurements
in the {_text(setting)} setting. Networks have L blocks x + α·branch(x) with α = L<sup>−γ</sup>.
For {agreed} of {len(outcomes)} claims all findings agree with the prediction. Each finding states
its criterion.</p>
{_table("overview", ("claim", "findings that agree"), overview)}
{sections}
</body>
</html>
"""


def _section(outcome: Outcome) -> str:
    picture = base64.b64encode((outcome.folder / record.FIGURE).read_bytes()).decode()
    taken = outcome.provenance
    findings = [
        (_text(f.claim), _text(f.measured), _verdict(f.agrees, VERDICTS[f.agrees]))
        for f in outcome.findings
    ]
    entries = {**outcome.config, "platform": taken["platform"], **taken["versions"]}
    options = [map(_text, entry) for entry in entries.items()]
    numbers = [[_text(_short(value)) for value in row.values()] for row in outcome.rows]
    return f"""<section id="{_text(outcome.claim)}">
<h2>{_text(outcome.title)}</h2>
<p>{_text(outcome.statement)}</p>
<img src="data:image/png;base64,{picture}" alt="Figure of “{_text(outcome.title)}”, whose numbers
are in the tables below">
{_table("findings", ("predicted", "measured", "verdict"), findings)}
<details><summary>Numbers ({len(numbers)} rows)</summary>
{_table("numbers", outcome.rows[0], numbers)}</details>
<details><summary>Options, device and versions</summary>
{_table("options", ("option", "value"), options)}</details>
<p>Computed in {_text(taken["seconds"])} s{" (since it was resumed)" * taken["resumed"]} on
{_text(taken["device"])}; finished {_text(taken["finished"])}.</p>
</section>"""


def _table(kind: str, columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Return a table of HTML cells that scrolls in a box of its own where it is too wide."""
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    body = "".join(f"<tr><td>{'</td><td>'.join(row)}</td></tr>\n" for row in rows)
    return (
        f'<div class="box" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def _count(outcome: Outcome) -> str:
    verdicts = [finding.agrees for finding in outcome.findings]
    more = f", {verdicts.count(None)} not decided" if None in verdicts else ""
    return f"{verdicts.count(True)} of {len(verdicts)}{more}"


def _verdict(agrees: bool | None, text: str) -> str:
    kind, mark = {True: ("yes", "✓"), False: ("no", "✗"), None: ("open", "?")}[agrees]
    return f'<span class="{kind}">{mark} {text}</span>'


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if value == "inf":
        return "∞"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
