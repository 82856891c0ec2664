// SPDX-License-Identifier: Apache-2.0

package flow

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
)

// problem is a denial for programs (RFC 9457).
type problem struct {
	Type       string  `json:"type"`
	Title      string  `json:"title"`
	Status     int     `json:"status"`
	Detail     string  `json:"detail"`
	Reason     string  `json:"reason"`
	RetryAfter float64 `json:"retry_after_seconds,omitempty"`
}

// ClientBody is what the client of a service is told about a denial: a sentence, or for programs application/problem+json
// (RFC 9457). The public has no business with the names of policies, components and accounts, so they are not in it;
// Message is for those who operate the service. The body is valid UTF-8 and ends with the end of a line.
func (v *Verdict) ClientBody(asJSON bool) (contentType string, body []byte) {
	if !asJSON {
		return "text/plain; charset=utf-8", []byte(v.clientMessage() + "\n")
	}
	status := v.HTTPStatus()
	body, _ = json.Marshal(&problem{ // cannot fail: the numbers are finite
		Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: v.clientMessage(),
		Reason: v.Reason.String(), RetryAfter: v.RetryAfter.Seconds(),
	})
	return "application/problem+json", append(body, '\n')
}

// WantsJSON tells whether a client that sent this Accept header is a program that reads JSON.
func WantsJSON(accept string) bool { return strings.Contains(accept, "json") }

// clientMessage says to the public why.
func (v *Verdict) clientMessage() string {
	text := "The service is busy."
	switch v.Reason {
	case RateLimited:
		text = "Too many requests."
	case ConcurrencyLimited:
		text = "Too many requests are in progress."
	case TooLarge:
		text = "The request asks for more than is ever allowed at once."
	case NotSampled:
		text = "This is not available to everybody yet."
	case InvalidRequest:
		text = "The request cannot be judged: " + strings.ToValidUTF8(v.Detail, "�") + "."
	}
	if v.RetryAfter > 0 {
		text += " Retry in " + strconv.FormatInt(wholeSeconds(v.RetryAfter), 10) + " s."
	}
	return text
}
