"""redis-py's RedisCluster reading from replicas: KEY COUNT NODE… -> prints ok after COUNT rounds.

What is read is never older than what was acknowledged before."""

import sys
import time

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, RedisError

key, count = sys.argv[1], int(sys.argv[2])
nodes = [ClusterNode(*node.rsplit(":", 1)) for node in sys.argv[3:]]
client = RedisCluster(startup_nodes=nodes, socket_timeout=5, read_from_replicas=True)

rounds = number = 0
while rounds < count:
    number += 1
    try:
        client.set(key, number)
        read = int(client.get(key))
        if read != number:
            sys.exit(f"{number} was acknowledged, {read} is read")
        rounds += 1
    except (RedisError, RedisClusterException):
        time.sleep(0.05)
    time.sleep(0.005)
print("ok")
