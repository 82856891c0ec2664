// SPDX-License-Identifier: Apache-2.0

package forwardauth

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/sluice-project/sluice/internal/flow"
)

// Headers of answers.
const (
	headerVerdict = "Sluice-Verdict" // admit or deny
	headerReason  = "Sluice-Reason"  // of a denial: a stable code
	headerStatus  = "Sluice-Status"  // the real status, where deny_status replaces it
	headerToken   = "Sluice-Flow-Token"
)

var (
	admitted = []string{"admit"}
	denied   = []string{"deny"}
)

// set sets a header unless its value could end it and begin another one.
func set(h http.Header, name, value string) {
	if !strings.ContainsFunc(value, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f }) {
		h.Set(name, value)
	}
}

// printable makes text of a URL fit for a message.
func printable(text string) string {
	const longest = 80
	if len(text) > longest {
		text = text[:longest] + "…"
	}
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return '·'
		}
		return c
	}, strings.ToValidUTF8(text, "�"))
}

// problem is a denial for programs (RFC 9457).
type problem struct {
	Type       string  `json:"type"`
	Title      string  `json:"title"`
	Status     int     `json:"status"`
	Detail     string  `json:"detail"`
	Reason     string  `json:"reason"`
	RetryAfter float64 `json:"retry_after_seconds,omitempty"`
}

// deny answers what the client of the proxy shall see. The public has no business with the names of policies and
// accounts, so they are not in the body.
func deny(w http.ResponseWriter, r *http.Request, v *flow.Verdict, status int) {
	h := w.Header()
	h[headerVerdict] = denied
	h.Set(headerReason, v.Reason.String())
	h.Set("Cache-Control", "no-store")
	own := v.HTTPStatus()
	if status == 0 {
		status = own
	} else {
		h.Set(headerStatus, strconv.Itoa(own))
	}
	var body []byte
	if strings.Contains(r.Header.Get("Accept"), "json") {
		h.Set("Content-Type", "application/problem+json")
		body, _ = json.Marshal(&problem{ // cannot fail: the numbers are finite
			Type: "about:blank", Title: http.StatusText(own), Status: own, Detail: sentence(v),
			Reason: v.Reason.String(), RetryAfter: v.RetryAfter.Seconds(),
		})
		body = append(body, '\n')
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		h.Set("X-Content-Type-Options", "nosniff")
		body = []byte(sentence(v) + "\n")
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the proxy has gone
}

// sentence says to the public why.
func sentence(v *flow.Verdict) string {
	text := "The service is busy."
	switch v.Reason {
	case flow.RateLimited:
		text = "Too many requests."
	case flow.ConcurrencyLimited:
		text = "Too many requests are in progress."
	case flow.TooLarge:
		text = "The request asks for more than is ever allowed at once."
	case flow.NotSampled:
		text = "This is not available to everybody yet."
	case flow.InvalidRequest:
		text = "The request cannot be judged: " + v.Detail + "."
	}
	if v.RetryAfter > 0 {
		text += " Retry in " + strconv.FormatFloat(math.Ceil(v.RetryAfter.Seconds()), 'f', 0, 64) + " s."
	}
	return text
}
