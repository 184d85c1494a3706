#!/bin/sh
# redis-cli -c: KEY COUNT NODE… -> prints ok after COUNT acknowledged increments. It holds one
# connection to one node while that answers, and turns to the next node when it does not.
key=$1 count=$2
shift 2
acknowledged=0
while [ "$acknowledged" -lt "$count" ]; do
  host=${1%:*} port=${1##*:}
  left=$((count - acknowledged))
  # Ten at a time, so that the leader can be killed between and during them.
  [ "$left" -gt 10 ] && left=10
  done=$(i=0; while [ $i -lt $left ]; do echo "INCR $key"; i=$((i + 1)); done \
    | timeout 20 redis-cli -c -h "$host" -p "$port" 2>/dev/null | grep -c '^[0-9][0-9]*$')
  acknowledged=$((acknowledged + done))
  if [ "$done" -lt "$left" ]; then
    first=$1
    shift
    set -- "$@" "$first"
  fi
  sleep 0.05
done
echo ok
