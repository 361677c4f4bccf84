"""`opportune explain RECIPIENT`: why a recipient got a message, or did not."""

import re
from collections.abc import Sequence, Set
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.rule import Rule
from rich.text import Text

from schemas import policy_files, topics
from schemas.policy import Campaign, PolicyError
from schemas.reasons import Reason
from schemas.scopes import Marks, Scoped, Scopes
from schemas.settings import Settings
from streams import cluster, trail
from streams import control as changing
from streams.cli import show
from streams.engine.control import Control
from streams.explain import History, Record, Story, history_of, kind_of
from streams.policy import policy_folder

# Gates print times as UTC milliseconds: thirteen digits from 2001 on, which no count of theirs reaches. A
# consent's version may, since many apps take the time for it.
_MILLIS: Final = re.compile(r"(?<!version )\b\d{13}\b")
_STYLE: Final = {
    "pending": "yellow",
    "deferred": "yellow",
    "released": "yellow",
    "recorded": "green",
    "confirmed": "green",
    "withheld": "red",
    "failed": "red",
    "unconfirmed": "red",
    "recalled": "red",
    "delivered": "green",
    "bounced": "red",
    "expired": "red",
    "unknown": "red",
    "repeated": "dim",
}

_WORD_OF: Final = {"history": "recorded", "duplicate": "repeated"}
_HASH_SHOWN: Final = 12
_NOTHING_PAUSED: Final = Control()


def explain(
    recipient: Annotated[str, typer.Argument(help="The recipient's id, the key that the apps upstream use.")],
    json: Annotated[bool, typer.Option("--json", help="For machines: everything, whole.")] = False,
    last: Annotated[
        int, typer.Option(min=0, help="Only the last so many decisions and segment changes; 0 shows all.")
    ] = 10,
) -> None:
    """Explain why a recipient got a message, or did not: every decision, newest last.

    For each: what set it off; the segments the recipient was in and the features they read; each gate in the
    order asked, with its figures; the hour that was chosen and the next best; and what became of it: when it
    was released on which lane, each attempt to deliver it with the server's answer, and how it ended, or why
    it still waits. Before them, consent and segment changes. Reads the audit trail as far back as it is kept:
    from ClickHouse where one answers, else from Kafka; the last line says which.
    """
    settings = Settings()
    client = cluster.connect(settings)
    found = trail.of_recipient(client, settings, recipient)
    history = history_of(recipient, found.reader.of_recipient(recipient))
    if json:
        typer.echo(show.as_json(machine_form(history) | {"read_from": found.source}))
        return
    console = show.console()
    try:
        campaigns = policy_files.load(policy_folder(settings)).campaigns
    except PolicyError:  # it is about the past: only which pauses hold what waits is not told then
        campaigns = ()
    tell(console, history, last, changing.current(client), campaigns)
    console.print(Text(f"\nRead from {found.source}", "dim"))


def machine_form(history: History) -> dict[str, Any]:
    """Return a history for `--json`: its audit records as they are, and how each decision stands."""
    stories = [{**asdict(story), "state": story.state} for story in history.stories]
    return {**asdict(history), "stories": stories}


def tell(
    console: Console,
    history: History,
    last: int,
    control: Control = _NOTHING_PAUSED,
    campaigns: Sequence[Campaign] = (),
) -> None:
    """Print a history, of decisions and segment changes only the last so many (0: all).

    `control` says what is paused, which is told of messages that wait; `campaigns` are the policy's.
    """
    stories, transitions = history.stories[-last:], history.transitions[-last:]
    console.print(Text(f"Recipient {show.printable(history.recipient_id)}", "bold"))
    console.print(
        f"{show.many(len(history.stories), 'decision')}, "
        f"{show.many(len(history.transitions), 'segment change')}, "
        f"{show.many(len(history.consents), 'consent change')}; reads from the oldest to the newest"
    )
    _lines(console, "Consent", history.consents, len(history.consents))
    _lines(console, "Segments", transitions, len(history.transitions))
    first = len(history.stories) - len(stories) + 1
    if first > 1:
        older = show.many(first - 1, "older decision")
        console.print(Text(f"\n{older} not shown (--last 0 shows all)", "dim"))
    for number, story in enumerate(stories, first):
        console.print()
        _story(console, f"Decision {number} of {len(history.stories)}", story, control, campaigns)
    if not stories:
        console.print("\nNo campaign was ever triggered, so there was nothing to decide.")


