-- SPDX-License-Identifier: Apache-2.0

-- Unit tests of the plugin against a real Sluice at $SLUICE_URL, with the policy of the tests, and a limit of one request at a time at
-- the control point slow. Run them with busted.
local fakes = require "spec.fakes"
local cjson = require "cjson.safe"

local url = assert(os.getenv("SLUICE_URL"), "SLUICE_URL names no Sluice")

-- config is what Kong hands to a plugin: the defaults of the schema, and what a user sets.
local function config(set)
  local conf = {}
  for _, field in ipairs(require "kong.plugins.sluice.schema".fields) do
    for _, entry in ipairs(field.config and field.config.fields or {}) do
      local name, rule = next(entry)
      conf[name] = rule.default
      if set[name] ~= nil then
        assert(type(set[name]) == ({ integer = "number", map = "table" })[rule.type] or rule.type, name)
        conf[name] = set[name]
      elseif rule.required then
        assert(rule.default ~= nil, name .. " is required")
      end
    end
  end
  for name in pairs(set) do
    assert(conf[name] ~= nil, name .. " is no field of the schema")
  end
  return conf
end

local function ask(key, more)
  local r = { method = "POST", path = "/items?page=2", headers = { ["X-Api-Key"] = key } }
  for name, value in pairs(more or {}) do
    r.headers[name] = value
  end
  return r
end

