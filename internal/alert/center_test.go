// SPDX-License-Identifier: Apache-2.0

package alert

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// listener is a transport that answers by itself, so that time stays virtual.
type listener struct {
	answer func(r *http.Request) (*http.Response, error)

	mu       sync.Mutex
	requests []heard
}

type heard struct {
	at     time.Duration // since the begin of the bubble
	url    string
	header http.Header
	body   string
}

var bubbleBegin = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (l *listener) RoundTrip(r *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.requests = append(l.requests, heard{time.Since(bubbleBegin), r.URL.String(), r.Header.Clone(), string(body)})
	l.mu.Unlock()
	if l.answer != nil {
		return l.answer(r)
	}
	return reply(200, ""), nil
}

func (l *listener) heard() []heard {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.requests)
}

func reply(status int, body string) *http.Response {
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

// memory is a Store.
type memory struct {
	mu    sync.Mutex
	rows  map[int64]Alert
	saves int
	err   error
}

func (m *memory) SaveAlerts(_ context.Context, alerts []Alert, keep int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.saves++
	if m.err != nil {
		return m.err
	}
	if m.rows == nil {
		m.rows = map[int64]Alert{}
	}
	for _, a := range alerts {
		m.rows[a.ID] = a
	}
	over := slices.DeleteFunc(slices.Collect(maps.Values(m.rows)), func(a Alert) bool { return a.State == Firing })
	slices.SortFunc(over, func(a, b Alert) int { return a.End.Compare(b.End) })
	for len(m.rows) > keep && len(over) > 0 {
		delete(m.rows, over[0].ID)
		over = over[1:]
	}
	return nil
}

func (m *memory) LoadAlerts(context.Context) ([]Alert, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Collect(maps.Values(m.rows)), m.err
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memory) saved() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.saves
}

func (m *memory) get(id int64) Alert {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rows[id]
}

// start makes a center and runs it until stop.
func start(t *testing.T, config Config) (c *Center, stop func()) {
	t.Helper()
	c, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	return c, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	}
}

func all(t *testing.T, c *Center) []Alert {
	t.Helper()
	page, err := c.List(Filter{Size: MaxPageSize})
	if err != nil {
		t.Fatal(err)
	}
	return page.Alerts
}

func busy(policy string) Event {
	return Event{Name: "Too busy", Severity: Warn, Policy: policy, Component: "root.3", Labels: map[string]string{"team": "search"}}
}

var pager = Target{Name: "pager", Type: Webhook, URL: "http://pager.example/hook"}

// parsed reads the alerts of a webhook.
func parsed(t *testing.T, body string) message {
	t.Helper()
	var m message
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFiresAndResolves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		c, stop := start(t, Config{Targets: []Target{pager}, Transport: l, PolicyURL: func(p string) string { return "http://sluice.example/" + p }})
		defer stop()
		for range 10 { // raised at 0 s, 1 s … 9 s
			c.Raise(busy("p"))
			time.Sleep(time.Second)
		}
		labels := map[string]string{
			"alertname": "Too busy", "severity": "warn", "policy_name": "p", "component_id": "root.3", "type": "alerter", "team": "search",
		}
		want := Alert{
			ID: 1, Name: "Too busy", Severity: "warn", Policy: "p", Component: "root.3", State: Firing, Labels: labels,
			Start: bubbleBegin, Last: bubbleBegin.Add(9 * time.Second), ResolveTimeout: 5 * time.Second,
		}
		if diff := cmp.Diff([]Alert{want}, all(t, c)); diff != "" {
			t.Errorf("while it fires (-want +got):\n%s", diff)
		}
		time.Sleep(3999 * time.Millisecond)
		if got := all(t, c)[0].State; got != Firing {
			t.Errorf("1 ms before the timeout: got %s", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		want.State, want.End = Resolved, bubbleBegin.Add(14*time.Second)
		if diff := cmp.Diff([]Alert{want}, all(t, c)); diff != "" {
			t.Errorf("when it is over (-want +got):\n%s", diff)
		}
		got := l.heard()
		if len(got) != 2 || got[0].at != 0 || got[1].at != 14*time.Second {
			t.Fatalf("got requests %+v, want one when it fires and one when it is over", got)
		}
		end := want.End
		wantMessage := message{Version: "1", Text: "[RESOLVED, warn] Too busy: policy p, component root.3", Alerts: []messageAlert{{
			ID: "1", State: Resolved, Name: "Too busy", Severity: "warn", Policy: "p", Component: "root.3", Labels: labels,
			Channels: []string{}, StartTime: bubbleBegin, EndTime: &end, URL: "http://sluice.example/p",
		}}}
		if diff := cmp.Diff(wantMessage, parsed(t, got[1].body)); diff != "" {
			t.Errorf("webhook (-want +got):\n%s", diff)
		}
		if first := parsed(t, got[0].body); first.Alerts[0].EndTime != nil || first.Alerts[0].State != Firing {
			t.Errorf("first webhook: got %+v", first)
		}
		c.Raise(busy("p")) // again: a new alert
		if got := all(t, c); len(got) != 2 || got[0].ID != 2 || got[0].State != Firing || got[1].ID != 1 {
			t.Errorf("after it fired again: got %+v", got)
		}
	})
}

