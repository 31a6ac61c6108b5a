-- POST of a 64-byte event over keep-alive connections; the path is the one of the URL.
-- One line at the end: requests per second, failed requests, the median latency in us.
wrk.method = "POST"
wrk.body = string.rep("x", 64)
wrk.headers["Content-Type"] = "text/plain"

function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  local rate = summary.requests / summary.duration * 1e6
  io.write(string.format("RESULT %.0f %d %d\n", rate, failed, latency:percentile(50)))
end
