-- Rotates over the keys; every request is made once, before the load. After `--`: what to send (envelope, check, track,
-- plain), the file of the customers' keys, the target's URL, the file of the business's key (to track), and, for many
-- keys, the word `fresh`. Ends with one line for scripts/bench.
local ffi = require("ffi")
local threads = 0
local requests = {}
local make
local place, count = 0, 0

function setup(thread)
  thread:set("number", threads)
  threads = threads + 1
end

-- The lines of a file, each found by its number. They lie in one piece: a million strings of Lua's own would slow down
-- whatever it does besides.
local function lines_of(file)
  local text = io.open(file):read("*a")
  local _, lines = text:gsub("\n", "")
  local ends = ffi.new("uint32_t[?]", lines + 1)
  local at = 0
  for line = 1, lines do
    at = text:find("\n", at + 1, true)
    ends[line] = at
  end
  return lines, function(line) return text:sub(ends[line - 1] + 1, ends[line] - 1) end
end

function init(args)
  local kind, file, target, business, fresh = args[1], args[2], args[3], args[4], args[5] == "fresh"
  business = business and io.open(business):read("*l")
  local post = function(path, key, body)
    local headers = { ["Authorization"] = "Bearer " .. key, ["Content-Type"] = "application/json" }
    return wrk.format("POST", path, headers, body)
  end
  local key
  count, key = lines_of(file)
  make = function(place)
    if kind == "envelope" then
      local body = '{"metric_name":"api_calls","target_url":"' .. target .. '","method":"GET"}'
      return post("/api/v1/proxy", key(place), body)
    elseif kind == "check" then
      return post("/api/v1/check", key(place), '{"metric_name":"api_calls"}')
    elseif kind == "track" then
      local body = '{"metric_name":"api_calls","units":1,"customer_id":"customer_' .. place - 1 .. '"}'
      return post("/api/v1/track", business, body)
    end
    return wrk.format("GET", "/target", { ["Authorization"] = "Bearer " .. key(place) })
  end
  -- LuaJIT hashes a long string by a few of its bytes, so many requests that differ in the middle would all collide:
  -- fresh ones are put together as they are sent.
  if not fresh then
    for place = 1, count do
      requests[place] = make(place)
    end
  end
  -- Threads begin in different places, so that they do not meet at one key.
  place = number * math.floor(count / 2)
end

function request()
  place = place % count + 1
  return requests[place] or make(place)
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format("RESULT %d %d %d %d %d %d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), errors.status,
    errors.connect + errors.read + errors.write + errors.timeout))
end
