-- Rotates over the keys; every request is made once, before the load. After `--`: what to send (envelope, check, track,
-- plain), the file of the customers' keys, the target's URL, the file of the business's key (to track), and, for many
-- keys, the word `fresh`. Ends with one line for scripts/bench.
local threads = 0
local keys = {}
local requests = {}
local make
local place = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  local kind, file, target, business, fresh = args[1], args[2], args[3], args[4], args[5] == "fresh"
  business = business and io.open(business):read("*l")
  local post = function(path, key, body)
    local headers = { ["Authorization"] = "Bearer " .. key, ["Content-Type"] = "application/json" }
    return wrk.format("POST", path, headers, body)
  end
  make = function(place, key)
    if kind == "envelope" then
      local body = '{"metric_name":"api_calls","target_url":"' .. target .. '","method":"GET"}'
      return post("/api/v1/proxy", key, body)
    elseif kind == "check" then
      return post("/api/v1/check", key, '{"metric_name":"api_calls"}')
    elseif kind == "track" then
      local body = '{"metric_name":"api_calls","units":1,"customer_id":"customer_' .. place - 1 .. '"}'
      return post("/api/v1/track", business, body)
    end
    return wrk.format("GET", "/target", { ["Authorization"] = "Bearer " .. key })
  end
  for key in io.lines(file) do
    keys[#keys + 1] = key
  end
  -- LuaJIT hashes a long string by a few of its bytes, so many requests that differ in the middle would all collide:
  -- fresh ones are put together as they are sent.
  if not fresh then
    for number, key in ipairs(keys) do
      requests[number] = make(number, key)
    end
  end
  -- Threads begin in different places, so that they do not meet at one key.
  place = number * math.floor(#keys / 2)
end

function request()
  place = place % #keys + 1
  return requests[place] or make(place, keys[place])
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