// TestTimesReadBack keeps times to what a store can keep, or a webhook sent again after a restart would differ.
func TestTimesReadBack(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ev := busy("p")
	ev.At = time.Unix(1, 123456789)
	c.Raise(ev)
	if got, want := all(t, c)[0], time.UnixMicro(1123456).UTC(); got.Start != want || got.Last != want {
		t.Errorf("got %v and %v, want %v", got.Start, got.Last, want)
	}
}

func TestTimeOfEventCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, Config{})
		defer stop()
		ev := busy("p")
		ev.At = time.Now().Add(-time.Minute) // a circuit may be late; the alert lasts from when it is told
		ev.ResolveTimeout = 2 * time.Second
		c.Raise(ev)
		time.Sleep(1999 * time.Millisecond)
		got := all(t, c)[0]
		if got.State != Firing || !got.Start.Equal(ev.At) || !got.Last.Equal(ev.At) {
			t.Errorf("got %+v", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := all(t, c)[0]; got.State != Resolved {
			t.Errorf("after the timeout: got %+v", got)
		}
	})
}

// TestSameAlert tells which events are one alert.
func TestSameAlert(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, Config{Targets: []Target{pager, {Name: "chat", Type: Webhook, URL: "http://chat.example", OnlyNamed: true}}, Transport: &listener{}})
		defer stop()
		base := busy("p")
		c.Raise(base)
		other := func(change func(*Event)) {
			ev := base
			ev.Labels = maps.Clone(base.Labels)
			change(&ev)
			c.Raise(ev)
		}
		other(func(*Event) {})
		other(func(e *Event) { e.ResolveTimeout = time.Hour })
		other(func(e *Event) { e.Channels = []string{"chat"} })
		if got := all(t, c); len(got) != 1 || !slices.Equal(got[0].Channels, []string{"chat"}) {
			t.Fatalf("got %+v, want one alert with the latest channels", got)
		}
		other(func(e *Event) { e.Name = "x" })
		other(func(e *Event) { e.Severity = Crit })
		other(func(e *Event) { e.Policy = "q" })
		other(func(e *Event) { e.Component = "root.4" })
		other(func(e *Event) { e.Labels["team"] = "maps" })
		other(func(e *Event) { e.Labels["more"] = "1" })
		other(func(e *Event) { e.Labels = nil })
		if got := all(t, c); len(got) != 8 {
			t.Errorf("got %d alerts, want 8", len(got))
		}
	})
}

