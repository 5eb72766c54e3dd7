-- Posts the bodies of the files given, in turn: wrk -s post.lua URL -- CONTENT-TYPE FILE...
-- asking for the same type in return, and prints what came of it as one line of JSON. Times are
-- microseconds.

local requests, turn = {}, 0

function init(args)
  wrk.method = "POST"
  wrk.headers["Content-Type"], wrk.headers["Accept"] = args[1], args[1]
  for number = 2, #args do
    local file = assert(io.open(args[number], "rb"))
    requests[number - 1] = wrk.format(nil, nil, nil, file:read("*a"))
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '{"answers": %d, "duration_us": %d, "p50_us": %d, "p99_us": %d, "refused": %d, "broken": %d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status, errors.connect + errors.read + errors.write + errors.timeout
  ))
end
