# ruby-redis with `cluster:`: KEY COUNT NODE… -> prints ok after COUNT acknowledged increments.

require "redis"

key, count, *nodes = ARGV
client = Redis.new(cluster: nodes.map { |node| "redis://#{node}" }, timeout: 5)

client.set("ruby-redis:plain", "value")
raise "GET after SET" unless client.get("ruby-redis:plain") == "value"

acknowledged = 0
while acknowledged < count.to_i
  begin
    client.incr(key)
    acknowledged += 1
  rescue Redis::BaseError
    sleep 0.05
    # This client learns the nodes when it is made, and when it is redirected.
    client = Redis.new(cluster: nodes.map { |node| "redis://#{node}" }, timeout: 5) rescue retry
  end
  sleep 0.005
end
puts "ok"