func TestShorterTimeoutTakesEffect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, Config{})
		defer stop()
		ev := busy("p")
		ev.ResolveTimeout = time.Hour
		c.Raise(ev)
		time.Sleep(time.Second)
		ev.ResolveTimeout = 2 * time.Second
		c.Raise(ev)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		if got := all(t, c)[0]; got.State != Resolved {
			t.Errorf("got %+v", got)
		}
	})
}

func TestChannels(t *testing.T) {
	targets := []Target{
		{Name: "main", URL: "http://main"}, {Name: "db", URL: "http://db"}, {Name: "audit", URL: "http://audit", OnlyNamed: true},
	}
	for _, test := range []struct {
		channels []string
		want     []string
	}{
		{nil, []string{"main", "db"}},
		{[]string{"db"}, []string{"db"}},
		{[]string{"audit", "main"}, []string{"main", "audit"}},
		{[]string{"db", "misspelt"}, []string{"db"}},
		{[]string{"misspelt"}, []string{"main", "db"}},
	} {
		c, err := New(Config{Targets: targets})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, k := range c.couriersOf(test.channels) {
			got = append(got, k.target.Name)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("channels %q: got %q, want %q", test.channels, got, test.want)
		}
	}
}

func TestAlertmanagerIsReminded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		c, stop := start(t, Config{Transport: l, Targets: []Target{
			{Name: "am", URL: "https://am.example/base/", BearerToken: "tok"}, pager,
		}})
		ev := busy("p")
		ev.ResolveTimeout = 4 * time.Minute
		c.Raise(ev)
		time.Sleep(250 * time.Second) // over at 240 s
		stop()
		var at []time.Duration
		for _, h := range l.heard() {
			if strings.HasPrefix(h.url, "http://pager") {
				continue
			}
			at = append(at, h.at)
			if h.url != "https://am.example/base/api/v2/alerts" || h.header.Get("Authorization") != "Bearer tok" {
				t.Errorf("got a request to %s with %q", h.url, h.header)
			}
			var got []postable
			if err := json.Unmarshal([]byte(h.body), &got); err != nil || len(got) != 1 {
				t.Fatalf("%v: %s", err, h.body)
			}
			end := bubbleBegin.Add(h.at + 4*time.Minute)
			if h.at == 240*time.Second {
				end = bubbleBegin.Add(240 * time.Second)
			}
			if !got[0].StartsAt.Equal(bubbleBegin) || !got[0].EndsAt.Equal(end) {
				t.Errorf("at %v: got from %v to %v, want to %v", h.at, got[0].StartsAt, got[0].EndsAt, end)
			}
		}
		want := []time.Duration{0, 60 * time.Second, 120 * time.Second, 180 * time.Second, 240 * time.Second}
		if diff := cmp.Diff(want, at); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if n := len(l.heard()) - len(at); n != 2 {
			t.Errorf("the webhook was told %d times, want 2", n)
		}
	})
}

func TestDeadTargetDelaysNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log strings.Builder
		down := errors.New("connection refused")
		l := &listener{answer: func(r *http.Request) (*http.Response, error) {
			switch r.URL.Host {
			case "slow":
				<-r.Context().Done() // never answers
				return nil, r.Context().Err()
			case "dead":
				return nil, down
			}
			return reply(200, ""), nil
		}}
		c, stop := start(t, Config{Transport: l, Logger: slog.New(slog.NewTextHandler(&log, nil)), Targets: []Target{
			{Name: "slow", URL: "http://slow", BearerToken: "sesame-token"},
			{Name: "dead", Type: Webhook, URL: "http://dead/services/T0/B0/secretpath", SigningKey: "signing-secret"},
			pager,
		}})
		ev := busy("p")
		ev.ResolveTimeout = time.Hour
		c.Raise(ev)
		time.Sleep(11 * time.Second)
		var pagerAt []time.Duration
		dead := 0
		for _, h := range l.heard() {
			switch {
			case strings.HasPrefix(h.url, "http://pager"):
				pagerAt = append(pagerAt, h.at)
			case strings.HasPrefix(h.url, "http://dead"):
				dead++
			}
		}
		if !slices.Equal(pagerAt, []time.Duration{0}) {
			t.Errorf("the good target heard at %v, want at once", pagerAt)
		}
		if dead < 4 || dead > 6 { // after 1, 2, 4 … s, less up to a quarter
			t.Errorf("the dead target was tried %d times in 11 s", dead)
		}
		got := all(t, c)[0].DeliveryError
		for _, want := range []string{"slow: ", "dead: connection refused"} {
			if !strings.Contains(got, want) {
				t.Errorf("delivery error: got %q, want it to say %q", got, want)
			}
		}
		if strings.Contains(got, "pager") {
			t.Errorf("delivery error: got %q", got)
		}
		stop()
		for _, secret := range []string{"sesame", "secretpath", "signing-secret"} {
			if strings.Contains(log.String(), secret) || strings.Contains(got, secret) {
				t.Errorf("%s was shown: %s %s", secret, log.String(), got)
			}
		}
		if n := strings.Count(log.String(), "cannot deliver"); n != 2 {
			t.Errorf("got %d lines of log, want one for each target:\n%s", n, log.String())
		}
	})
}

