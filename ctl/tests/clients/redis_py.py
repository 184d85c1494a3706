"""redis-py's RedisCluster: KEY COUNT NODE… -> prints ok after COUNT acknowledged increments."""

import sys
import time

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

key, count = sys.argv[1], int(sys.argv[2])
nodes = [ClusterNode(*node.rsplit(":", 1)) for node in sys.argv[3:]]
client = RedisCluster(startup_nodes=nodes, socket_timeout=5)

assert client.set("redis-py:plain", "value") is True
assert client.get("redis-py:plain") == b"value"
with client.pipeline() as pipe:
    pipe.set("redis-py:piped", "1").incr("redis-py:piped").get("redis-py:piped")
    assert pipe.execute() == [True, 2, b"2"]

acknowledged = 0
while acknowledged < count:
    try:
        client.incr(key)
        acknowledged += 1
    # The second is none of the first.
    except (RedisError, RedisClusterException):
        time.sleep(0.05)
    time.sleep(0.005)
print("ok")
