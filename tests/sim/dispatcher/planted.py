"""Mistakes in the dispatcher's Python code, each planted to see it caught.

A mistake is a text of one function and what is put in its place. A text that is not found exactly
once is an error: the list follows the code.
"""

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import msgspec

from scheduler_api.delivery import (
    claimer,
    delay_queue,
    dispatcher,
    leases,
    outcomes,
    permits,
    slots,
    wakeup,
)
from scheduler_api.delivery.upkeep import periodic, reaper, renewer
from scheduler_api.store import queue


class Planted(msgspec.Struct, frozen=True):
    """One mistake."""

    name: str  # what is done wrong
    function: Any  # whose code is changed
    right: str
    wrong: str

    def code(self) -> Any:
        """The function's code with the mistake. Raises: ValueError, if it has no place there."""
        text = textwrap.dedent(inspect.getsource(self.function))
        if text.count(self.right) != 1:
            raise ValueError(f"{self.name!r} has {text.count(self.right)} places")
        names: dict[str, Any] = {}
        exec(text.replace(self.right, self.wrong), self.function.__globals__, names)  # noqa: S102
        return names[self.function.__name__].__code__


@contextmanager
def planted(mistake: Planted) -> Iterator[None]:
    """Run the function with the mistake, under any name of an import, until the block ends."""
    function, right = mistake.function, mistake.function.__code__
    function.__code__ = mistake.code()
    try:
        yield
    finally:
        function.__code__ = right