// TestLateDelivery brings a target back: it learns the latest state, each once.
func TestLateDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var up atomic.Bool
		l := &listener{answer: func(*http.Request) (*http.Response, error) {
			if up.Load() {
				return reply(200, ""), nil
			}
			return reply(503, "<html>\nbusy\x00\x1b[31m</html>"), nil
		}}
		c, stop := start(t, Config{Transport: l, Targets: []Target{pager}})
		defer stop()
		long := busy("q")
		long.ResolveTimeout = time.Hour
		c.Raise(busy("p")) // over at 5 s
		c.Raise(long)
		time.Sleep(10 * time.Second)
		if got := all(t, c)[0].DeliveryError; got != `pager: it answered 503 Service Unavailable ("<html> busy [31m</html>")` {
			t.Errorf("delivery error: got %q", got)
		}
		up.Store(true)
		before := len(l.heard())
		time.Sleep(30 * time.Second)
		got := l.heard()[before:]
		if len(got) != 1 {
			t.Fatalf("got %d requests when it was back, want 1", len(got))
		}
		states := map[string]State{}
		for _, a := range parsed(t, got[0].body).Alerts {
			states[a.Policy] = a.State
		}
		if diff := cmp.Diff(map[string]State{"p": Resolved, "q": Firing}, states); diff != "" {
			t.Errorf("what it learned (-want +got):\n%s", diff)
		}
		for _, a := range all(t, c) {
			if a.DeliveryError != "" || len(a.Pending) > 0 {
				t.Errorf("got %+v", a)
			}
		}
	})
}

