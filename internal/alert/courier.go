// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"bytes"
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/sluice-project/sluice/internal/version"
)

// How targets are told.
const (
	// batchSize is how many alerts one request carries at most; what Prometheus sends, too, is 64.
	batchSize = 64
	// sendTimeout bounds a request. An Alertmanager answers in milliseconds.
	sendTimeout = 10 * time.Second
	// firstPause follows the first failure; it doubles up to lastPause. A target that is back hears of it
	// within lastPause.
	firstPause = time.Second
	lastPause  = 30 * time.Second
	// longestPause bounds what a target may ask for with Retry-After.
	longestPause = 5 * time.Minute
	// maxAge is when nobody wants to hear of a resolved alert any more.
	maxAge = 24 * time.Hour
)

// courier tells one target. Its goroutine is the only one that sends.
type courier struct {
	center *Center
	target Target
	client *http.Client
	// encode makes the request for some alerts, at least one, at a time.
	encode func(ctx context.Context, alerts []Alert, now time.Time) (*http.Request, error)
	agent  string        // the User-Agent of requests
	wake   chan struct{} // the queue is no longer empty; capacity 1

	// Guarded by center.mu:
	queue                      list.List // of *delivery, the one that waits longest in front
	failing                    string    // why the last request failed; empty: it did not
	delivered, failed, dropped uint64    // alerts
}

