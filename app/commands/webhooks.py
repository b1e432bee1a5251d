"""`drtl webhooks …`: addresses that hear of jobs, and what was sent to them."""

from typing import Annotated, Any

import typer

from app.commands.options import AsJson, Key, Url, connect
from app.commands.output import errors, present
from app.listing import Listing
from drtl_client import Webhook

WebhookId = Annotated[str, typer.Argument(help="The webhook's id, as `drtl webhooks list` shows it.")]
DeliveryId = Annotated[str, typer.Argument(help="The id, as `drtl webhooks deliveries` shows it.")]
Events = Annotated[str | None, typer.Option(help="job.started, job.succeeded and so on, between commas; else all.")]
KEEP_IT = "Keep the secret safe: it is shown this once. Your receiver verifies messages with it."


def create(
    address: Annotated[str, typer.Argument(help="Where to send: https://…")],
    events: Events = None,
    description: Annotated[str, typer.Option(help="Shown in lists.")] = "",
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Have your jobs' events sent to an address. Prints the secret that they are signed with."""
    with connect(url, key) as client:
        made = client.webhooks.create(address, events=listed(events), description=description)
    present_secret(made, as_json=as_json)


def list_webhooks(as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Every webhook, and whether it is heard."""
    with connect(url, key) as client:
        found = [webhook.raw for webhook in client.webhooks.list()]
    present(found, table(found), as_json=as_json)


def show(webhook: WebhookId, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """All about one webhook."""
    with connect(url, key) as client:
        found = client.webhooks.get(webhook).raw
    present(found, table([found]), as_json=as_json)


def change(
    webhook: WebhookId,
    address: Annotated[str | None, typer.Option(help="Where to send from now on.")] = None,
    events: Events = None,
    enable: Annotated[bool | None, typer.Option("--enable/--disable", help="Whether to send at all.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Change a webhook, or bring one back that was disabled for failing."""
    with connect(url, key) as client:
        found = client.webhooks.change(webhook, url=address, events=listed(events), enabled=enable).raw
    present(found, table([found]), as_json=as_json)


def delete(webhook: WebhookId, url: Url = None, key: Key = None) -> None:
    """Forget a webhook, and all that was sent to it."""
    with connect(url, key) as client:
        client.webhooks.delete(webhook)


def rotate(
    webhook: WebhookId,
    keep_hours: Annotated[int, typer.Option(min=0, help="For so long the secret before is good, too.")] = 24,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Get another secret."""
    with connect(url, key) as client:
        rotated = client.webhooks.rotate(webhook, keep_previous_s=3600 * keep_hours)
    present_secret(rotated, as_json=as_json)


def ping(webhook: WebhookId, as_json: AsJson = False, url: Url = None, key: Key = None) -> None:
    """Send a message that tells of nothing, to see whether it arrives."""
    with connect(url, key) as client:
        sent = client.webhooks.ping(webhook)
    present(
        sent.raw,
        f"{sent.id} is on its way; see what becomes of it: drtl webhooks deliveries {webhook}",
        as_json=as_json,
    )


def deliveries(
    webhook: WebhookId,
    limit: Annotated[int, typer.Option(help="How many of the newest.", min=1)] = 20,
    state: Annotated[str | None, typer.Option(help="Only those pending, delivered or failed.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """What was sent to a webhook, and what came of it."""
    with connect(url, key) as client:
        found = [delivery.raw for delivery in client.webhooks.deliveries(webhook, limit=limit, state=state)]
    present(found, deliveries_table(found, state), as_json=as_json)


def redeliver(
    webhook: WebhookId, delivery: DeliveryId, as_json: AsJson = False, url: Url = None, key: Key = None
) -> None:
    """Send a message once more."""
    with connect(url, key) as client:
        sent = client.webhooks.redeliver(webhook, delivery)
    present(sent.raw, f"{sent.id} is on its way again", as_json=as_json)


def listed(events: str | None) -> list[str] | None:
    return None if events is None else [event.strip() for event in events.split(",") if event.strip()]


def present_secret(webhook: Webhook, *, as_json: bool) -> None:
    if not as_json:
        errors.print(f"{webhook.id} hears of {', '.join(webhook.events)}", highlight=False, soft_wrap=True)
        errors.print(KEEP_IT, highlight=False)
    present(webhook.raw, webhook.secret or "", as_json=as_json)


def table(found: list[dict[str, Any]]) -> Listing | str:
    """The webhooks, a row each."""
    if not found:
        return "There is no webhook."
    rows = []
    for webhook in found:
        failing = f"failing since {webhook['failing_since'][:16]}" if webhook["failing_since"] else "good"
        state = failing if webhook["enabled"] else f"disabled: {webhook['disabled_reason']}"
        rows.append((webhook["id"], state, webhook["url"], ", ".join(webhook["events"])))
    return Listing(("id", "state", "address", "events"), rows, folding={"state", "address", "events"})


def deliveries_table(found: list[dict[str, Any]], state: str | None = None) -> Listing | str:
    """The messages, a row each with the last attempt; all of them are in the state if one is given."""
    if not found:
        return "Nothing was sent yet." if state is None else f"Nothing that was sent is {state}."
    rows = []
    for delivery in found:
        attempts = delivery["attempts"]
        last = "" if not attempts else str(attempts[-1]["status"] or attempts[-1]["error"])
        job = delivery["job_id"] or ""
        rows.append((delivery["id"], delivery["state"], delivery["event"], str(len(attempts)), last, job))
    headings = ("id", "state", "event", "attempts", "last answer", "job")
    return Listing(headings, rows, folding={"event", "last answer"})