// TestChangeDuringDelivery resolves an alert while it is being sent: the target hears of both.
func TestChangeDuringDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{answer: func(*http.Request) (*http.Response, error) {
			time.Sleep(7 * time.Second)
			return reply(200, ""), nil
		}}
		c, stop := start(t, Config{Transport: l, Targets: []Target{pager}})
		defer stop()
		c.Raise(busy("p")) // over at 5 s, while the target thinks
		time.Sleep(20 * time.Second)
		var got []State
		for _, h := range l.heard() {
			got = append(got, parsed(t, h.body).Alerts[0].State)
		}
		if !slices.Equal(got, []State{Firing, Resolved}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestAnswersThatDecide(t *testing.T) {
	for _, test := range []struct {
		status int
		final  bool
		words  string
	}{
		{400, true, "400 Bad Request"},
		{413, true, "413"},
		{422, true, "422"},
		{401, false, "check bearer_token"},
		{404, false, "check the url"},
		{307, false, "do not follow redirects"},
		{302, false, "do not follow redirects"},
		{429, false, "429"},
		{500, false, "500"},
	} {
		t.Run(fmt.Sprint(test.status), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &listener{answer: func(*http.Request) (*http.Response, error) {
					r := reply(test.status, "")
					r.Header.Set("Location", "http://elsewhere.example")
					return r, nil
				}}
				c, stop := start(t, Config{Transport: l, Targets: []Target{pager}})
				defer stop()
				ev := busy("p")
				ev.ResolveTimeout = time.Hour
				c.Raise(ev)
				time.Sleep(time.Minute)
				if once := len(l.heard()) == 1; once != test.final {
					t.Errorf("got %d requests, want only one: %v", len(l.heard()), test.final)
				}
				a := all(t, c)[0]
				if !strings.Contains(a.DeliveryError, test.words) || (len(a.Pending) == 0) != test.final {
					t.Errorf("got error %q, pending %q, want it to say %q", a.DeliveryError, a.Pending, test.words)
				}
				for _, h := range l.heard() {
					if strings.Contains(h.url, "elsewhere") {
						t.Error("followed a redirect")
					}
				}
			})
		})
	}
}

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{answer: func(*http.Request) (*http.Response, error) {
			r := reply(429, "")
			r.Header.Set("Retry-After", "100")
			return r, nil
		}}
		c, stop := start(t, Config{Transport: l, Targets: []Target{pager}})
		defer stop()
		ev := busy("p")
		ev.ResolveTimeout = time.Hour
		c.Raise(ev)
		time.Sleep(250 * time.Second)
		if got := l.heard(); len(got) != 3 || got[1].at != 100*time.Second {
			t.Errorf("got %d requests, want 3, 100 s apart", len(got))
		}
	})
	for value, want := range map[string]time.Duration{
		"": 0, "x": 0, "-5": 0, "7": 7 * time.Second, "999999999999": longestPause, "Wed, 21 Oct 2026 07:28:00 GMT": 0,
	} {
		if got := retryAfter(http.Header{"Retry-After": {value}}); got != want {
			t.Errorf("%q: got %v, want %v", value, got, want)
		}
	}
}

func TestFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{answer: func(*http.Request) (*http.Response, error) { return nil, errors.New("down") }}
		store := &memory{}
		c, stop := start(t, Config{Transport: l, Targets: []Target{pager}, Store: store, Keep: 1000, QueueSize: 100})
		for i := range 10_000 {
			ev := busy(fmt.Sprint("p", i))
			ev.ResolveTimeout = time.Minute
			c.Raise(ev)
		}
		c.mu.Lock()
		if len(c.due) != 1000 || c.counts.refused != 9000 || c.couriers[0].queue.Len() != 100 || c.couriers[0].dropped != 900 {
			t.Errorf("got %d firing, %d refused, %d waiting, %d dropped", len(c.due), c.counts.refused, c.couriers[0].queue.Len(), c.couriers[0].dropped)
		}
		c.mu.Unlock()
		got := all(t, c)
		if !strings.Contains(got[999].DeliveryError, "given up because 100 others waited") {
			t.Errorf("the oldest: got delivery error %q", got[999].DeliveryError)
		}
		time.Sleep(2 * time.Minute) // all over
		for i := range 500 {
			c.Raise(busy(fmt.Sprint("new", i)))
		}
		if got := all(t, c); len(got) != 1000 || got[0].ID != 1500 || got[499].State != Firing || got[500].State != Resolved {
			t.Errorf("got %d alerts, want the 500 new ones to take the room of resolved ones", len(got))
		}
		stop()
		if len(store.rows) != 1000 {
			t.Errorf("stored %d, want 1000", len(store.rows))
		}
	})
}

func TestBatches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &listener{}
		c, stop := start(t, Config{Transport: l, Targets: []Target{pager}})
		defer stop()
		for i := range 1000 {
			c.Raise(busy(fmt.Sprint("p", i)))
		}
		synctest.Wait()
		seen := map[string]int{}
		for _, h := range l.heard() {
			m := parsed(t, h.body)
			if len(m.Alerts) > batchSize {
				t.Errorf("got a batch of %d", len(m.Alerts))
			}
			for _, a := range m.Alerts {
				seen[a.ID]++
			}
		}
		if len(seen) != 1000 {
			t.Errorf("%d alerts arrived, want 1000", len(seen))
		}
	})
}

