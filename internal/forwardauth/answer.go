// SPDX-License-Identifier: Apache-2.0

package forwardauth

import (
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

// deny answers what the client of the proxy shall see.
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
	kind, body := v.ClientBody(flow.WantsJSON(r.Header.Get("Accept")))
	h.Set("Content-Type", kind)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the proxy has gone
}
