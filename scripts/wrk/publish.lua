-- POST of a 64-byte event over keep-alive connections; the path is the one of the URL.
-- One line at the end: requests per second, failed requests.
wrk.method = "POST"
wrk.body = string.rep("x", 64)
wrk.headers["Content-Type"] = "text/plain"

function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("RESULT %.0f %d\n", summary.requests / summary.duration * 1e6, failed))
end
