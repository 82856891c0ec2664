// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"encoding/base64"
	"encoding/hex"
	"hash/fnv"
	"strings"
)

// TokenLabel is the telemetry label that carries the token of a flow.
const TokenLabel = "sluice.flow"

var tokenEncoding = base64.RawURLEncoding

func decodeToken(text string) ([]byte, error) { return tokenEncoding.DecodeString(text) }

// requestID names what a flow holds of one limiter: the token of the flow, and which limiter it is about. All
// request ids of a flow share the token, so the first one that comes back frees everything.
func requestID(token, limiter string) string { return token + "#" + limiter }

// cutRequestID is the inverse of requestID.
func cutRequestID(id string) (token, limiter string, ok bool) {
	token, limiter, ok = strings.Cut(id, "#")
	return token, limiter, ok && token != ""
}

// limiterSum tells limiters apart. It is no secret and no signature: it finds mistakes of clients.
func limiterSum(policy, hash, component string) string {
	h := fnv.New32a()
	for _, s := range []string{policy, hash, component} {
		_, _ = h.Write([]byte(s)) // cannot fail
		_, _ = h.Write([]byte{0})
	}
	return hex.EncodeToString(h.Sum(nil))
}
