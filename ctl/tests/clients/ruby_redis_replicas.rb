# ruby-redis with `replica: true`: KEY COUNT NODE… -> prints ok after COUNT rounds. What is read is
# never older than what was acknowledged before.

require "redis"

key, count, *nodes = ARGV
connect = lambda do
  Redis.new(cluster: nodes.map { |node| "redis://#{node}" }, replica: true, timeout: 5)
end
client = connect.call

rounds = number = 0
while rounds < count.to_i
  number += 1
  begin
    client.set(key, number)
    read = client.get(key).to_i
    abort "#{number} was acknowledged, #{read} is read" if read != number
    rounds += 1
  rescue Redis::BaseError
    sleep 0.05
    client = connect.call rescue retry
  end
  sleep 0.005
end
puts "ok"
