// SPDX-License-Identifier: Apache-2.0

package promapi

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/klauspost/compress/snappy"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/sluice-project/sluice/internal/batch"
)

// A megabyte on the wire that would be gigabytes in memory, or a stack that ends the process.
func TestBatchesThatAreLargeInMemory(t *testing.T) {
	h := open(t)
	empty := bytes.Repeat([]byte{0x0a, 0}, 15<<20)
	inSeries := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), empty)
	var deep []byte
	for range batch.MaxLevels + 10 {
		deep = protowire.AppendBytes([]byte{0x0a}, deep)
	}
	for name, body := range map[string][]byte{"series": empty, "labels": inSeries, "levels": deep} {
		for _, kind := range []string{"application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request"} {
			r := httptest.NewRequest(http.MethodPost, "/api/v1/write", bytes.NewReader(snappy.Encode(nil, body)))
			r.Header.Set("Content-Type", kind)
			r.Header.Set("Content-Encoding", "snappy")
			if w := send(h, r); w.Code != http.StatusBadRequest || !strings.Contains(w.Body.String(), "more than") {
				t.Errorf("%s as %s: %d %s", name, kind, w.Code, w.Body)
			}
		}
		if code, text := otlpZipped(t, h, batch.Protobuf, body); code != http.StatusBadRequest || !strings.Contains(text, "more than") {
			t.Errorf("%s as OTLP: %d %s", name, code, text)
		}
	}
	list := `{"resourceMetrics":[{}` + strings.Repeat(",{}", 10<<20) + "]}"
	if code, text := otlpZipped(t, h, batch.JSON, []byte(list)); code != http.StatusBadRequest || !strings.Contains(text, "more than") {
		t.Errorf("JSON: %d %s", code, text)
	}
}

func otlpZipped(t *testing.T, h http.Handler, kind string, body []byte) (int, string) {
	t.Helper()
	var zipped bytes.Buffer
	z, err := gzip.NewWriterLevel(&zipped, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := z.Write(body); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequest(http.MethodPost, "/v1/metrics", &zipped)
	r.Header.Set("Content-Type", kind)
	r.Header.Set("Content-Encoding", "gzip")
	w := send(h, r)
	return w.Code, w.Body.String()
}
