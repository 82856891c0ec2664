// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	previewv1 "github.com/sluice-project/sluice/api/gen/aperture/flowcontrol/preview/v1"
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

// TestPreviewsLeaveTaps: previews of Aperture leave half of the taps to others.
func TestPreviewsLeaveTaps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDoor(t, flow.Set{})
		ctx, cancel := context.WithCancel(t.Context())
		in := &previewv1.PreviewRequest{ControlPoint: "web", Samples: 1}
		var running sync.WaitGroup
		for range flow.MaxTaps / 2 {
			running.Go(func() {
				if _, err := (previewService{d: d}).PreviewFlowLabels(ctx, in); status.Code(err) != codes.Canceled {
					t.Errorf("got %v, want canceled", err)
				}
			})
		}
		synctest.Wait()
		for range 2 * flow.MaxTaps { // refusals do not count
			if _, err := (previewService{d: d}).PreviewHTTPRequests(ctx, in); status.Code(err) != codes.ResourceExhausted {
				t.Fatalf("one more: got %v, want resource exhausted", err)
			}
		}
		if n := d.engine.Taps(); n != flow.MaxTaps/2 {
			t.Errorf("%d taps, want %d", n, flow.MaxTaps/2)
		}
		cancel()
		running.Wait()
		ctx, cancel = context.WithCancel(t.Context())
		running.Go(func() {
			if _, err := (previewService{d: d}).PreviewFlowLabels(ctx, in); status.Code(err) != codes.Canceled {
				t.Errorf("after the others: got %v, want canceled", err)
			}
		})
		synctest.Wait()
		cancel()
		running.Wait()
	})
}
