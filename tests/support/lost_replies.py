"""Replies that never come, of a server that has done what it was asked."""

from typing import Any

from redis.asyncio import Redis


async def lose_next_reply(redis: Redis) -> None:
    """The server runs the next command of this client, and says nothing."""
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    await connection.send_command("CLIENT", "REPLY", "SKIP")
    await pool.release(connection)
