-- SPDX-License-Identifier: Apache-2.0

-- Asks Sluice about requests from within nginx (libnginx-mod-http-lua or OpenResty; needs lua-cjson):
--
--   init_by_lua_block { require("sluice").setup { host = "127.0.0.1", port = 8080 } }
--   access_by_lua_block { require("sluice").check { control_point = "shop" } }
--   log_by_lua_block { require("sluice").done() }
--
-- check answers denied requests itself. done tells Sluice when a request is over, so that limits on concurrency know.
local cjson = require "cjson.safe"

local _M = {}

local settings = {
  host = "127.0.0.1",
  port = 8080,
  token = nil,          -- a token with the role client, if Sluice asks for one
  tls = false,          -- true: encrypt, and check the certificate for server_name
  server_name = nil,    -- nil: host
  queue_timeout = 0.25, -- seconds that a request may wait in queues; less than timeout
  timeout = 1,          -- seconds until Sluice counts as down
  fail_open = true,     -- what happens then: requests pass, or are answered with 503
  keepalive = 32,       -- idle connections of a worker
  body = false,         -- true: send the beginning of bodies, for classifiers; nginx then reads bodies before it asks
  body_bytes = 65536,   -- how much of a body; at most 1048576
}

-- What a worker has yet to tell Sluice, and how many timers are about it. Both are bounded: slots whose end gets lost
-- free themselves.
local most_ends, most_tellers = 10000, 8
local ends, first, last, tellers = {}, 1, 0, 0

function _M.setup(options)
  for name, value in pairs(options) do
    if name ~= "token" and name ~= "server_name" and settings[name] == nil then
      error("sluice: " .. tostring(name) .. " is not a setting", 2)
    end
    settings[name] = value
  end
  local n = settings.body_bytes
  if type(n) ~= "number" or n < 1 or n > 1048576 or n % 1 ~= 0 then
    error("sluice: body_bytes is " .. tostring(n) .. ", want a whole number from 1 to 1048576", 2)
  end
end

local complained = 0

-- complain logs a problem, at most once a second: when Sluice is down, every request meets the same one.
local function complain(text)
  if ngx.now() - complained >= 1 then
    complained = ngx.now()
    ngx.log(ngx.ERR, "sluice: ", text)
  end
end