describe("sluice", function()
  local shop = config { url = url, control_point = "shop" }

  before_each(function() fakes.timers = {} end)

  it("admits up to the limit of a key, and then says when to come back", function()
    for _ = 1, 5 do
      local served = fakes.serve(shop, ask("ann"))
      assert.equal(200, served.status)
      assert.truthy(served.headers["ratelimit"])
      assert.truthy(served.headers["ratelimit-policy"])
      assert.same({}, served.log)
    end
    local served = fakes.serve(shop, ask("ann"))
    assert.equal(429, served.status)
    assert.truthy(tonumber(served.headers["retry-after"]) > 0)
    assert.truthy(served.headers["ratelimit"])
    assert.same({ message = "Too many requests." }, served.body)
    assert.equal(200, fakes.serve(shop, ask("bob")).status)
  end)

  it("hands baggage on, with the labels that policies make", function()
    local served = fakes.serve(shop, ask("baggage", { Baggage = "tenant=t1", ["X-Plan"] = "gold" }))
    assert.truthy(served.upstream["baggage"]:find("tenant=t1", 1, true))
    assert.truthy(served.upstream["baggage"]:find("plan=gold", 1, true))
  end)

  it("gives slots back when a request is over", function()
    local slow = config { url = url, control_point = "slow" }
    assert.equal(200, fakes.serve(slow, ask("a")).status)
    assert.equal(429, fakes.serve(slow, ask("a")).status)
    assert.truthy(fakes.run_timers() > 0)
    assert.equal(500, fakes.serve(slow, ask("a"), 500).status) -- the service of this one fails
    fakes.run_timers()
    assert.equal(200, fakes.serve(slow, ask("a")).status)
    fakes.run_timers()
  end)

  it("knows the consumer, the route and the service", function()
    local r = ask("consumer")
    r.consumer, r.route, r.service = { username = "ann" }, { name = "items" }, { id = "7c1d" }
    local conf = config { url = url, control_point = "consumers", labels = { tier = "gold" } }
    assert.equal(200, fakes.serve(conf, r).status)
    assert.equal(429, fakes.serve(conf, r).status)
    r.consumer = { username = "bob" }
    assert.equal(200, fakes.serve(conf, r).status)
  end)

  it("counts requests whose headers are no text, or long", function()
    for i, junk in ipairs { "\255\254\195\40", "\"},{", "a\0b", ("x"):rep(10240), "\237\160\128", "ä€𐍈" } do
      local admitted = 0
      for _ = 1, 7 do
        local served = fakes.serve(shop, ask("junk" .. i, { ["X-Junk"] = junk, ["X-More"] = { junk, "b" } }))
        assert.same({}, served.log)
        admitted = admitted + (served.status == 200 and 1 or 0)
      end
      assert.equal(5, admitted)
    end
  end)

  -- posted asks with a body, of which Kong has what does not fit into 8 kB in a file.
  local function posted(key, text, more)
    local r = ask(key, { ["Content-Type"] = "application/json", ["Content-Length"] = tostring(#text), ["X-Envoy-Auth-Partial-Body"] = "true" })
    r.body = text
    for name, value in pairs(more or {}) do
      r[name] = value
    end
    if #text > 8192 then
      r.file = os.tmpname()
      local file = assert(io.open(r.file, "wb"))
      file:write(text)
      file:close()
    end
    return r
  end

  local function mutation(n)
    return '{"query": "mutation Add { add { id } }", "variables": {"x": "' .. ("x"):rep(n) .. '"}}'
  end

  it("sends the beginning of bodies, if that is wanted", function()
    local conf = config { url = url, control_point = "shop", body = true }
    local bound = 65536 - #mutation(0)
    for i, n in ipairs { 0, 10000, bound, bound + 1, 100000 } do
      local r = posted("body" .. i, mutation(n))
      local served = fakes.serve(conf, r)
      local baggage = served.upstream["baggage"]
      assert.same({}, served.log)
      assert.equal(n <= bound, baggage:find("operation=mutation", 1, true) ~= nil)
      assert.equal(n > bound, baggage:find("cut=yes", 1, true) ~= nil)
      assert.truthy(baggage:find("size=" .. #mutation(n), 1, true))
      assert.equal(200, fakes.serve(conf, r).status)
      assert.equal(n <= bound and 429 or 200, fakes.serve(conf, r).status)
      if r.file then
        local file = assert(io.open(r.file, "rb"))
        assert.equal(r.body, file:read("*a"))
        file:close()
        os.remove(r.file)
      end
    end
  end)

  it("sends binary bodies, and in chunks, and none", function()
    local conf, bytes = config { url = url, control_point = "shop", body = true, body_bytes = 1000 }, {}
    for i = 0, 255 do
      bytes[#bytes + 1] = string.char(i)
    end
    local all = table.concat(bytes):rep(4)
    for i, text in ipairs { all, all:rep(20), "" } do
      local r = posted("binary" .. i, text)
      r.headers["Content-Length"], r.headers["Transfer-Encoding"] = nil, text ~= "" and "chunked" or nil
      local served = fakes.serve(conf, r)
      assert.same({}, served.log)
      assert.equal(200, served.status)
      local size = text ~= "" and #text or -1
      assert.truthy((served.upstream["baggage"] or ""):find("size=" .. size, 1, true))
      assert.equal(text ~= "", served.upstream["baggage"]:find("cut=yes", 1, true) ~= nil)
      if r.file then
        os.remove(r.file)
      end
    end
  end)

  it("lets requests pass whose body Kong does not hand out", function()
    local conf = config { url = url, control_point = "shop", body = true }
    local r = posted("http2", mutation(0), { http = 2 })
    r.headers["Content-Length"] = nil
    local served = fakes.serve(conf, r)
    assert.equal(200, served.status)
    assert.equal(1, #served.log)
    r.method = "GET"
    assert.same({}, fakes.serve(conf, r).log)
    r = posted("gone", mutation(0), { file = "/nowhere" })
    served = fakes.serve(conf, r)
    assert.equal(200, served.status)
    assert.equal(1, #served.log)
  end)

  it("sends no bodies otherwise", function()
    for _ = 1, 3 do
      local served = fakes.serve(shop, posted("no body", mutation(0)))
      assert.equal(200, served.status)
      assert.falsy(served.upstream["baggage"]:find("operation", 1, true))
    end
  end)

  it("lets requests pass while Sluice is down, or refuses them", function()
    local down = "http://127.0.0.1:1"
    local served = fakes.serve(config { url = down, control_point = "shop" }, ask("ann"))
    assert.equal(200, served.status)
    assert.equal(1, #served.log)
    served = fakes.serve(config { url = down, control_point = "shop", fail_open = false }, ask("ann"))
    assert.equal(503, served.status)
    assert.equal(0, fakes.run_timers())
  end)

  it("says what is wrong with its token, and keeps the token to itself", function()
    local served = fakes.serve(config { url = url .. "/nowhere", control_point = "shop", token = "s3cret" }, ask("ann"))
    assert.equal(200, served.status)
    assert.truthy(served.log[1]:find("status 404", 1, true))
    assert.falsy(cjson.encode(served.log):find("s3cret", 1, true))
  end)

  it("asks nothing more when the worker stops", function()
    fakes.serve(config { url = url, control_point = "shop" }, ask("premature"))
    assert.equal(1, fakes.run_timers(true))
  end)
end)
