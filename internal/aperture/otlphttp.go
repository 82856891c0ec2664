// SPDX-License-Identifier: Apache-2.0

package aperture

import (
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
)

// The encodings of OTLP over HTTP.
const (
	protobufType = "application/x-protobuf"
	jsonType     = "application/json"
)

// mostText bounds a batch without its compression.
const mostText = 16 << 20

// exportHTTP serves OTLP over HTTP.
func (d *Door) exportHTTP(kind export) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
		if err != nil || media != protobufType && media != jsonType {
			writeProblem(w, jsonType, http.StatusUnsupportedMediaType,
				fmt.Sprintf("content type %.60q, want %s or %s", r.Header.Get("Content-Type"), protobufType, jsonType))
			return
		}
		if err := d.records.enter(r.Context()); err != nil {
			w.Header().Set("Retry-After", "1")
			writeProblem(w, media, http.StatusServiceUnavailable, err.Error())
			return
		}
		defer d.records.leave()
		body, code, err := readBatch(w, r)
		if err != nil {
			writeProblem(w, media, code, err.Error())
			return
		}
		answer, err := kind(d, body, media == jsonType)
		if err != nil {
			writeProblem(w, media, http.StatusBadRequest, "the body is no batch of OTLP: "+err.Error())
			return
		}
		w.Header().Set("Content-Type", media)
		_, _ = w.Write(answer) // the client has gone
	})
}

// errTooLarge is a batch beyond the bounds.
var errTooLarge = fmt.Errorf("the body is larger than %d bytes, %d without compression: send smaller batches", mostBody, mostText)

// readBatch reads the body of a request, and says with which status it is refused.
func readBatch(w http.ResponseWriter, r *http.Request) (body []byte, code int, err error) {
	reader := http.MaxBytesReader(w, r.Body, mostBody)
	switch encoding := r.Header.Get("Content-Encoding"); encoding {
	case "", "identity":
		body, err = io.ReadAll(reader)
	case "gzip":
		body, err = unzip(reader)
	default:
		return nil, http.StatusUnsupportedMediaType, fmt.Errorf("content encoding %.20q, want gzip or none", encoding)
	}
	tooLarge := &http.MaxBytesError{}
	switch {
	case errors.As(err, &tooLarge), errors.Is(err, errTooLarge):
		return nil, http.StatusRequestEntityTooLarge, errTooLarge
	case err != nil:
		return nil, http.StatusBadRequest, fmt.Errorf("the body cannot be read: %w", err)
	}
	return body, 0, nil
}

// unzip reads a batch that was compressed, up to the bound.
func unzip(from io.Reader) ([]byte, error) {
	reader, err := gzip.NewReader(from)
	if err != nil {
		return nil, fmt.Errorf("it is no gzip: %w", err)
	}
	body, err := io.ReadAll(io.LimitReader(reader, mostText+1))
	if err == nil && len(body) > mostText {
		err = errTooLarge
	}
	return body, err
}

// writeProblem answers with a google.rpc.Status, in the encoding of the request.
func writeProblem(w http.ResponseWriter, media string, code int, text string) {
	w.Header().Set("Content-Type", media)
	w.WriteHeader(code)
	if media == jsonType {
		body, _ := json.Marshal(map[string]string{"message": text}) // strings can be written
		_, _ = w.Write(body)
		return
	}
	body := binary.AppendUvarint([]byte{0x12}, uint64(len(text))) // field 2 of google.rpc.Status
	_, _ = w.Write(append(body, text...))
}
