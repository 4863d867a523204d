"""Makes a server run a command and lose its reply."""

from typing import Any

from redis.asyncio import Redis, RedisCluster


async def lose_next_reply(redis: Redis, key: str = "") -> None:
    """The server runs the next command of this client, and says nothing.

    `key`: of that command, as a cluster's client has connections to each node.
    """
    if isinstance(redis, RedisCluster):
        node: Any = redis.get_node_from_key(key)
        connection = node.acquire_connection()
        await connection.connect()
        await connection.send_command("CLIENT", "REPLY", "SKIP")
        node.release(connection)
        return
    pool: Any = redis.connection_pool
    connection = await pool.get_connection()
    await connection.send_command("CLIENT", "REPLY", "SKIP")
    await pool.release(connection)
