// SPDX-License-Identifier: Apache-2.0

// Package api holds the protocol of Sluice: protobuf definitions and what is generated from them.
package api

import _ "embed"

// OpenAPI describes the API as JSON over HTTP, in the Swagger 2.0 format. Do not modify it.
//
//go:embed gen/openapi/sluice.swagger.json
var OpenAPI []byte
