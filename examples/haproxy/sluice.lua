-- SPDX-License-Identifier: Apache-2.0

-- Asks Sluice about requests from within HAProxy (2.6 or later):
--
--   global
--     setenv SLUICE_HOST 127.0.0.1
--     lua-load-per-thread /etc/haproxy/sluice.lua
--   frontend …
--     http-request  lua.sluice_check shop
--     http-response lua.sluice_done
--
-- sluice_check answers denied requests itself. sluice_done gives clients the RateLimit headers, and tells Sluice that
-- the response is on its way, so that limits on concurrency know.
local function setting(name, default) return os.getenv("SLUICE_" .. name) or default end

local settings = {
  host = setting("HOST", "127.0.0.1"),               -- an IP address
  port = tonumber(setting("PORT", "8080")),
  token = setting("TOKEN", ""),                      -- a token with the role client, if Sluice asks for one
  timeout = tonumber(setting("TIMEOUT", "1")),       -- seconds until Sluice counts as down
  queue_timeout = setting("QUEUE_TIMEOUT", "250ms"), -- how long a request may wait in queues; less than timeout
  fail = setting("FAIL", "open"), -- what happens when Sluice is down: requests pass; closed: they are answered with 503
  body = setting("BODY", "off"), -- on: send the beginning of bodies, for classifiers; needs http-request wait-for-body
  body_bytes = tonumber(setting("BODY_BYTES", "65536")), -- how much of a body; no more than Sluice reads
}
if (settings.body ~= "on" and settings.body ~= "off") or not settings.body_bytes or settings.body_bytes < 1
  or settings.body_bytes > 65536 or settings.body_bytes % 1 ~= 0 then
  error("sluice: want on or off as SLUICE_BODY, and a whole number from 1 to 65536 as SLUICE_BODY_BYTES")
end
if not settings.port or not settings.timeout or (settings.fail ~= "open" and settings.fail ~= "closed") then
  error("sluice: want numbers as SLUICE_PORT and SLUICE_TIMEOUT, and open or closed as SLUICE_FAIL")
end

-- What is not passed on: headers of the connection, and those in which Sluice believes the proxy.
local ours = {
  ["host"] = true, ["connection"] = true, ["keep-alive"] = true, ["te"] = true, ["trailer"] = true, ["upgrade"] = true,
  ["transfer-encoding"] = true, ["content-length"] = true, ["proxy-connection"] = true, ["expect"] = true,
  ["x-forwarded-method"] = true, ["x-forwarded-proto"] = true, ["x-forwarded-host"] = true, ["x-forwarded-uri"] = true,
  ["x-forwarded-for"] = true, ["x-envoy-auth-partial-body"] = true,
}

