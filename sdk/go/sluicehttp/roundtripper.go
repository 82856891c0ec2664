// SPDX-License-Identifier: Apache-2.0

package sluicehttp

import (
	"io"
	"net/http"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

// RoundTripper asks for a flow at the control point before it sends a request with base, or with
// http.DefaultTransport if base is nil. A denied request is not sent: the error is a
// *sluice.DeniedError, which errors.As finds in what http.Client returns. The flow ends when the body of
// the response has been read to its end or closed; it has failed if the request did, or if the status
// is 500 or more. WithDenied has no effect.
func RoundTripper(client *sluice.Client, controlPoint string, base http.RoundTripper, opts ...Option) http.RoundTripper {
	if base == nil {
		base = http.DefaultTransport
	}
	return &transport{client, controlPoint, base, newSettings(opts)}
}

type transport struct {
	client       *sluice.Client
	controlPoint string
	base         http.RoundTripper
	settings     *settings
}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if t.settings.isIgnored(r) {
		return t.base.RoundTrip(r)
	}
	flow := t.client.StartFlow(r.Context(), t.controlPoint, t.settings.labels(r), t.settings.flow...)
	if err := flow.Denied(); err != nil {
		if r.Body != nil {
			_ = r.Body.Close() // a RoundTripper always closes it
		}
		return nil, err
	}
	status := sluice.StatusError // also when base panics
	ended := false
	defer func() {
		if !ended {
			flow.End(sluice.WithStatus(status))
		}
	}()
	resp, err := t.base.RoundTrip(r)
	if err != nil {
		return resp, err
	}
	if resp.StatusCode < http.StatusInternalServerError {
		status = sluice.StatusOK
	}
	if resp.Body == nil { // not from net/http, which always sets it
		return resp, nil
	}
	ended = true
	resp.Body = wrapBody(resp.Body, flow, status)
	return resp, nil
}

// body ends the flow of a response.
type body struct {
	io.ReadCloser
	flow   *sluice.Flow
	status sluice.Status
}

// duplexBody is the body of an upgraded connection, which can be written to.
type duplexBody struct {
	*body
	io.Writer
}

func wrapBody(b io.ReadCloser, flow *sluice.Flow, status sluice.Status) io.ReadCloser {
	wrapped := &body{b, flow, status}
	if w, ok := b.(io.Writer); ok {
		return duplexBody{wrapped, w}
	}
	return wrapped
}

// Read ends the flow at the end of the body.
func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch err {
	case nil:
	case io.EOF:
		b.flow.End(sluice.WithStatus(b.status))
	default:
		b.flow.End(sluice.WithStatus(sluice.StatusError))
	}
	return n, err
}

// Close ends the flow if reading has not.
func (b *body) Close() error {
	defer b.flow.End(sluice.WithStatus(b.status))
	return b.ReadCloser.Close()
}
