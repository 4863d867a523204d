"""Composition: settings → store, dispatcher, API context, from open to drained."""

import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

import msgspec
import structlog

from scheduler_api.api.auth.bearer import BearerToken
from scheduler_api.api.endpoint import Context
from scheduler_api.byte_budget import Budget
from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.http.sender import Sender
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.delivery.upkeep.recovery import recovering
from scheduler_api.domain.errors import StoreNotDurable, StoreUnavailable
from scheduler_api.server import open_files as descriptors
from scheduler_api.server.token_file import Token
from scheduler_api.settings import Settings
from scheduler_api.settings.memory_shares import shares
from scheduler_api.store.embedded.processes import Processes
from scheduler_api.store.store import Store, redis_at

log = structlog.get_logger()

COLLECT_AFTER: Final = 20_000  # new objects until the garbage collector looks; Python's own: 700


class Service(msgspec.Struct, frozen=True):
    """What runs: the api's context, and the dispatcher."""

    context: Context
    dispatcher: Dispatcher


@asynccontextmanager
async def running(settings: Settings, token: Token) -> AsyncIterator[Service]:
    """Store and dispatcher, from open to drained. Raises: StoreStartFailed, DataRefused."""
    grace, address = settings.shutdown_grace, settings.redis_address
    open_files = _open_files(settings.max_in_flight)
    memory = shares(settings.max_memory, settings.workers, embedded=not address)
    async with (
        redis_at(address, settings.data_dir, grace, memory.store) as redis,
        open_transport(
            settings.egress_allow,
            settings.egress_proxy,
            settings.egress_ca_file,
            connections=open_files.receivers,
        ) as transport,
    ):
        store = Store(
            redis,
            prefix=settings.redis_prefix,
            partitions=settings.partitions,
            lease=settings.lease,
            concurrency=settings.destination_concurrency,
            keep_delivered=settings.keep_delivered,
            keep_failed=settings.keep_failed,
            replica=settings.durability == "replica",
        )
        await _check(store, strict=settings.strict)
        sender = Sender(
            transport,
            timeout=settings.request_timeout,
            secrets=settings.signing_secrets,
        )
        dispatcher = Dispatcher(
            store.queues,
            store.notifier,
            sender,
            store.growth,
            store.check,
            slots=open_files.deliveries,
            lease=settings.lease,
            memory=memory.deliveries,
            max_body=settings.max_body,
        )
        context = Context(
            store=store,
            credentials=(BearerToken(token.value),),
            # Most messages go to few hosts.
            refusal=lru_cache(4096)(settings.egress_allow.refusal_of_literal),
            default_zone=settings.default_timezone,
            max_body=settings.max_body,
            bodies=Budget(memory.requests),
            is_running=lambda: dispatcher.running,
        )
        async with recovering(Processes(settings.data_dir, store.epoch), store.queues):
            dispatcher.start()
            _collect_seldom()
            try:
                yield Service(context, dispatcher)
            finally:
                await dispatcher.drain(grace)
                log.info("drained")


def _open_files(wanted: int) -> descriptors.Budget:
    limit = descriptors.limit()
    budget = descriptors.budget(wanted, limit)
    if budget.deliveries < wanted:
        log.warning("open_files_limited", limit=limit, max_in_flight=budget.deliveries)
    return budget


def _collect_seldom() -> None:
    """Let the garbage collector pass over what was loaded, and look seldom.

    A burst makes thousands of objects that reference counting frees; by default the collector
    walks through them, and all modules with them, again and again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(COLLECT_AFTER, 20, 20)


async def _check(store: Store, *, strict: bool) -> None:
    """Refuse data not for this process; a store that is away is waited for by the dispatcher.

    With `strict`, refuse a store that may lose messages, or that cannot be asked.
    """
    try:
        await store.check_all()
    except StoreUnavailable as error:
        if strict:
            raise
        log.warning("store_away_at_start", reason=str(error), cause=error.__cause__)
    if strict and store.durability.warnings:
        raise StoreNotDurable("STRICT is set, and " + "; ".join(store.durability.warnings))