func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		am, l := Target{Name: "am", URL: "http://am"}, &listener{}
		var down atomic.Bool
		down.Store(true)
		l.answer = func(r *http.Request) (*http.Response, error) {
			if r.URL.Host == "pager.example" && down.Load() {
				return nil, errors.New("down")
			}
			return reply(200, ""), nil
		}
		config := Config{Transport: l, Targets: []Target{am, pager}, Store: store}
		c, stop := start(t, config)
		c.Raise(busy("short")) // over at 5 s
		time.Sleep(10 * time.Second)
		for _, p := range []string{"goes on", "is over"} {
			c.Raise(busy(p))
		}
		stop()
		if got := store.get(1); got.State != Resolved || !slices.Equal(got.Pending, []string{"pager"}) {
			t.Errorf("stored: got %+v", got)
		}

		time.Sleep(time.Hour)
		down.Store(false)
		before := len(l.heard())
		c, stop = start(t, config)
		defer stop()
		synctest.Wait()
		told := map[string]string{}
		for _, h := range l.heard()[before:] {
			for _, who := range []string{"short", "goes on", "is over"} {
				if strings.Contains(h.body, fmt.Sprintf("%q", who)) {
					told[who] += strings.Split(h.url, "/")[2] + " "
				}
			}
		}
		for who, want := range map[string][]string{ // those it did not know of, and for Alertmanagers all that fires
			"short": {"pager.example"}, "goes on": {"am", "pager.example"}, "is over": {"am", "pager.example"},
		} {
			got := strings.Fields(told[who])
			slices.Sort(got)
			if !slices.Equal(got, want) {
				t.Errorf("%s: told to %q after the restart, want %q", who, got, want)
			}
		}
		ticks := time.NewTicker(time.Second)
		defer ticks.Stop()
		for range 40 {
			c.Raise(busy("goes on"))
			<-ticks.C
			if got := all(t, c); len(got) != 3 {
				t.Fatalf("got %+v", got)
			}
		}
		got := all(t, c) // 3 is over, 2 goes on, 1 short
		restart := bubbleBegin.Add(10*time.Second + time.Hour)
		if got[0].State != Resolved || !got[0].End.Equal(restart.Add(RestartGrace)) {
			t.Errorf("what is over: got %+v", got[0])
		}
		if got[1].State != Firing || got[1].ID != 2 || !got[1].Start.Equal(bubbleBegin.Add(10*time.Second)) {
			t.Errorf("what goes on: got %+v", got[1])
		}
		c.Raise(busy("new"))
		if got := all(t, c)[0]; got.ID != 4 {
			t.Errorf("a new alert: got %+v, want ID 4", got)
		}
	})
}

func TestHistoryThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{err: errors.New("disk full")}
		c, err := New(Config{Store: store})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "disk full") {
			t.Errorf("load: got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- c.Run(ctx) }()
		c.Raise(busy("p"))
		time.Sleep(10 * time.Minute)
		if n := store.saved(); n < 5 || n > 20 {
			t.Errorf("tried %d times in 10 minutes", n)
		}
		store.fail(nil)
		time.Sleep(time.Minute)
		if got := store.get(1); got.State != Resolved {
			t.Errorf("got %+v, want it saved", got)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestSavesSeldom lets alerts come and go: the disk is left alone.
func TestSavesSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &memory{}
		c, stop := start(t, Config{Store: store, Transport: &listener{}, Targets: []Target{{Name: "am", URL: "http://am"}}})
		ev := busy("long")
		ev.ResolveTimeout = time.Hour
		for i := range 100 {
			ev := busy(fmt.Sprint("p", i))
			c.Raise(ev)
			time.Sleep(100 * time.Millisecond)
		}
		c.Raise(ev)
		time.Sleep(time.Minute)
		before := store.saved()
		if before > 25 {
			t.Errorf("saved %d times in 15 s of changes", before)
		}
		for range 600 {
			c.Raise(ev)
			time.Sleep(time.Second)
		}
		if n := store.saved() - before; n != 0 {
			t.Errorf("saved %d times although nothing changed", n)
		}
		stop()
	})
}