-- question makes the head of a question. Lists of HAProxy begin with 0.
local function question(txn)
  local lines = {}
  local function add(name, value)
    if value and value ~= "" then
      lines[#lines + 1] = name .. ": " .. value:gsub("%c", " ")
    end
  end
  for name, values in pairs(txn.http:req_get_headers()) do
    if not ours[name] and name:sub(1, 7) ~= "sluice-" then
      for i = 0, #values do
        add(name, values[i])
      end
    end
  end
  add("x-forwarded-method", txn.f:method())
  add("x-forwarded-proto", txn.f:ssl_fc() == 1 and "https" or "http")
  add("x-forwarded-host", txn.f:req_hdr("host"))
  add("x-forwarded-uri", txn.f:pathq())
  add("x-forwarded-for", txn.f:src())
  return table.concat(lines, "\r\n")
end

-- beginning returns what is sent of a body, and how long the body is. HAProxy has no more of it than fits into a buffer:
-- when that is full, and nobody said how long the body is, there is at least one byte more.
local function beginning(txn)
  if settings.body ~= "on" then
    return "", 0
  end
  local text = txn.sf:req_body()
  local size = math.max(txn.f:req_body_size() or 0, #text)
  if text ~= "" and size == #text and not txn.f:req_hdr("content-length") and not txn.req:may_recv() then
    size = size + 1
  end
  return text:sub(1, settings.body_bytes), size
end

-- ask sends a request and returns the status, the headers and the body of the answer, or nil and why there is none.
-- Sockets of HAProxy cannot be kept for the next request.
local function ask(first, head, text)
  local sock = core.tcp()
  sock:settimeout(settings.timeout)
  local ok, err = sock:connect(settings.host, settings.port)
  if not ok then
    return nil, err or "nobody listens"
  end
  if settings.token ~= "" then
    head = head .. "\r\nsluice-token: " .. settings.token
  end
  sock:send(first .. " HTTP/1.1\r\nhost: " .. settings.host .. "\r\nconnection: close\r\n" .. head .. "\r\n\r\n" .. text)
  local line = sock:receive("*l")
  local status = line and tonumber(line:match("^HTTP/1%.1 (%d+)"))
  if not status then
    sock:close()
    return nil, "no answer in time"
  end
  local headers = {}
  repeat
    line = sock:receive("*l")
    local name, value = (line or ""):match("^([^:]+):%s*(.-)%s*$")
    if name then
      headers[name:lower()] = value
    end
  until not line or line == ""
  local length = tonumber(headers["content-length"] or "0")
  local body = line and length > 0 and sock:receive(length) or ""
  sock:close()
  return status, headers, body
end

local complained = 0

-- complain logs a problem, at most once a second: when Sluice is down, every request meets the same one.
local function complain(text)
  local now = core.now().sec
  if now ~= complained then
    complained = now
    core.Alert("sluice: " .. text)
  end
end

local function refuse(txn, status, headers, body)
  local reply = txn:reply { status = status, body = body }
  for name, value in pairs(headers) do
    reply:add_header(name, value)
  end
  txn:done(reply)
end

core.register_action("sluice_check", { "http-req" }, function(txn, control_point)
  local path = "/forward-auth/" .. control_point .. "?expect_end=true&timeout=" .. settings.queue_timeout
  local head, text, size = question(txn), beginning(txn)
  if text ~= "" then
    head, path = head .. "\r\ncontent-length: " .. #text, path .. "&size=" .. size
  end
  local status, headers, body = ask((text == "" and "GET " or "POST ") .. path, head, text)
  local verdict = status and headers["sluice-verdict"]
  if verdict ~= "admit" and verdict ~= "deny" then
    complain((status and "no verdict, status " .. status or headers) .. (settings.fail == "open" and ": requests pass" or ""))
    if settings.fail ~= "open" then
      refuse(txn, 503, { ["content-type"] = "text/plain" }, "The service is busy.\n")
    end
    return
  end
  local seen = { ["ratelimit"] = headers["ratelimit"], ["ratelimit-policy"] = headers["ratelimit-policy"] }
  if verdict == "deny" then
    for _, name in ipairs { "retry-after", "sluice-reason", "content-type", "cache-control" } do
      seen[name] = headers[name]
    end
    return refuse(txn, status, seen, body)
  end
  if headers["baggage"] then
    txn.http:req_set_header("baggage", headers["baggage"])
  end
  txn:set_priv { headers = seen, token = headers["sluice-flow-token"] }
end, 1)

-- tell runs beside the request, which does not wait for it.
local function tell(token, answered)
  local head = "content-length: 0\r\nsluice-flow-token: " .. token .. "\r\nsluice-status: " .. answered
  local status, err = ask("POST /forward-auth/end", head, "")
  if status ~= 204 then
    complain("the end of a request got lost: " .. (status and "status " .. status or err))
  end
end

core.register_action("sluice_done", { "http-res" }, function(txn)
  local flow = txn:get_priv()
  if not flow then
    return
  end
  for name, value in pairs(flow.headers) do
    txn.http:res_set_header(name, value)
  end
  if flow.token then
    local answered = tostring(txn.f:status())
    core.register_task(function() tell(flow.token, answered) end)
  end
end)
