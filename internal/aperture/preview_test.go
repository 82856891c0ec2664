// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-project/sluice/internal/flow"
)

// TestPreviewsHideSecrets: what sluice preview hides, the previews of Aperture hide as well.
func TestPreviewsHideSecrets(t *testing.T) {
	d := newDoor(t, flow.Set{})
	const check = `{"control_point": "web", "request": {"path": "/a?token=hush", "headers": {"authorization": "Bearer hush",
		"x-api-key": "hush", ":path": "/a?token=hush", "x-user": "ann"}}}`
	over := make(chan struct{})
	defer close(over)
	go func() {
		for {
			select {
			case <-over:
				return
			default:
				ask(t, d, http.MethodPost, "/v1/flowcontrol/checkhttp", check)
			}
		}
	}()
	for _, kind := range []string{"labels", "http_requests"} {
		w := ask(t, d, http.MethodPost, "/v1/flowcontrol/preview/"+kind+"/web?samples=1", "", "Grpc-Timeout", "20S")
		if got := w.Body.String(); w.Code != http.StatusOK || strings.Contains(got, "hush") || !strings.Contains(got, "ann") {
			t.Errorf("%s: got %d: %s", kind, w.Code, got)
		}
	}
}
