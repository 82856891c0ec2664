-- SPDX-License-Identifier: Apache-2.0

-- What the plugin uses of Kong, for tests without it: the functions of the PDK as its reference describes them, timers that
-- run when the test says so, and resty.http over blocking sockets.
local socket = require "socket"
local mime = require "mime"
local blocking = require "socket.http"
local ltn12 = require "ltn12"

local fakes = { timers = {} }

-- request begins a request to the proxy.
function fakes.request(r)
  fakes.served = { status = nil, body = nil, headers = {}, upstream = {}, log = {} }
  local served = fakes.served
  local headers = {}
  for name, value in pairs(r.headers or {}) do
    headers[name:lower()] = value
  end
  fakes.file = r.file
  _G.kong = {
    ctx = { plugin = {} },
    log = { err = function(...) served.log[#served.log + 1] = table.concat({ ... }) end },
    client = {
      get_consumer = function() return r.consumer end,
      get_forwarded_ip = function() return "192.0.2.1" end,
      get_forwarded_port = function() return 40000 end,
    },
    router = {
      get_route = function() return r.route end,
      get_service = function() return r.service end,
    },
    request = {
      get_method = function() return r.method or "GET" end,
      get_path_with_query = function() return r.path or "/" end,
      get_host = function() return "shop.example" end,
      get_scheme = function() return "https" end,
      get_http_version = function() return r.http or 1.1 end,
      get_header = function(name) return headers[name:lower()] end,
      get_raw_body = function()
        assert(r.http ~= 2 or headers["content-length"], "http2 requests are not supported without content-length header")
        if r.file then
          return nil, "request body did not fit into client body buffer"
        end
        return r.body or ""
      end,
      get_headers = function(most)
        assert(most <= 1000, "the PDK takes at most 1000")
        return headers
      end,
    },
    service = { request = { set_header = function(name, value)
      assert(type(value) == "string" or type(value) == "number")
      served.upstream[name:lower()] = value
    end } },
    response = {
      get_status = function() return served.status end,
      set_header = function(name, value) served.headers[name:lower()] = value end,
      exit = function(status, body, more)
        assert(status >= 100 and status <= 599, "status")
        for name, value in pairs(more or {}) do
          served.headers[name:lower()] = value
        end
        served.status, served.body = status, body
        error(fakes.exit) -- Kong leaves the phase here, too
      end,
    },
  }
  -- Plugins keep these two when they are loaded.
  package.loaded["kong.plugins.sluice.handler"] = nil
  return require "kong.plugins.sluice.handler"
end

fakes.exit = {} -- what kong.response.exit throws

-- serve runs one request through the plugin. upstream is the status of the service.
function fakes.serve(conf, r, upstream)
  local plugin = fakes.request(r)
  local served = fakes.served
  local ok, err = pcall(plugin.access, plugin, conf)
  if not ok and err ~= fakes.exit then
    error(err, 0)
  end
  served.status = served.status or upstream or 200
  plugin:log(conf)
  return served
end

-- run_timers runs what waits.
function fakes.run_timers(premature)
  local waiting = fakes.timers
  fakes.timers = {}
  for _, timer in ipairs(waiting) do
    timer[1](premature or false, unpack(timer, 2, timer.n))
  end
  return #waiting
end

_G.ngx = {
  now = socket.gettime,
  encode_base64 = function(text) return (mime.b64(text)) end,
  req = { get_body_file = function() return fakes.file end },
  timer = { at = function(delay, f, ...)
    assert(delay == 0)
    fakes.timers[#fakes.timers + 1] = { n = 1 + select("#", ...), f, ... }
    return true
  end },
}

-- resty.http
package.preload["resty.http"] = function()
  return { new = function()
    local timeout = 1
    return {
      set_timeouts = function(_, connect, send, read)
        assert(connect and send and read)
        timeout = read / 1000
      end,
      request_uri = function(_, url, options)
        local parts = {}
        local headers = { ["Content-Length"] = #options.body }
        for name, value in pairs(options.headers) do
          headers[name] = value
        end
        blocking.TIMEOUT = timeout
        local ok, status, received = blocking.request {
          url = url, method = options.method, headers = headers, source = ltn12.source.string(options.body), sink = ltn12.sink.table(parts),
        }
        if not ok then
          return nil, status
        end
        return { status = status, headers = received, body = table.concat(parts) }
      end,
    }
  end }
end

-- kong.db.schema.typedefs, as far as the schema uses it.
package.preload["kong.db.schema.typedefs"] = function()
  return {
    protocols_http = { type = "set", elements = { type = "string", one_of = { "http", "https" } } },
    url = function(fields)
      fields.type = "string"
      return fields
    end,
  }
end

return fakes
