// SPDX-License-Identifier: Apache-2.0

package batch

import (
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// The encodings of OTLP over HTTP.
const (
	Protobuf = "application/x-protobuf"
	JSON     = "application/json"
)

// Sizes bound one batch, in bytes: as it is sent, and without its compression.
type Sizes struct{ Sent, Text int64 }

// Read reads the body of a request that carries a batch, and says with which status it is refused.
func (s Sizes) Read(w http.ResponseWriter, r *http.Request) (body []byte, code int, err error) {
	var reader io.Reader = http.MaxBytesReader(w, r.Body, s.Sent)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
	case "gzip":
		if reader, err = gzip.NewReader(reader); err != nil {
			return nil, http.StatusBadRequest, fmt.Errorf("the body is no gzip: %w", err)
		}
	default:
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("content encoding %.60q, want gzip or none", encoding)
	}
	body, err = io.ReadAll(io.LimitReader(reader, s.Text+1))
	tooLarge := &http.MaxBytesError{}
	switch {
	case errors.As(err, &tooLarge), int64(len(body)) > s.Text:
		return nil, http.StatusRequestEntityTooLarge,
			fmt.Errorf("the body is larger than %d bytes, %d without compression: send smaller batches", s.Sent, s.Text)
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("the body cannot be read: %w", err)
	}
	return body, 0, nil
}

// Refuse answers with a google.rpc.Status, in the encoding of the request.
func Refuse(w http.ResponseWriter, encoding string, code int, text string) {
	w.Header().Set("Content-Type", encoding)
	w.WriteHeader(code)
	if encoding == JSON {
		body, _ := json.Marshal(map[string]string{"message": text}) // strings can be written
		_, _ = w.Write(body)
		return
	}
	body := binary.AppendUvarint([]byte{0x12}, uint64(len(text))) // field 2 of google.rpc.Status
	_, _ = w.Write(append(body, text...))
}
