// SPDX-License-Identifier: Apache-2.0

// Package rpc serves our own API: gRPC, gRPC-Web, Connect and JSON over HTTP, from the same definitions
// and on one port. Wire types stop here: handlers translate, make one call into a domain package, and
// translate back.
package rpc
