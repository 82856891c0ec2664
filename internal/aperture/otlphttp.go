// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"fmt"
	"mime"
	"net/http"

	"github.com/sluice-project/sluice/internal/batch"
)

// batchSizes bound one batch.
var batchSizes = batch.Sizes{Sent: mostBody, Text: 16 << 20}

// exportHTTP serves OTLP over HTTP.
func (d *Door) exportHTTP(kind export) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || media != batch.Protobuf && media != batch.JSON {
			batch.Refuse(w, batch.JSON, http.StatusUnsupportedMediaType,
				fmt.Sprintf("content type %.60q, want %s or %s", r.Header.Get("Content-Type"), batch.Protobuf, batch.JSON))
			return
		}
		if err := d.records.enter(r.Context()); err != nil {
			w.Header().Set("Retry-After", "1")
			batch.Refuse(w, media, http.StatusServiceUnavailable, err.Error())
			return
		}
		defer d.records.leave()
		body, code, err := batchSizes.Read(w, r)
		if err != nil {
			batch.Refuse(w, media, code, err.Error())
			return
		}
		answer, err := kind(d, body, media == batch.JSON)
		if err != nil {
			batch.Refuse(w, media, http.StatusBadRequest, "the body is no batch of OTLP: "+err.Error())
			return
		}
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(answer) // the client has gone
	})
}
