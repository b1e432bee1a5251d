"""Sends webhooks' messages: claims what is due, a few at a time, and writes down what came of each attempt."""

import logging
import threading
from functools import partial
from typing import Final

import anyio
import anyio.to_thread

from app.core import deliveries, telemetry, webhooks
from app.core.deliveries import Answer, Claim
from app.core.webhook_signatures import signed
from worker.lease import shutdown
from worker.outgoing import EXCERPT_S, Outgoing, outgoing
from worker.service import PATIENCE_S, DatabaseDown, Service

log = logging.getLogger(__name__)

AT_ONCE: Final = 16
LOOK_EVERY_S: Final = 0.5  # for more that is due, while something is on its way
SLACK_S: Final = 5.0  # A lease outlives the longest attempt by this.
OUTCOME: Final = {"delivered": "delivered", "pending": "failed", "failed": "given_up"}
AGENT: Final = "DRTL-Webhooks/1"


class Deliverer:
    """One process's sender. It has one thread of the worker's at most, in which many messages are on their way."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._asked = threading.Event()
        self._running = threading.Lock()

    def run(self) -> None:
        """Send until nothing is due. Where somebody already does, they are told to look once more."""
        self._asked.set()
        while self._asked.is_set() and not shutdown.is_set() and self._running.acquire(blocking=False):
            try:
                self._asked.clear()
                anyio.run(self._send_all)
            except* DatabaseDown as down:
                log.warning("webhooks wait, the database does not answer: %s", down.exceptions[0])
            finally:
                self._running.release()

    async def _send_all(self) -> None:
        on_their_way = 0
        receivers = webhooks.receivers(self.service.settings)

        async def send(claim: Claim) -> None:
            nonlocal on_their_way
            try:
                await self._send(connections, claim)
            finally:
                on_their_way -= 1
                landed.set()

        async with (
            outgoing(self.service.settings, receivers, AT_ONCE) as connections,
            anyio.create_task_group() as group,
        ):
            while not shutdown.is_set():
                landed = anyio.Event()
                # Counted before looking: what lands during the look may have hidden what is due, by its lock.
                idle = not on_their_way
                claims = await anyio.to_thread.run_sync(self._claim, AT_ONCE - on_their_way)
                if idle and not claims:
                    return
                on_their_way += len(claims)
                for claim in claims:
                    group.start_soon(send, claim)
                with anyio.move_on_after(LOOK_EVERY_S):
                    await landed.wait()

    def _claim(self, at_most: int) -> list[Claim]:
        if at_most < 1:
            return []
        lease_s = self.service.settings.webhook_timeout_s + EXCERPT_S + SLACK_S
        return self.service.write(lambda session: deliveries.claim(session, lease_s, at_most))

    async def _send(self, connections: Outgoing, claim: Claim) -> None:
        body = claim.body.encode()
        secrets = webhooks.active_secrets(claim.webhook, self.service.settings, claim.taken_at)
        if secrets:
            # A receiver refuses what was signed minutes ago, so a worker with a wrong clock would be heard by nobody.
            now = int(claim.taken_at.timestamp())
            headers = {"Content-Type": "application/json", "User-Agent": AGENT}
            answer = await connections.post(
                claim.webhook.url, headers | signed(secrets, claim.delivery_id, now, body), body
            )
        else:
            reason = "This service's webhook key has changed. Rotate the webhook's secret to have it signed again."
            answer = Answer(seconds=0.0, error=reason)
        await anyio.to_thread.run_sync(partial(self._note, claim, answer))

    def _note(self, claim: Claim, answer: Answer) -> None:
        state = self.service.write(
            lambda session: deliveries.note(session, claim, answer, self.service.settings), PATIENCE_S
        )
        if state is None:
            log.warning("delivery %s: its lease was lost, the attempt is not noted", claim.delivery_id)
            return
        self.service.numbers.add(telemetry.WEBHOOK_ATTEMPTS, OUTCOME[state])
        # Neither the address nor the answer: both may hold secrets, and the owner can look at them.
        log.info(
            "delivery %s of %s to webhook %s: attempt %d, %s, %s",
            *(claim.delivery_id, claim.event, claim.webhook.id, claim.attempt),
            answer.status or "no answer",
            state,
        )
