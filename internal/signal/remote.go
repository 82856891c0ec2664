// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	mostAnswer = 4 << 20 // bytes of an answer of the remote server
	attempts   = 3       // of one evaluation
	firstPause = 50 * time.Millisecond
)

// remote asks a server with the HTTP API of Prometheus.
type remote struct {
	config RemoteConfig
	url    string // for people: without a password
	ask    string // where queries go
	client *http.Client

	mu   sync.Mutex
	last error // of the last evaluation: why it did not answer
}

func newRemote(c RemoteConfig) *remote {
	transport := c.Transport
	if transport == nil {
		t := &http.Transport{
			Proxy: http.ProxyFromEnvironment, MaxIdleConns: 16, MaxIdleConnsPerHost: 16, MaxConnsPerHost: 16,
			IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second, ForceAttemptHTTP2: true,
		}
		transport = t
	}
	shown := c.URL
	if u, err := url.Parse(c.URL); err == nil {
		shown = u.Redacted()
	}
	return &remote{
		config: c, url: shown, ask: strings.TrimSuffix(c.URL, "/") + "/api/v1/query",
		client: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error {
			return errors.New("it answers with a redirect: set signals.remote_url to where it leads")
		}},
	}
}

// failure is why the server did not answer last time; nil when it did.
func (r *remote) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// evaluate implements evaluator. It tries again when the server is away or overloaded.
func (r *remote) evaluate(ctx context.Context, expr string, at time.Time) (answer, error) {
	pause := firstPause
	for attempt := 1; ; attempt++ {
		a, err := r.once(ctx, expr, at)
		kind := KindOf(err)
		if kind == KindUnreachable && attempt < attempts && ctx.Err() == nil {
			if sleep(ctx, pause) {
				pause *= 4
				continue
			}
		}
		r.mu.Lock()
		r.last = nil
		if kind == KindUnreachable || kind == KindTimeout {
			r.last = err
		}
		r.mu.Unlock()
		return a, err
	}
}

// sleep waits; false means that ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

func (r *remote) once(ctx context.Context, expr string, at time.Time) (answer, error) {
	form := url.Values{"query": {expr}, "time": {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)}}
	if deadline, ok := ctx.Deadline(); ok {
		form.Set("timeout", max(time.Until(deadline), time.Millisecond).Truncate(time.Millisecond).String())
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.ask, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, &Error{KindUnreachable, err.Error()}
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.Header.Set("Accept", "application/json")
	if r.config.BearerToken != "" {
		req.Header.Set("Authorization", "Bearer "+string(r.config.BearerToken))
	}
	for k, v := range r.config.Headers {
		req.Header.Set(k, v)
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return answer{}, r.away(ctx, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, mostAnswer+1))
	switch {
	case err != nil:
		return answer{}, r.away(ctx, err)
	case len(body) > mostAnswer:
		return answer{}, &Error{KindTooLarge, fmt.Sprintf("the answer of %s is larger than %d bytes", r.url, mostAnswer)}
	}
	return r.decode(resp, body)
}

// away is the error of a server that did not answer.
func (r *remote) away(ctx context.Context, err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // without the address, which may have a password
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &Error{KindTimeout, fmt.Sprintf("%s did not answer in time", r.url)}
	}
	return &Error{KindUnreachable, fmt.Sprintf("%s does not answer: %v", r.url, err)}
}

// remoteAnswer is the format of answers.
type remoteAnswer struct {
	Status    string `json:"status"`
	ErrorType string `json:"errorType"`
	Error     string `json:"error"`
	Data      struct {
		ResultType string          `json:"resultType"`
		Result     json.RawMessage `json:"result"`
	} `json:"data"`
}

// pair is a time and a number in quotes.
type pair struct{ value float64 }

// UnmarshalJSON implements json.Unmarshaler.
func (p *pair) UnmarshalJSON(b []byte) error {
	var both [2]json.RawMessage
	if err := json.Unmarshal(b, &both); err != nil {
		return err
	}
	var text string
	if err := json.Unmarshal(both[1], &text); err != nil {
		return err
	}
	v, err := strconv.ParseFloat(text, 64)
	p.value = v
	return err
}

type remoteElement struct {
	Metric    map[string]string `json:"metric"`
	Value     *pair             `json:"value"`
	Histogram json.RawMessage   `json:"histogram"`
}

func (r *remote) decode(resp *http.Response, body []byte) (answer, error) {
	var a remoteAnswer
	err := json.Unmarshal(body, &a)
	switch {
	case err == nil && a.Status == "error":
		return answer{}, r.refusal(resp.StatusCode, a)
	case resp.StatusCode == http.StatusUnauthorized, resp.StatusCode == http.StatusForbidden:
		return answer{}, &Error{KindUnreachable, fmt.Sprintf("%s refuses us with status %d: look at signals.remote_token", r.url, resp.StatusCode)}
	case err != nil || a.Status != "success":
		return answer{}, &Error{KindUnreachable, fmt.Sprintf("%s answers with status %d and not in the format of Prometheus: is signals.remote_url its base?", r.url, resp.StatusCode)}
	}
	switch a.Data.ResultType {
	case "scalar":
		var p pair
		if err := json.Unmarshal(a.Data.Result, &p); err != nil {
			return answer{}, &Error{KindUnreachable, fmt.Sprintf("the scalar of %s cannot be read: %v", r.url, err)}
		}
		return answer{scalar: true, elements: []element{{value: p.value}}}, nil
	case "vector":
		return r.vector(a.Data.Result)
	default:
		return answer{}, wrongType(a.Data.ResultType)
	}
}

func (r *remote) vector(raw json.RawMessage) (answer, error) {
	var list []remoteElement
	if err := json.Unmarshal(raw, &list); err != nil {
		return answer{}, &Error{KindUnreachable, fmt.Sprintf("the vector of %s cannot be read: %v", r.url, err)}
	}
	a := answer{elements: make([]element, len(list))}
	for i, e := range list {
		a.elements[i] = element{labels: func(name string) string { return e.Metric[name] }, histogram: e.Value == nil}
		if e.Value != nil {
			a.elements[i].value = e.Value.value
		}
	}
	return a, nil
}

// refusal sorts the errors that the server itself reports.
func (r *remote) refusal(status int, a remoteAnswer) error {
	text := fmt.Sprintf("%s answers: %s", r.url, a.Error)
	switch {
	case a.ErrorType == "timeout" || a.ErrorType == "canceled":
		return &Error{KindTimeout, text}
	case status == http.StatusTooManyRequests, status >= 500:
		return &Error{KindUnreachable, text}
	default:
		return &Error{KindInvalid, text}
	}
}
