"""A report of claims in one HTML file that needs nothing else."""

import base64
import html
from collections.abc import Sequence
from typing import Any

from nt_residual.experiments import record
from nt_residual.experiments.claim import VERDICTS
from nt_residual.experiments.record import Outcome

# Figures keep a white ground in the dark: their text is black.
_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1b; --ground: #fff; --soft: #5d5d5d; --line: #d4d4d4;
  --panel: #f5f5f5; --good: #11632b; --bad: #a11a1a; --link: #0b57b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --ground: #161616; --soft: #ababab;
  --line: #444; --panel: #222; --good: #74d18e; --bad: #ff9a8f; --link: #8ab8ff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 64rem; color: var(--ink);
  background: var(--ground); font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.6rem; line-height: 1.25; }
h2 { font-size: 1.25rem; line-height: 1.3; margin: 3rem 0 .5rem; padding-top: 1rem;
  border-top: 1px solid var(--line); }
a { color: var(--link); }
img { display: block; max-width: 100%; height: auto; margin: 1rem auto; background: #fff;
  border-radius: 4px; }
.box { overflow-x: auto; margin: 1rem 0; overflow-wrap: normal; }
table { border-collapse: collapse; font-size: .9rem; width: 100%; }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; }
.findings td { min-width: 10rem; }
.findings td:last-child, .overview td:last-child { min-width: 7rem; }
.numbers th, .numbers td { white-space: nowrap; font-variant-numeric: tabular-nums; }
@media (max-width: 40rem) { .findings td { min-width: 6.5rem; padding: .3rem; }
  .findings td:last-child { min-width: 4.5rem; } }
.yes { color: var(--good); font-weight: 600; }
.no { color: var(--bad); font-weight: 600; }
.open { color: var(--soft); font-weight: 600; }
.soft { color: var(--soft); font-size: .9rem; }
details { margin: .75rem 0; padding: .5rem .75rem; background: var(--panel); border-radius: 4px; }
summary { cursor: pointer; }
"""


def render(outcomes: Sequence[Outcome], setting: str) -> str:
    """The report as HTML.

    Args:
      outcomes: the claims that were tested, each with its figure on disk.
      setting: 'quick' or 'full'.

    Returns:
      A whole document, with figures in it.

    Raises:
      OSError: if a figure cannot be read.

    Example:
      >>> "0 of 0 claims" in render([], "quick")
      True
    """
    agreed = sum(outcome.agrees is True for outcome in outcomes)
    sections = "\n".join(_section(outcome) for outcome in outcomes)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>Deep wide residual networks: the paper's claims, tested</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Deep wide residual networks: the paper's claims, tested</h1>
<p>What arXiv 2403.04545 says of residual networks with blocks x + α·branch(x), α = L<sup>−γ</sup>,
of L blocks, and what follows from it, beside what was measured here, in the {_text(setting)}
setting. For {agreed} of {len(outcomes)} claims all findings agree with the prediction; each states
the criterion that it was judged by.</p>
{_overview(outcomes)}
{sections}
</main>
</body>
</html>
"""


def _overview(outcomes: Sequence[Outcome]) -> str:
    rows = [
        f'<a href="#{_text(outcome.claim)}">{_text(outcome.title)}</a>'
        f"</td><td>{_verdict(outcome.agrees, _count(outcome))}"
        for outcome in outcomes
    ]
    body = "".join(f"<tr><td>{row}</td></tr>\n" for row in rows)
    return _table("overview", ("claim", "findings that agree"), body)


def _table(kind: str, columns: Sequence[str], body: str) -> str:
    """A table that scrolls in a box of its own where it is too wide."""
    head = "".join(f'<th scope="col">{_text(column)}</th>' for column in columns)
    return (
        f'<div class="box" tabindex="0"><table class="{kind}"><thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}</tbody></table></div>"
    )


def _count(outcome: Outcome) -> str:
    verdicts = [finding.agrees for finding in outcome.findings]
    undecided = verdicts.count(None)
    more = f", {undecided} not decided" if undecided else ""
    return f"{verdicts.count(True)} of {len(verdicts)}{more}"


def _verdict(agrees: bool | None, text: str) -> str:
    kind, mark = {True: ("yes", "✓"), False: ("no", "✗"), None: ("open", "?")}[agrees]
    return f'<span class="{kind}">{mark} {text}</span>'


def _section(outcome: Outcome) -> str:
    picture = base64.b64encode((outcome.folder / record.FIGURE).read_bytes()).decode()
    taken = outcome.provenance
    findings = "".join(
        f"<tr><td>{_text(f.claim)}</td><td>{_text(f.measured)}</td>"
        f"<td>{_verdict(f.agrees, VERDICTS[f.agrees])}</td></tr>\n"
        for f in outcome.findings
    )
    return f"""<section id="{_text(outcome.claim)}">
<h2>{_text(outcome.title)}</h2>
<p>{_text(outcome.statement)}</p>
<img src="data:image/png;base64,{picture}" alt="{_text(_alternative(outcome))}">
{_table("findings", ("predicted", "measured", "verdict"), findings)}
<details><summary>The numbers ({len(outcome.rows)} rows)</summary>{_numbers(outcome.rows)}</details>
<details><summary>How they came about</summary>{_provenance(outcome)}</details>
<p class="soft">{_text(taken["seconds"])} s{" since it was resumed" * taken["resumed"]}
on {_text(taken["device"])},
{_text(taken["finished"])}.</p>
</section>"""


def _alternative(outcome: Outcome) -> str:
    return f"Figure of “{outcome.title}”. The table below says what it shows."


def _numbers(rows: Sequence[dict[str, Any]]) -> str:
    names = list(rows[0]) if rows else []
    body = "".join(
        "<tr>" + "".join(f"<td>{_text(_short(row[name]))}</td>" for name in names) + "</tr>\n"
        for row in rows
    )
    return _table("numbers", names, body)


def _short(value: Any) -> str:
    if value is None:
        return "–"
    if value == "inf":
        return "∞"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _provenance(outcome: Outcome) -> str:
    taken = outcome.provenance
    entries = {**outcome.config, "device": taken["device"], "platform": taken["platform"]}
    entries |= taken["versions"]
    body = "".join(
        f'<tr><th scope="row">{_text(key)}</th><td>{_text(value)}</td></tr>\n'
        for key, value in entries.items()
    )
    return _table("options", ("option", "value"), body)


def _text(value: Any) -> str:
    return html.escape(str(value), quote=True)
