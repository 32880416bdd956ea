-- Rotates over the keys; every request is made once, before the load. After `--`: what to send (envelope, plain),
-- the file of keys, and the target's URL. Ends with one line for scripts/bench.
local threads = 0
local requests = {}
local place = 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

function init(args)
  local kind, file, target = args[1], args[2], args[3]
  for key in io.lines(file) do
    if kind == "envelope" then
      local headers = { ["Authorization"] = "Bearer " .. key, ["Content-Type"] = "application/json" }
      local body = '{"metric_name":"api_calls","target_url":"' .. target .. '","method":"GET"}'
      requests[#requests + 1] = wrk.format("POST", "/api/v1/proxy", headers, body)
    else
      requests[#requests + 1] = wrk.format("GET", "/target", { ["Authorization"] = "Bearer " .. key })
    end
  end
  -- Threads begin in different places, so that they do not meet at one key.
  place = number * math.floor(#requests / 2)
end

function request()
  place = place % #requests + 1
  return requests[place]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
