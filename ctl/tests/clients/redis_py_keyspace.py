"""redis-py's RedisCluster, commands without a key: NODE… -> before, then after a line on stdin."""

import sys

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

nodes = [ClusterNode(*node.rsplit(":", 1)) for node in sys.argv[1:]]
client = RedisCluster(startup_nodes=nodes, socket_timeout=5)


def look():
    assert client.set("a", "1") is True
    whole_keyspace()


def whole_keyspace():
    assert client.dbsize() == 1, client.dbsize()
    assert client.keys("*") == [b"a"]
    assert client.randomkey() == b"a"
    assert list(client.scan_iter()) == [b"a"]


look()
print("before", flush=True)
sys.stdin.readline()
# The old leader says where the new one is. redis-py looks there only with a key in hand.
try:
    client.dbsize()
except (RedisError, RedisClusterException):
    pass
assert client.get("a") == b"1"
whole_keyspace()
assert client.flushall() is True
assert client.dbsize() == 0
print("after", flush=True)
