// SPDX-License-Identifier: Apache-2.0

package sluicehttp

import (
	"bufio"
	"io"
	"net"
	"net/http"
)

// recorder notes the status of a response. It passes on what handlers do to a ResponseWriter, through
// http.ResponseController (Unwrap) and through the older interfaces; where the writer below cannot do
// it, Flush does nothing and Hijack fails with http.ErrNotSupported.
type recorder struct {
	http.ResponseWriter
	status int // 0: not written yet
}

var (
	_ http.Flusher  = (*recorder)(nil)
	_ http.Hijacker = (*recorder)(nil)
	_ io.ReaderFrom = (*recorder)(nil)
)

// Unwrap serves http.ResponseController.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// WriteHeader notes the first final status; informational ones (1xx) come before it.
func (r *recorder) WriteHeader(status int) {
	if r.status == 0 && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

// Write writes the body.
func (r *recorder) Write(p []byte) (int, error) {
	r.wrote()
	return r.ResponseWriter.Write(p)
}

// ReadFrom keeps sendfile working.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	r.wrote()
	return io.Copy(r.ResponseWriter, src)
}

// Flush sends what is buffered.
func (r *recorder) Flush() {
	r.wrote()
	_ = http.NewResponseController(r.ResponseWriter).Flush() // Flusher cannot report an error
}

// Hijack takes over the connection.
func (r *recorder) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return http.NewResponseController(r.ResponseWriter).Hijack()
}

func (r *recorder) wrote() {
	if r.status == 0 {
		r.status = http.StatusOK
	}
}
