-- SPDX-License-Identifier: Apache-2.0

local typedefs = require "kong.db.schema.typedefs"

return {
  name = "sluice",
  fields = {
    { protocols = typedefs.protocols_http },
    { config = {
      type = "record",
      fields = {
        { url = typedefs.url({ required = true, default = "http://127.0.0.1:8080" }) },
        { control_point = { type = "string", required = true, len_min = 1, len_max = 255 } },
        -- A token with the role client, if Sluice asks for one.
        { token = { type = "string", required = false, referenceable = true, encrypted = true } },
        -- Milliseconds that a request may wait in queues; less than timeout.
        { queue_timeout = { type = "integer", required = true, default = 250, between = { 0, 60000 } } },
        -- Milliseconds until Sluice counts as down.
        { timeout = { type = "integer", required = true, default = 1000, between = { 1, 60000 } } },
        -- What happens then: requests pass, or are answered with 503.
        { fail_open = { type = "boolean", required = true, default = true } },
        { ssl_verify = { type = "boolean", required = true, default = true } },
        -- Whether the beginning of bodies is sent, for classifiers: Kong then reads bodies before it asks.
        { body = { type = "boolean", required = true, default = false } },
        -- How much of a body.
        { body_bytes = { type = "integer", required = true, default = 65536, between = { 1, 1048576 } } },
        -- More labels, the same for every request.
        { labels = { type = "map", required = false, keys = { type = "string" }, values = { type = "string" } } },
      },
    } },
  },
}