def _lines(console: Console, title: str, records: list[Record], total: int) -> None:
    if records:
        hidden = f" (the last {len(records)} of {total})" if len(records) < total else ""
        console.print(Text(f"\n{title}{hidden}", "bold"))
    for record in records:
        console.print(Text(f"  {change_line(record)}"), soft_wrap=True)


def change_line(record: Record) -> str:
    """Tell a segment or consent change in one line."""
    body, at = record["body"], show.moment(record["at"])
    if kind_of(body) == "transition":
        what = f"{'entered' if body['entered'] else 'left'} {body['segment']}"
    elif body["state"] == "suppressed":
        what = f"suppressed: {body['reason']}"
    else:
        what = f"{body['purpose']} {body['state']} (version {body['version']})"
    return f"{at}  {what}, by {cause_line(body['cause'])}"


def cause_line(cause: Record) -> str:
    """Tell what set something off."""
    if cause["due_at"] is not None:
        return f"the passing of {show.moment(cause['due_at'])}"
    if cause["topic"] == topics.CONTROL.name:
        return f"segments put in force in control version {cause['offset'] + 1}"
    return f"{cause['topic']} partition {cause['partition']} offset {cause['offset']}"


def _story(
    console: Console, title: str, story: Story, control: Control, campaigns: Sequence[Campaign]
) -> None:
    record, style = story.decision, _STYLE.get(story.state, "")
    head = [(title, "bold"), (": ", "bold"), (_campaign(story), "bold"), (" – ", ""), (story.state, style)]
    console.print(Rule(Text.assemble(*head), align="left", style="dim"))
    if record is None:
        show.field(console, "decided", "before the audit trail that is still there begins")
    else:
        _decision(console, record)
    for place, line in enumerate(outcome_lines(story, control, campaigns)):
        show.field(console, "" if place else "then", line)


def _campaign(story: Story) -> str:
    record = story.decision or story.steps[0]
    version = record["body"].get("campaign_version")
    return str(record["body"]["campaign"]) + ("" if version is None else f" version {version}")


def _decision(console: Console, record: Record) -> None:
    body, cause = record["body"], record["body"]["cause"]
    show.field(console, "trigger", cause_line(cause))
    if cause["event_id"] is not None:
        show.field(console, "event", show.printable(cause["event_id"]))
    show.field(
        console,
        "decided",
        f"{show.moment(record['at'])}, in cut {record['cut']} of partition {record['partition']}",
    )
    show.field(console, "segments", ", ".join(body["segments"]) or "none")
    features = ", ".join(f"{name} {figure(value)}" for name, value in sorted(body["features"].items()))
    show.field(console, "features", features or "none")
    for place, gate in enumerate(body["gates"]):
        show.field(console, "" if place else "gates", gate_line(gate))
    if body["due_at"] is not None:
        show.field(console, "hour", hour_line(body))
        if model := model_line(body):
            show.field(console, "model", model)
    if body["arm"] != "model":
        show.field(console, "arm", body["arm"])
    if needs := need_line(body):
        show.field(console, "why not", needs)
    show.field(console, "policy", f"{body['policy']}, control version {record['control_version']}")
    show.field(console, "decision", body["decision_id"])