-- valid makes UTF-8 of any bytes, since JSON can carry nothing else. Each byte that is wrong becomes a question mark.
local function valid(text)
  if not text:find("[\128-\255]") then
    return text
  end
  local out, i = {}, 1
  while i <= #text do
    local c, n = text:byte(i), 0
    if c < 0x80 then n = 1
    elseif c >= 0xC2 and c <= 0xDF and text:find("^[\128-\191]", i + 1) then n = 2
    elseif (c == 0xE0 and text:find("^[\160-\191][\128-\191]", i + 1))
      or (c == 0xED and text:find("^[\128-\159][\128-\191]", i + 1))
      or (c >= 0xE1 and c <= 0xEF and c ~= 0xED and text:find("^[\128-\191][\128-\191]", i + 1)) then n = 3
    elseif (c == 0xF0 and text:find("^[\144-\191][\128-\191][\128-\191]", i + 1))
      or (c == 0xF4 and text:find("^[\128-\143][\128-\191][\128-\191]", i + 1))
      or (c >= 0xF1 and c <= 0xF3 and text:find("^[\128-\191][\128-\191][\128-\191]", i + 1)) then n = 4
    end
    out[#out + 1] = n > 0 and text:sub(i, i + n - 1) or "?"
    i = i + math.max(n, 1)
  end
  return table.concat(out)
end

-- body reads the body of an answer: of a length, or in chunks.
local function body(sock, length, chunked)
  if not chunked then
    return sock:receive(length or 0)
  end
  local parts = {}
  while true do
    local line, err = sock:receive("*l")
    local size = line and tonumber(line:match("^%x+"), 16)
    if not size then
      return nil, err or "broken chunk"
    end
    if size > 0 then
      local part, perr = sock:receive(size)
      if not part then
        return nil, perr
      end
      parts[#parts + 1] = part
    end
    local _, lerr = sock:receive("*l")
    if lerr then
      return nil, lerr
    end
    if size == 0 then
      return table.concat(parts)
    end
  end
end

-- answer reads an HTTP response: status, body, and whether the connection is to be closed. Without a status, the second
-- is why, and the third whether nothing came at all.
local function answer(sock)
  local line, err = sock:receive("*l")
  local status = line and tonumber(line:match("^HTTP/1%.1 (%d+)"))
  if not status then
    return nil, err or "this is no HTTP", err == "closed"
  end
  local length, chunked, closes
  repeat
    line, err = sock:receive("*l")
    if not line then
      return nil, err
    end
    local name, value = line:match("^([^:]+):%s*(.-)%s*$")
    name = name and name:lower()
    if name == "content-length" then
      length = tonumber(value)
    elseif name == "transfer-encoding" then
      chunked = true
    elseif name == "connection" then
      closes = value:lower() == "close"
    end
  until line == ""
  local text, berr = body(sock, length, chunked)
  return text and status, text or berr, text and closes
end

-- exchange sends a request over one connection. again tells that nothing was answered on a connection that had been kept,
-- which Sluice may have closed meanwhile.
local function exchange(head, text)
  local sock = ngx.socket.tcp()
  sock:settimeout(settings.timeout * 1000)
  local ok, err = sock:connect(settings.host, settings.port)
  if not ok then
    return nil, "connect: " .. err
  end
  local kept = sock:getreusedtimes() > 0
  if settings.tls and not kept then
    ok, err = sock:sslhandshake(nil, settings.server_name or settings.host, true)
    if not ok then
      return nil, "TLS: " .. err
    end
  end
  ok, err = sock:send { head, text }
  if not ok then
    return nil, "send: " .. err, kept
  end
  local status, reply, closes = answer(sock)
  if not status then
    sock:close()
    return nil, "receive: " .. reply, kept and closes
  end
  if closes then
    sock:close()
  else
    sock:setkeepalive(10000, settings.keepalive)
  end
  return status, reply
end

-- call calls a method of sluice.flow.v1.FlowService. It returns the answer, or nil and why not.
local function call(method, message)
  local text = cjson.encode(message)
  local head = "POST /sluice.flow.v1.FlowService/" .. method .. " HTTP/1.1\r\nHost: " .. settings.host
    .. "\r\nContent-Type: application/json\r\nContent-Length: " .. #text
    .. (settings.token and "\r\nAuthorization: Bearer " .. settings.token or "") .. "\r\n\r\n"
  local status, reply, again
  repeat
    status, reply, again = exchange(head, text)
  until not again
  if not status then
    return nil, reply
  end
  if status ~= 200 then
    return nil, "status " .. status .. ": " .. reply:sub(1, 300)
  end
  return cjson.decode(reply)
end

-- beginning returns at most n bytes of the body of the request that is being served, and how long it is; nothing when
-- there is none. nginx has long bodies in a file.
local function beginning(n)
  local var = ngx.var
  if not var.http_content_length and not var.http_transfer_encoding and ngx.req.http_version() < 2 then
    return
  end
  local ok, err = pcall(ngx.req.read_body)
  if not ok then -- some versions refuse HTTP/2 without Content-Length, which GET never has
    if var.request_method ~= "GET" and var.request_method ~= "HEAD" then
      complain("a body cannot be read: " .. tostring(err))
    end
    return
  end
  local text, name = ngx.req.get_body_data(), ngx.req.get_body_file()
  if text or not name then
    return text and text:sub(1, n), text and #text
  end
  local file, ferr = io.open(name, "rb")
  if not file then
    return complain("a body cannot be read: " .. ferr)
  end
  text = file:read(n)
  local size = file:seek("end")
  file:close()
  return text, size
end

-- request describes the request that is being served, with its body if that is wanted.
local function request(with_body)
  local headers = {}
  for name, value in pairs(ngx.req.get_headers(1000)) do
    headers[valid(name)] = valid(type(value) == "table" and table.concat(value, ", ") or tostring(value))
  end
  headers["x-envoy-auth-partial-body"] = nil -- what only Envoy says, and here a client wrote it
  local var = ngx.var
  local text, size
  if with_body then
    text, size = beginning(settings.body_bytes)
  end
  return {
    method = ngx.req.get_method(), path = valid(var.request_uri), host = valid(var.http_host or ""), scheme = var.scheme,
    protocol = var.server_protocol, headers = headers, size = size or tonumber(var.http_content_length),
    body = text and ngx.encode_base64(text),
  }
end

local function close(status, text)
  ngx.status = status
  ngx.header["Content-Type"] = "text/plain"
  ngx.print(text, "\n")
  return ngx.exit(ngx.HTTP_OK)
end

local sentences = { [429] = "Too many requests.", [503] = "The service is busy." }

-- check lets the request that is being served pass, or answers it. Options: control_point; and, if wanted, labels,
-- services, and body instead of that of setup. It belongs into the access phase.
function _M.check(options)
  local with_body = options.body
  if with_body == nil then
    with_body = settings.body
  end
  local reply, err = call("CheckHTTP", {
    controlPoint = options.control_point, labels = options.labels, services = options.services,
    queueTimeout = string.format("%.3fs", settings.queue_timeout), request = request(with_body),
    source = { address = ngx.var.remote_addr, port = tonumber(ngx.var.remote_port) },
    destination = { address = ngx.var.server_addr, port = tonumber(ngx.var.server_port) },
  })
  local verdict = reply and reply.verdict
  if not verdict or (verdict.verdict ~= "admit" and verdict.verdict ~= "deny") then
    complain((err or "an answer without a verdict") .. (settings.fail_open and ": requests pass" or ""))
    if settings.fail_open then
      return
    end
    return close(503, sentences[503])
  end
  for name, value in pairs(reply.responseHeaders or {}) do
    ngx.header[name] = value
  end
  if verdict.verdict == "deny" then
    local status = verdict.httpStatus or 503
    return close(status, sentences[status] or "The request was refused.")
  end
  for name, value in pairs(reply.requestHeaders or {}) do
    ngx.req.set_header(name, value)
  end
  ngx.ctx.sluice = { token = verdict.token, begin = ngx.now() }
end

-- tell sends what is in ends, until nothing is left.
local function tell(premature)
  while first <= last and not premature do
    local message = ends[first]
    ends[first] = nil
    first = first + 1
    local _, err = call("End", message)
    if err then
      complain("the end of a request got lost: " .. err)
    end
  end
  tellers = tellers - 1
end

-- done tells Sluice that a request is over. It belongs into the log phase, where nothing can be sent: a timer does.
function _M.done()
  local flow = ngx.ctx.sluice
  if not flow or not flow.token then
    return
  end
  if last - first >= most_ends then
    return complain("too many ends wait to be told; one got lost")
  end
  last = last + 1
  ends[last] = {
    token = flow.token,
    status = ngx.status >= 500 and "FLOW_STATUS_ERROR" or "FLOW_STATUS_OK",
    duration = string.format("%.3fs", math.max(ngx.now() - flow.begin, 0.001)),
  }
  if tellers < most_tellers and tellers <= (last - first) / 64 and ngx.timer.at(0, tell) then
    tellers = tellers + 1
  end
end

return _M
