-- SPDX-License-Identifier: Apache-2.0

-- Asks Sluice about every request, and tells it when the request is over, so that limits on concurrency know.
local cjson = require "cjson.safe"
local http = require "resty.http"

local kong, ngx = kong, ngx
local floor, max = math.floor, math.max

local Sluice = {
  VERSION = "1.0.0",
  PRIORITY = 902, -- after authentication, so that labels have the consumer, and beside rate-limiting (910)
}

-- How many ends of requests a worker has under way. Slots whose end gets lost free themselves.
local most_ends = 1000
local ends = 0

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
    i = i + max(n, 1)
  end
  return table.concat(out)
end

-- call calls a method of sluice.flow.v1.FlowService. It returns the answer, or nil and why not.
local function call(conf, method, message)
  local client = http.new()
  client:set_timeouts(conf.timeout, conf.timeout, conf.timeout)
  local headers = { ["Content-Type"] = "application/json" }
  if conf.token then
    headers["Authorization"] = "Bearer " .. conf.token
  end
  local request = { method = "POST", body = cjson.encode(message), headers = headers, ssl_verify = conf.ssl_verify }
  local url = conf.url:gsub("/$", "") .. "/sluice.flow.v1.FlowService/" .. method
  local response, err = client:request_uri(url, request)
  if not response and err == "closed" then -- a connection that had been kept, which Sluice has closed meanwhile
    response, err = client:request_uri(url, request)
  end
  if not response then
    return nil, err
  end
  if response.status ~= 200 then
    return nil, "status " .. response.status .. ": " .. tostring(response.body):sub(1, 300)
  end
  return cjson.decode(response.body)
end

-- beginning returns at most n bytes of the body of the request that is being served, and how long it is; nothing when
-- there is none. Kong hands out bodies that it has in memory; longer ones are in a file.
local function beginning(n)
  if not kong.request.get_header("content-length") and not kong.request.get_header("transfer-encoding")
    and kong.request.get_http_version() < 2 then
    return
  end
  local ok, text, err = pcall(kong.request.get_raw_body)
  if not ok then -- some versions refuse HTTP/2 without Content-Length, which GET never has
    if kong.request.get_method() ~= "GET" and kong.request.get_method() ~= "HEAD" then
      kong.log.err("sluice: a body cannot be read: ", tostring(text))
    end
    return
  end
  if text then
    return text:sub(1, n), #text
  end
  local name = ngx.req.get_body_file()
  local file = name and io.open(name, "rb")
  if not file then
    return kong.log.err("sluice: a body cannot be read: ", err)
  end
  text = file:read(n)
  local size = file:seek("end")
  file:close()
  return text, size
end

-- request describes the request that is being served, with its body if that is wanted.
local function request(conf)
  local headers = {}
  for name, value in pairs(kong.request.get_headers(1000)) do
    headers[valid(name)] = valid(type(value) == "table" and table.concat(value, ", ") or tostring(value))
  end
  headers["x-envoy-auth-partial-body"] = nil -- what only Envoy says, and here a client wrote it
  local text, size
  if conf.body then
    text, size = beginning(conf.body_bytes)
  end
  return {
    method = kong.request.get_method(),
    path = valid(kong.request.get_path_with_query()),
    host = valid(kong.request.get_host()),
    scheme = kong.request.get_scheme(),
    protocol = "HTTP/" .. string.format("%.1f", kong.request.get_http_version()),
    headers = headers,
    size = size or tonumber(kong.request.get_header("content-length")),
    body = text and ngx.encode_base64(text),
  }
end

-- labels are those of the configuration, and what Kong knows: kong.consumer, kong.route, kong.service.
local function labels(conf)
  local out = {}
  for key, value in pairs(conf.labels or {}) do
    out[key] = value
  end
  local consumer = kong.client.get_consumer()
  out["kong.consumer"] = consumer and (consumer.username or consumer.custom_id or consumer.id) or nil
  local route, service = kong.router.get_route(), kong.router.get_service()
  out["kong.route"] = route and (route.name or route.id) or nil
  out["kong.service"] = service and (service.name or service.id) or nil
  return next(out) and out or nil
end

local sentences = { [429] = "Too many requests.", [503] = "The service is busy." }

function Sluice:access(conf)
  local reply, err = call(conf, "CheckHTTP", {
    controlPoint = conf.control_point, labels = labels(conf), request = request(conf),
    queueTimeout = string.format("%.3fs", conf.queue_timeout / 1000),
    source = { address = kong.client.get_forwarded_ip(), port = kong.client.get_forwarded_port() },
  })
  local verdict = reply and reply.verdict
  if not verdict or (verdict.verdict ~= "admit" and verdict.verdict ~= "deny") then
    kong.log.err("sluice: ", err or "an answer without a verdict", conf.fail_open and ": the request passes" or "")
    if conf.fail_open then
      return
    end
    return kong.response.exit(503, { message = sentences[503] })
  end
  local headers = reply.responseHeaders or {}
  if verdict.verdict == "deny" then
    local status = verdict.httpStatus or 503
    return kong.response.exit(status, { message = sentences[status] or "The request was refused." }, headers)
  end
  for name, value in pairs(headers) do
    kong.response.set_header(name, value)
  end
  for name, value in pairs(reply.requestHeaders or {}) do
    kong.service.request.set_header(name, value)
  end
  kong.ctx.plugin.token = verdict.token
  kong.ctx.plugin.begin = ngx.now()
end

-- tell runs after the request.
local function tell(premature, conf, message)
  ends = ends - 1
  if premature then
    return
  end
  local _, err = call(conf, "End", message)
  if err then
    kong.log.err("sluice: the end of a request got lost: ", err)
  end
end

function Sluice:log(conf)
  local token = kong.ctx.plugin.token
  if not token then
    return
  end
  if ends >= most_ends then
    return kong.log.err("sluice: too many ends of requests are under way; one got lost")
  end
  local took = max(floor((ngx.now() - kong.ctx.plugin.begin) * 1000), 1)
  local ok, err = ngx.timer.at(0, tell, conf, {
    token = token,
    status = kong.response.get_status() >= 500 and "FLOW_STATUS_ERROR" or "FLOW_STATUS_OK",
    duration = string.format("%.3fs", took / 1000),
  })
  if not ok then
    return kong.log.err("sluice: the end of a request got lost: ", err)
  end
  ends = ends + 1
end

return Sluice