func newCourier(c *Center, t Target) *courier {
	k := &courier{center: c, target: t, agent: "sluice/" + version.Get().Version, wake: make(chan struct{}, 1)}
	k.client = &http.Client{
		Transport: c.config.Transport, Timeout: sendTimeout,
		// Following would turn the POST into a GET, or carry signed alerts and tokens somewhere else.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	k.encode = k.encodeAlertmanager
	if t.kind() == Webhook {
		k.encode = k.encodeWebhook
	}
	return k
}

// resends reports whether the target forgets alerts it is not reminded of.
func (k *courier) resends() bool { return k.target.kind() == Alertmanager }

// enqueue has a delivery wait for its courier, at most once. The caller holds c.mu.
func (c *Center) enqueue(d *delivery) {
	k := d.courier
	if d.element != nil {
		return // it waits already, and the state is read when it is sent
	}
	if k.queue.Len() >= c.config.QueueSize {
		c.drop(k.queue.Front().Value.(*delivery), fmt.Sprintf("given up because %d others waited, too", c.config.QueueSize))
	}
	d.element = k.queue.PushBack(d)
	signal(k.wake)
}

// drop gives a waiting delivery up.
func (c *Center) drop(d *delivery, why string) {
	d.courier.dropped++
	d.courier.queue.Remove(d.element)
	d.element = nil
	if d.told != d.record.version {
		d.problem = why
		c.touch(d.record)
	}
}

// parcel is an alert as it is sent.
type parcel struct {
	delivery *delivery
	version  uint64
	alert    Alert
}

// take copies what to send next; it stays in the queue until settle.
func (k *courier) take(now time.Time) []parcel {
	c := k.center
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []parcel
	for e := k.queue.Front(); e != nil && len(out) < batchSize; {
		d := e.Value.(*delivery)
		e = e.Next()
		if r := d.record; r.alert.State == Resolved && now.Sub(r.alert.End) > maxAge {
			c.drop(d, fmt.Sprintf("given up after %s", maxAge))
			continue
		}
		out = append(out, parcel{d, d.record.version, d.record.alert})
	}
	return out
}

// run tells the target until ctx ends.
func (k *courier) run(ctx context.Context) {
	failures := 0
	for {
		batch := k.take(time.Now())
		if len(batch) == 0 {
			select {
			case <-ctx.Done():
				return
			case <-k.wake:
			}
			continue
		}
		alerts := make([]Alert, len(batch))
		for i, p := range batch {
			alerts[i] = p.alert
		}
		err := k.send(ctx, alerts)
		if ctx.Err() != nil {
			return // nobody's fault; after a restart they are sent again
		}
		k.settle(batch, err)
		if err == nil || isFinal(err) {
			failures = 0
			continue
		}
		failures++
		if !sleep(ctx, pause(failures, err)) {
			return
		}
	}
}

// pause is how long to wait after so many failures in a row, at least 1. A random part keeps servers that
// lost the same target apart.
func pause(failures int, err error) time.Duration {
	d := min(lastPause, firstPause<<min(failures-1, 10))
	d -= rand.N(d / 4)
	if a, ok := errors.AsType[*answerError](err); ok {
		d = max(d, min(a.retryAfter, longestPause))
	}
	return d
}

// settle notes what became of a batch.
func (k *courier) settle(batch []parcel, err error) {
	problem := k.describe(err)
	c := k.center
	c.mu.Lock()
	before := k.failing
	k.failing = problem
	for _, p := range batch {
		d := p.delivery
		if err != nil && d.element == nil {
			continue // given up meanwhile
		}
		learned := err == nil && d.told != p.version
		if learned {
			d.told = p.version
		}
		if learned || d.problem != problem && d.told != d.record.version {
			c.touch(d.record)
		}
		d.problem = problem
		done := (err == nil || isFinal(err)) && d.record.version == p.version
		if done && d.element != nil {
			k.queue.Remove(d.element)
			d.element = nil
		}
	}
	k.count(len(batch), err)
	c.mu.Unlock()
	switch {
	case err != nil && before == "":
		k.center.log.Warn("cannot deliver alerts", "target", k.target, "error", problem, "tries_again", !isFinal(err))
	case err == nil && before != "":
		k.center.log.Info("delivers alerts again", "target", k.target)
	}
}

func (k *courier) count(alerts int, err error) {
	switch {
	case err == nil:
		k.delivered += uint64(alerts)
	case isFinal(err):
		k.dropped += uint64(alerts)
		k.failed += uint64(alerts)
	default:
		k.failed += uint64(alerts)
	}
}

// answerError is an answer that is not a success.
type answerError struct {
	status     int
	text       string // start of the body, or where a redirect points
	retryAfter time.Duration
}

// Error implements error.
func (e *answerError) Error() string {
	text := "it answered " + strconv.Itoa(e.status)
	if name := http.StatusText(e.status); name != "" {
		text += " " + name
	}
	switch {
	case e.status/100 == 3:
		text += ", and alerts do not follow redirects: configure the address that is meant"
	case e.status == http.StatusUnauthorized || e.status == http.StatusForbidden:
		text += ": check bearer_token and signing_key of the target"
	case e.status == http.StatusNotFound:
		text += ": check the url of the target"
	}
	if e.text != "" {
		text += fmt.Sprintf(" (%q)", e.text)
	}
	return text
}

// isFinal reports whether sending the same again is pointless. Answers that a change of the target's
// settings can mend, such as 401 and 404, are not: operators mend them.
func isFinal(err error) bool {
	a, ok := errors.AsType[*answerError](err)
	return ok && slices.Contains([]int{
		http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity,
	}, a.status)
}

// send makes one request.
func (k *courier) send(ctx context.Context, alerts []Alert) error {
	req, err := k.encode(ctx, alerts, time.Now())
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", k.agent)
	if k.target.BearerToken != "" {
		req.Header.Set("Authorization", "Bearer "+k.target.BearerToken)
	}
	resp, err := k.client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err // without the address, which may contain a secret
		}
		return err
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 512)) // what is read keeps the connection usable
	if resp.StatusCode/100 == 2 {
		_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
		return nil
	}
	return &answerError{resp.StatusCode, oneLine(text), retryAfter(resp.Header)}
}

func post(ctx context.Context, url string, body []byte) (*http.Request, error) {
	return http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
}

// retryAfter reads the header in its form with seconds; 0: not there, or a date, which clocks disagree on.
func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(longestPause/time.Second))) * time.Second
}

// oneLine makes text of a stranger fit for a log line.
func oneLine(text []byte) string {
	fields := strings.FieldsFunc(strings.ToValidUTF8(string(text), ""), func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) })
	line := strings.Join(fields, " ")
	if len(line) > 200 {
		line = cut(line, 200) + "…"
	}
	return line
}

// describe is the text of an error without secrets; empty for nil.
func (k *courier) describe(err error) string {
	if err == nil {
		return ""
	}
	text := err.Error()
	for _, secret := range k.target.secrets() {
		text = strings.ReplaceAll(text, secret, "***")
	}
	return text
}

// sleep waits, and reports whether ctx has not ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