PLANTED: Final = (
    Planted(
        "an open request's lease is not renewed",
        renewer.renew,
        "await leases.renew(lease - interval)",
        "await leases.renew(0)",
    ),
    Planted(
        "a lease that was renewed keeps its old deadline",
        leases.Leases._renew,
        "lease.deadline = deadline",
        "pass",
    ),
    Planted(
        "a lost lease does not end its request",
        leases.Leases._abort,
        "lease.task.cancel()",
        "pass",
    ),
    Planted(
        "a task that has not started is cancelled, and its claim is never released",
        leases.Leases._abort,
        "if lease in self.sending and has_started(lease.task):",
        "if True:",
    ),
    Planted(
        "a request outlives a lease that could not be renewed",
        renewer.abort_expired,
        "leases.abort_expired()",
        "pass",
    ),
    Planted(
        "a request starts after its lease has ended",
        leases.Leases.usable,
        "time.monotonic() < lease.deadline - MARGIN_SHARE * self._seconds",
        "True",
    ),
    Planted(
        "an error of the store ends the renewal of leases",
        periodic.repeat,
        'log.debug("upkeep_postponed", reason=str(error))',
        "return",
    ),
    Planted(
        "an outcome is dropped when the store is away",
        outcomes.Outcomes.settle,
        "if self._stopping:",
        "if True:",
    ),
    Planted(
        "a message that was not sent is not given back when the store is away",
        outcomes.Outcomes._release,
        "if self._stopping:",
        "if True:",
    ),
    Planted(
        "a message that was not sent is not given back",
        dispatcher.Dispatcher._deliver,
        "await self._outcomes.release(lease.queue, [lease.claimed])",
        "pass",
    ),
    Planted(
        "a message that waits for its instant is dropped when the process stops",
        dispatcher.Dispatcher._deliver_when_due,
        "await self._outcomes.release(lease.queue, [lease.claimed])",
        "pass",
    ),
    Planted(
        "a claim that comes after the stop is dropped",
        claimer.Claimer._take,
        "await self._queue.release(claim.messages)",
        "pass",
    ),
    Planted(
        "a drain does not settle what it cuts off",
        dispatcher.Dispatcher._send,
        "return self._sender.cut_off(claimed, start)",
        "return await asyncio.sleep(3600)",
    ),
    Planted(
        "a drain does not wait for open requests to be settled",
        dispatcher.Dispatcher.drain,
        "await asyncio.gather(*self._leases.tasks, return_exceptions=True)",
        "pass",
    ),
    Planted(
        "a process that ends stays registered",
        dispatcher._unregister,
        "await queue.release([])",
        "pass",
    ),
    Planted(
        "a message is sent when it is claimed, not when it is due",
        delay_queue.DelayQueue.wait,
        "await future",
        "future.cancel()",
    ),
    Planted(
        "only the first that waits for an instant is woken",
        delay_queue.DelayQueue._wake_due,
        "    if self._waiting:\n        self._set_timer()",
        "    pass",
    ),
    Planted(
        "a notification wakes nobody",
        dispatcher.Dispatcher._wake,
        "self._claimers[partition].wake()",
        "pass",
    ),
    Planted(
        "a claimer does not sleep until the next message is due",
        claimer.Claimer._sleep_until_next,
        "self._wakeup.at(claim.due_at + self._standby_s)",
        "pass",
    ),
    Planted(
        "the last instant that is asked for counts, not the earliest",
        wakeup.Wakeup.at,
        "if self._set_to is None or instant < self._set_to:",
        "if True:",
    ),
    Planted(
        "an error of the store ends the claim loop",
        claimer.Claimer._claim_safely,
        "self._wakeup.within(self._health.note_failure(error))",
        "raise",
    ),
    Planted(
        "slots are not reserved for a claim under way",
        slots.Slots.reserve,
        "self._reserved += reserved",
        "self._reserved += 0 * reserved",
    ),
    Planted(
        "a failed claim is repeated under another nonce",
        queue.Queue.claim,
        "self._nonce = self._nonce or secrets.token_hex(8)",
        "self._nonce = secrets.token_hex(8)",
    ),
    Planted(
        "leases are reaped at once after an outage",
        reaper.reap,
        "wait = max(lease - health.steady_for(), await queue.note_restart())",
        "wait = await queue.note_restart()",
    ),
    Planted(
        "expired leases are not reaped",
        reaper.reap,
        "if wait > 0:",
        "if True:",
    ),
    Planted(
        "a queued message is sent before it has a permit",
        dispatcher.Dispatcher._launch,
        "if claimed.permit:",
        "if True:",
    ),
    Planted(
        "a message that has got a permit is sent before it is due",
        dispatcher.Dispatcher._start,
        "self._deliver if lease.claimed.due_at <= now else self._deliver_when_due",
        "self._deliver",
    ),
    Planted(
        "a permit that was passed on is given back as well",
        permits.Permits._pass,
        "ended.claimed.permit, first.claimed.permit = False, True",
        "first.claimed.permit = True",
    ),
    Planted(
        "a permit is lost when it is passed on",
        permits.Permits._pass,
        "ended.claimed.permit, first.claimed.permit = False, True",
        "ended.claimed.permit = False",
    ),
    Planted(
        "the message that was queued last is sent first",
        permits.Permits._pass,
        "first = line.waiting[0][1]",
        "first = (line.waiting.rotate(1), line.waiting[0][1])[1]",
    ),
    Planted(
        "a message is sent behind a slow request",
        permits.Permits.pass_on,
        " or not self._shares.is_quick(ended.claimed.destination)",
        "",
    ),
    Planted(
        "a message is sent behind a request that did not reach its destination",
        permits.Permits.pass_on,
        "if not reached:",
        "if False:",
    ),
    Planted(
        "a host that cannot be reached gets the queued messages one after the other",
        dispatcher._reached,
        "reached(attempt.status, attempt.error) is True",
        "True",
    ),
    Planted(
        "queued messages wait as long as their destination hangs",
        permits.Permits._give_back_old,
        "self._give_back(key, math.inf if recount else then)",
        "pass",
    ),
    Planted(
        "queued messages are kept when the process stops",
        permits.Permits.stop,
        "self._give_back(key)",
        "pass",
    ),
    Planted(
        "a request that waits for a claim is not settled",
        permits._let_go,
        "line.ended.popleft()[1].set_result(None)",
        "line.ended.popleft()",
    ),
)