def gate_line(gate: Record) -> Text:
    """Tell a gate's answer and its figures, with their times readable."""
    mark = ("✔ ", "green") if gate["passed"] else ("✘ ", "red bold")
    detail = _MILLIS.sub(lambda found: show.moment(int(found[0])), gate["detail"])
    return Text.assemble(
        mark, f"{gate['name']:<14} ", (show.printable(detail), "" if gate["passed"] else "bold")
    )


def need_line(body: Record) -> str:
    """Tell the nearest change that would have let a withheld message go; empty if it was not withheld."""
    needed = [gate["needed"] for gate in body["gates"] if not gate["passed"] and gate["needed"]]
    if body["would_be_due_at"] is None or not needed:
        return ""
    would_be = show.moment(body["would_be_due_at"])
    return f"would have been sent at {would_be}; needed: {', '.join(needed)}"


def hour_line(body: Record) -> str:
    """Tell which hour was chosen, how sure, and what came second."""
    by = {
        "recipient": "by the recipient's own active hours",
        "thin": "by everybody's hours, since little is known of the recipient",
        "prior": "drawn from everybody's hours, since nothing is known of the recipient",
        "unprofiled": "drawn from everybody's hours, since the recipient did not consent to a profile",
    }.get(body["tier"], str(body["tier"]))
    if body["arm"] == "control":
        by = "drawn from everybody's hours, for comparison"
    elif body["regret"] is None and body["worth"] is not None:
        by = "as soon as the gates let it"
    line = f"{show.moment(body['due_at'])}, {by}: score {figure(body['score'])}"
    line += f", propensity {figure(body['propensity'])}"
    if body["runner_up_at"] is not None:
        line += f"; best other {show.moment(body['runner_up_at'])} with {figure(body['runner_up_score'])}"
    if body["regret"]:
        line += f"; the gates cost {figure(body['regret'])} against {show.moment(body['best_at'])}"
    return f"{line}; expires {show.moment(body['expires_at'])}"


def model_line(body: Record) -> str:
    """Tell which model chose the hour, from how much, what spoke for it, and what another would have done."""
    if body["model"] is None:  # decided before models were told
        return ""
    canary = " (canary)" if body["canary"] else ""
    left = f"{show.many(body['hours_left'], 'hour')} left"
    line = f"{body['model']}{canary}, {figure(body['active_hours'])} active hours known, {left}"
    reasons = sorted(body["terms"].items(), key=lambda term: -abs(term[1]))
    if reasons:
        line += "; " + ", ".join(f"{name} {value:+.2f}" for name, value in reasons)
    if body["likeliest_at"] != body["due_at"] and body["regret"] is not None:
        line += f"; drawn to learn, the best was {show.moment(body['likeliest_at'])}"
    if body["shadow_model"] is not None:
        line += f"; {body['shadow_model']}, only asked: {show.moment(body['shadow_at'])}"
    return line


def outcome_lines(story: Story, control: Control, campaigns: Sequence[Campaign]) -> list[Text]:
    """Tell what became of a decision, a line each step."""
    lines = []
    if story.decision is not None:
        body, at = story.decision["body"], story.decision["at"]
        if body["outcome"] == "withheld":
            lines.append(_step(at, "withheld", f"{body['reason']}. {reason_doc(body['reason'])}"))
        elif not story.steps:
            lines.append(_step(at, "pending", f"since then, due {show.moment(body['due_at'])}"))
    for record in story.steps:
        lines += _after(record)
    release = story.waits()
    if release is not None:
        lines.append(_waiting(release, control, Scopes.of(campaigns)(_marks(story, release, campaigns))))
    return lines


def _marks(story: Story, release: Record, campaigns: Sequence[Campaign]) -> Marks:
    """What a message is held by, as far as it can be told."""
    lane, name = release["body"]["lane"], release["body"]["campaign"]
    campaign = next((each for each in campaigns if each.name == name), None)
    template = "" if campaign is None else campaign.template
    planned = campaign is None or campaign.timing == "best_hour"
    model = story.decision["body"].get("model") if story.decision is not None and planned else None
    return Marks(lane, name, template, model or "")


