-- GET over keep-alive connections. One line at the end: requests per second, failed requests.
function done(summary, latency, requests)
  local e = summary.errors
  local failed = e.connect + e.read + e.write + e.status + e.timeout
  io.write(string.format("RESULT %.0f %d\n", summary.requests / summary.duration * 1e6, failed))
end