func TestList(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 250 {
		ev := busy([]string{"a", "b"}[i%2])
		ev.Component = fmt.Sprint("root.", i)
		c.Raise(ev)
	}
	var ids []int64
	f := Filter{Policy: "a", State: Firing, Size: 40}
	for {
		page, err := c.List(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range page.Alerts {
			ids = append(ids, a.ID)
		}
		c.Raise(Event{Name: "new", Policy: "a", Component: fmt.Sprint(len(ids))}) // does not shift pages
		if f.Token = page.Next; f.Token == "" {
			break
		}
	}
	var want []int64
	for id := int64(249); id > 0; id -= 2 {
		want = append(want, id)
	}
	if !slices.Equal(ids, want) {
		t.Errorf("got %v", ids)
	}
	if page, err := c.List(Filter{State: Resolved}); err != nil || len(page.Alerts) != 0 {
		t.Errorf("resolved: got %v, %v", page, err)
	}
	if page, err := c.List(Filter{}); err != nil || len(page.Alerts) != DefaultPageSize {
		t.Errorf("default size: got %d, %v", len(page.Alerts), err)
	}
	page, _ := c.List(Filter{Size: 1})
	page.Alerts[0].Labels["alertname"] = "changed"
	if again, _ := c.List(Filter{Size: 1}); again.Alerts[0].Labels["alertname"] == "changed" {
		t.Error("the page shares labels with the center")
	}
	for field, bad := range map[string]Filter{
		"state": {State: "on"}, "page_size": {Size: -1}, "page_token": {Token: "zzz"},
	} {
		_, err := c.List(bad)
		if a, ok := errors.AsType[*ArgumentError](err); !ok || a.Field != field {
			t.Errorf("%+v: got %v", bad, err)
		}
	}
	for _, token := range []string{token(0), token(-1), "MQ==", "MQ\n", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5"} {
		if _, err := c.List(Filter{Token: token}); err == nil {
			t.Errorf("token %q: got no error", token)
		}
	}
}

func TestRaiseDoesNotAllocateWhileFiring(t *testing.T) {
	c, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ev := busy("p")
	ev.Channels = []string{"a", "b"}
	ev.At = time.Now()
	c.Raise(ev)
	if n := testing.AllocsPerRun(100, func() { c.Raise(ev) }); n != 0 {
		t.Errorf("got %v allocations, want 0", n)
	}
}

func TestRaiseFromManySides(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, stop := start(t, Config{Transport: &listener{}, Targets: []Target{pager, {Name: "am", URL: "http://am"}}, Store: &memory{}})
		var sides sync.WaitGroup
		for side := range 8 {
			sides.Go(func() {
				for i := range 200 {
					ev := busy(fmt.Sprint((side + i) % 10))
					ev.ResolveTimeout = time.Duration(1+i%3) * time.Millisecond
					c.Raise(ev)
					if i%10 == 0 {
						all(t, c)
						time.Sleep(time.Duration(side+1) * time.Millisecond)
					}
				}
			})
		}
		sides.Wait()
		time.Sleep(time.Minute)
		stop()
		c.mu.Lock()
		defer c.mu.Unlock()
		if len(c.due)+len(c.byLabels)+len(c.firing) != 0 || c.couriers[0].queue.Len() != 0 {
			t.Errorf("left over: %d due, %d by labels, %d by hash", len(c.due), len(c.byLabels), len(c.firing))
		}
	})
}

func BenchmarkRaise(b *testing.B) {
	c, err := New(Config{})
	if err != nil {
		b.Fatal(err)
	}
	ev := busy("p")
	ev.At = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		c.Raise(ev)
	}
}
