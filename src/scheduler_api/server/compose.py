"""Composition: settings → store, dispatcher and API context, from open to drained."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

import msgspec
import structlog

from scheduler_api.api.auth.bearer import BearerToken
from scheduler_api.api.endpoint import Context
from scheduler_api.byte_budget import ByteBudget
from scheduler_api.delivery.dispatcher import Dispatcher
from scheduler_api.delivery.http.sender import Sender
from scheduler_api.delivery.http.transport import open_transport
from scheduler_api.delivery.upkeep.recovery import recovering
from scheduler_api.domain.errors import StoreNotDurable, StoreUnavailable
from scheduler_api.server import open_files
from scheduler_api.server.garbage_collector import tune_garbage_collector
from scheduler_api.server.token_file import Token
from scheduler_api.settings import Settings
from scheduler_api.settings.memory_shares import memory_shares
from scheduler_api.store.embedded.processes import Processes
from scheduler_api.store.store import Store, open_store

log = structlog.get_logger()

REFUSALS_CACHED: Final = 4096  # hosts; most messages go to few hosts


class Service(msgspec.Struct, frozen=True):
    """The running parts: the API's context, and the dispatcher."""

    context: Context
    dispatcher: Dispatcher


@asynccontextmanager
async def open_service(settings: Settings, token: Token) -> AsyncIterator[Service]:
    """The running service, drained at the end. Raises: StoreStartFailed, DataRefused."""
    limits = _connection_limits(settings.max_in_flight)
    memory = memory_shares(settings)
    async with (
        open_store(settings) as store,
        open_transport(
            settings.egress_allow,
            settings.egress_proxy,
            settings.egress_ca_file,
            max_connections=limits.receivers,
        ) as transport,
    ):
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
            slots=limits.deliveries,
            lease=settings.lease,
            memory=memory.deliveries,
            max_body=settings.max_body,
        )
        context = Context(
            store=store,
            credentials=(BearerToken(token.value),),
            refusal=lru_cache(REFUSALS_CACHED)(settings.egress_allow.refusal_of_literal),
            default_zone=settings.default_timezone,
            max_body=settings.max_body,
            bodies=ByteBudget(memory.requests),
            is_running=lambda: dispatcher.running,
        )
        async with recovering(Processes(settings.data_dir, store.worker_id), store.queues):
            dispatcher.start()
            tune_garbage_collector()
            try:
                yield Service(context, dispatcher)
            finally:
                await dispatcher.drain(settings.shutdown_grace)
                log.info("dispatcher_drained")


def _connection_limits(wanted: int) -> open_files.ConnectionLimits:
    limit = open_files.raised_limit()
    limits = open_files.connection_limits(wanted, limit)
    if limits.deliveries < wanted:
        log.warning("open_files_limited", limit=limit, max_in_flight=limits.deliveries)
    return limits


async def _check(store: Store, *, strict: bool) -> None:
    """Refuse data that this process cannot use. An unavailable store is no error: the dispatcher
    waits for it.

    With `strict`, refuse a store that may lose messages, or that is unavailable.
    """
    try:
        await store.check_all()
    except StoreUnavailable as error:
        if strict:
            raise
        log.warning(
            "store_unavailable_at_start", reason=str(error), cause=str(error.__cause__ or "")
        )
    if strict and store.durability.warnings:
        raise StoreNotDurable(
            "STRICT=1 refuses this store: " + "; ".join(store.durability.warnings)
        )