def _waiting(release: Record, control: Control, scopes: Set[Scoped]) -> Text:
    """Tell of a message that DELIVER has and that has not ended."""
    lane = release["body"]["lane"]
    line = f"not confirmed yet: waits on lane {lane} since {show.moment(release['at'])}"
    if control.holds(scopes):
        paused = ["everything"] * control.paused + [" ".join(of) for of in sorted(control.held & scopes)]
        line += f"; paused: {' and '.join(paused)} (`opportune resume`)"
    else:
        line += ", or is on its way"
    return Text(show.printable(line), "yellow")


def _delivery(body: Record) -> Text:
    """Tell what DELIVER says of a message: its words, the server's code and words, which attempt."""
    kind, at, detail = str(body["kind"]), body["occurred_at"], body["detail"] or ""
    answer = " ".join(str(part) for part in (body["code"], detail) if part)
    by = f"on lane {body['lane']}, attempt {body['attempt']}"
    template = f"; template {short(body['template'])}" if body["template"] else ""
    words: dict[str, str] = {
        "history": "taken up as loaded history, never sent",
        "duplicate": "the command came again, and was left without effect",
        "delivered": f"{by}: {answer or 'the server took it'}{template}",
        "deferred": f"{by}: {answer or 'no answer'}; tried again later{template}",
        "bounced": f"{by}: {answer or 'refused'}{'; for ever' if body['permanent'] else ''}{template}",
        "expired": f"its time passed on lane {body['lane']} after {show.many(body['attempt'], 'attempt')}",
        "recalled": detail,
        "unknown": f"{by}: {answer}; it may have gone, so it is not sent again{template}",
    }
    return _step(at, _WORD_OF.get(kind, kind), words.get(kind, answer))


def short(template: str) -> str:
    """Shorten the hash of a `name@hash`; `--json` has it whole."""
    name, _, digest = template.partition("@")
    return f"{name}@{digest[:_HASH_SHOWN]}"


def _after(record: Record) -> list[Text]:
    body, at = record["body"], record["at"]
    if kind_of(body) == "delivery":
        return [_delivery(body)]
    why = f"{body['reason']}. {reason_doc(body['reason'])}"
    if kind_of(body) == "closure":
        state = "recalled" if body["reason"] == Reason.WITHDRAWN else body["reason"]
        return [_step(at, state, why if state == "recalled" else reason_doc(body["reason"]))]
    if body["outcome"] == "released":
        history = "; of loaded history: recorded, never sent, counted as confirmed" if body["history"] else ""
        line = f"on lane {body['lane']}, was due {show.moment(body['due_at'])}{history}"
        return [_step(at, "released", f"{line}; dispatch {body['dispatch_id']}")]
    held = [gate_line(gate) for gate in body["gates"] if not gate["passed"]]
    if body["outcome"] == "deferred":
        return [_step(at, "deferred", f"to {show.moment(body['due_at'])} by {body['reason']}"), *held]
    return [_step(at, "withheld", why), *held]


def _step(at: Any, state: str, text: str) -> Text:
    style = f"{_STYLE.get(state, '')} bold"
    return Text.assemble(f"{show.moment(at)}  ", (state, style), f"  {show.printable(text)}")


def reason_doc(reason: str) -> str:
    """Return the explanation of a reason; none for one that a newer version wrote."""
    known = next((member for member in Reason if member == reason), None)
    return "This version does not know that reason." if known is None else str(known.__doc__)


def figure(value: float | None) -> str:
    """Print a number without needless digits: 3, 0.0421, 7.36."""
    if value is None:
        return "–"
    return (
        f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}" if abs(value) < 1 else f"{value:.2f}"
    )


def register(main: typer.Typer) -> None:
    """Add this command."""
    main.command()(explain)
