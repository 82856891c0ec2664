// SPDX-License-Identifier: Apache-2.0

package signal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"
)

// fakes are queries that take their time: the text is what they do.
type fakes struct{ running, most atomic.Int64 }

func (f *fakes) evaluate(ctx context.Context, expr string, _ time.Time) (answer, error) {
	if n := f.running.Add(1); n > f.most.Load() {
		f.most.Store(n)
	}
	defer f.running.Add(-1)
	var d time.Duration
	if _, after, ok := strings.Cut(expr, "slow_"); ok {
		d, _ = time.ParseDuration(after)
	}
	if !sleep(ctx, d) {
		return answer{}, ctx.Err()
	}
	if strings.HasPrefix(expr, "empty") {
		return answer{}, nil
	}
	if strings.HasPrefix(expr, "bad") {
		return answer{}, &Error{KindInvalid, "bad"}
	}
	return answer{scalar: true, elements: []element{{value: 1}}}, nil
}

// newBoardOf is a service whose queries are fakes.
func newBoardOf(t *testing.T, f *fakes) *Service {
	s := &Service{config: DefaultConfig(), metrics: newMetrics()}
	s.board = newBoard(t.Context(), s.config, s.metrics, f.evaluate)
	t.Cleanup(s.board.close)
	return s
}

func TestALateAnswerComesLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBoardOf(t, &fakes{})
		slow, quick := subscribe(t, s, `slow_2500ms`, time.Second), subscribe(t, s, `quick`, time.Second)
		begin := time.Now()
		if late := s.Step(t.Context(), begin, 200*time.Millisecond); late != 1 || time.Since(begin) != 200*time.Millisecond {
			t.Errorf("%d late after %v", late, time.Since(begin))
		}
		if r := slow.Reading(); KindOf(r.Err) != KindPending {
			t.Errorf("slow: %+v", r)
		}
		if r := quick.Reading(); r.Value != 1 {
			t.Errorf("quick: %+v", r)
		}
		// It is not started again while it runs.
		for i := 1; i <= 2; i++ {
			time.Sleep(time.Until(begin.Add(time.Duration(i) * time.Second)))
			if late := s.Step(t.Context(), time.Now(), 200*time.Millisecond); late != 0 {
				t.Errorf("%d late", late)
			}
		}
		if n := testutil.ToFloat64(s.metrics.skipped); n != 2 {
			t.Errorf("%v skipped, want 2", n)
		}
		time.Sleep(time.Second)
		if r := slow.Reading(); r.Value != 1 || !r.At.Equal(begin) || r.LastDuration != 2500*time.Millisecond {
			t.Errorf("slow, later: %+v", r)
		}
		if late := s.Step(t.Context(), time.Now(), 0); late != 2 {
			t.Errorf("%d late without waiting, want 2", late)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		begin = time.Now()
		s.Step(ctx, begin.Add(time.Second), time.Hour)
		if d := time.Since(begin); d != 0 {
			t.Errorf("a step whose caller has gone takes %v", d)
		}
	})
}

func TestSlowQueriesKeepNoQuickOneWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakes{}
		s := newBoardOf(t, f)
		for i := range 50 {
			subscribe(t, s, fmt.Sprintf(`slow%d_4s`, i)+` or slow_4s`, time.Second)
		}
		var quick []*Subscription
		for i := range 100 {
			quick = append(quick, subscribe(t, s, fmt.Sprintf(`quick%d`, i), time.Second))
		}
		s.Step(t.Context(), time.Now(), 0)
		time.Sleep(10 * time.Minute) // all have been evaluated once, and are known
		for range 5 {
			begin := time.Now()
			s.Step(t.Context(), begin, 100*time.Millisecond)
			for i, q := range quick {
				if r := q.Reading(); !r.At.Equal(begin) {
					t.Fatalf("quick query %d is of %v ago", i, begin.Sub(r.At))
				}
			}
			time.Sleep(time.Second)
		}
		if n := f.most.Load(); n > 4+slowLane {
			t.Errorf("%d ran at a time, want at most %d", n, 4+slowLane)
		}
	})
}

func TestTimeoutsPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBoardOf(t, &fakes{})
		q := subscribe(t, s, `slow_1h`, time.Second)
		bad := subscribe(t, s, `bad`, time.Second)
		for range 600 {
			s.Step(t.Context(), time.Now(), 0)
			time.Sleep(time.Second)
		}
		r := q.Reading()
		if KindOf(r.Err) != KindTimeout || r.LastDuration != 5*time.Second {
			t.Errorf("%+v", r)
		}
		// Every 5 s, and then less and less often up to once in a minute.
		if r.Evaluations < 10 || r.Evaluations > 20 {
			t.Errorf("%d evaluations in 10 minutes, want about 13", r.Evaluations)
		}
		if n := bad.Reading().Evaluations; n != 600 {
			t.Errorf("%d evaluations of one that fails at once, want all 600", n)
		}
	})
}

func TestIntervals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBoardOf(t, &fakes{})
		often, rarely := subscribe(t, s, `often`, 100*time.Millisecond), subscribe(t, s, `rarely`, 10*time.Second)
		now := time.Now().Truncate(10 * time.Second).Add(3 * time.Second)
		var at []string
		for range 300 {
			s.Step(t.Context(), now, time.Second)
			if r := rarely.Reading(); r.At.Equal(now) {
				at = append(at, now.Format("05.0"))
			}
			now = now.Add(100 * time.Millisecond)
		}
		if got := strings.Join(at, " "); got != "03.0 10.0 20.0 30.0" {
			t.Errorf("evaluated at %s, want at once and then at the multiples of the interval", got)
		}
		if n := often.Reading().Evaluations; n != 300 {
			t.Errorf("%d evaluations, want 300", n)
		}
		// A clock that steps back does not stop queries.
		now = now.Add(-time.Hour)
		s.Step(t.Context(), now, time.Second)
		if r := rarely.Reading(); !r.At.Equal(now) {
			t.Errorf("after a step back the reading is of %v", r.At)
		}
	})
}

// A query that finds nothing is asked again soon, one that took long less soon, until it is due anyway.
func TestNothingYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newBoardOf(t, &fakes{})
		empty, slow := subscribe(t, s, `empty`, 10*time.Second), subscribe(t, s, `empty_slow_100ms`, 10*time.Second)
		bad := subscribe(t, s, `bad`, 10*time.Second)
		now := time.Now().Truncate(10 * time.Second)
		for range 100 {
			s.Step(t.Context(), now, time.Second)
			now = now.Add(100 * time.Millisecond)
		}
		for _, q := range []struct {
			name string
			sub  *Subscription
			want uint64
		}{{"empty", empty, 10}, {"empty and slow", slow, 5}, {"bad", bad, 1}} {
			if got := q.sub.Reading().Evaluations; got != q.want {
				t.Errorf("%s: %d evaluations in 10 s, want %d", q.name, got, q.want)
			}
		}
	})
}

// Whatever steps come, a query runs once at a time, never early, and its readings are of growing times.
func TestStepsProperty(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		gaps := rapid.SliceOfN(rapid.IntRange(0, 3000), 1, 30).Draw(rt, "gaps in ms")
		cost := rapid.IntRange(0, 2500).Draw(rt, "cost in ms")
		interval := time.Duration(rapid.IntRange(10, 2000).Draw(rt, "interval in ms")) * time.Millisecond
		synctest.Test(t, func(t *testing.T) {
			f := &fakes{}
			s := newBoardOf(t, f)
			q := subscribe(t, s, fmt.Sprintf(`slow_%dms`, cost), interval)
			var last Reading
			for _, gap := range gaps {
				time.Sleep(time.Duration(gap) * time.Millisecond)
				s.Step(t.Context(), time.Now(), 50*time.Millisecond)
				r := q.Reading()
				if r.Evaluations < last.Evaluations || r.At.Before(last.At) || r.Evaluations == last.Evaluations && !r.At.Equal(last.At) {
					t.Errorf("%+v after %+v", r, last)
				}
				if gap := r.At.Sub(last.At); last.Evaluations > 0 && r.Evaluations == last.Evaluations+1 && r.At.Truncate(interval).Equal(last.At.Truncate(interval)) {
					t.Errorf("evaluated again after %v, in the same interval", gap)
				}
				last = r
			}
			if f.most.Load() > 1 {
				t.Errorf("%d at a time", f.most.Load())
			}
		})
	})
}

func TestIntervalTooShort(t *testing.T) {
	s := newBoardOf(t, &fakes{})
	for _, q := range []Query{{Expr: "1"}, {Expr: "1", Interval: -1}, {Expr: "(", Interval: time.Second}} {
		if _, err := s.Subscribe(q); KindOf(err) != KindInvalid {
			t.Errorf("%+v: %v", q, err)
		}
	}
}

// serverFunc is a remote server in memory.
type serverFunc func(*http.Request) (*http.Response, error)

func (f serverFunc) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	return f(r)
}

func replyWith(code int, body string) *http.Response {
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body))}
}

func openRemote(t *testing.T, f serverFunc) *Service {
	t.Helper()
	s, err := Open(t.Context(), Config{Remote: &RemoteConfig{URL: "http://me:secret@prometheus:9090/base/", BearerToken: "tok", Headers: map[string]string{"X-Scope-OrgID": "a"}, Transport: f}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func TestRemoteServer(t *testing.T) {
	vector := func(elements string) string {
		return `{"status":"success","data":{"resultType":"vector","result":[` + elements + `]}}`
	}
	for _, c := range []struct {
		code int
		body string
		want string // value, or kind of error
	}{
		{200, vector(`{"metric":{"a":"b"},"value":[1.5,"2.5"]}`), "2.5"},
		{200, `{"status":"success","data":{"resultType":"scalar","result":[1,"+Inf"]}}`, "+Inf"},
		{200, vector(``), "empty"},
		{200, vector(`{"metric":{},"value":[1,"NaN"]}`), "not a number"},
		{200, vector(`{"metric":{},"histogram":[1,{"count":"1"}]}`), "not a number"},
		{200, vector(`{"metric":{},"value":[1,"1"]},{"metric":{},"value":[1,"2"]}`), "many-valued"},
		{200, `{"status":"success","data":{"resultType":"matrix","result":[]}}`, "invalid"},
		{200, vector(`{"metric":{},"value":[1,2]}`), "unreachable"},
		{200, vector(`7`), "unreachable"},
		{200, `{"status":"success","data":{"resultType":"scalar","result":["x"]}}`, "unreachable"},
		{200, `<html>`, "unreachable"},
		{200, `{}`, "unreachable"},
		{200, strings.Repeat(" ", mostAnswer+1), "too large"},
		{400, `{"status":"error","errorType":"bad_data","error":"parse error"}`, "invalid"},
		{422, `{"status":"error","errorType":"execution","error":"too many samples"}`, "invalid"},
		{503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, "timeout"},
		{500, `{"status":"error","errorType":"internal","error":"x"}`, "unreachable"},
		{502, `bad gateway`, "unreachable"},
		{401, `no`, "unreachable"},
		{302, ``, "unreachable"},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := openRemote(t, func(r *http.Request) (*http.Response, error) {
				if r.URL.Path != "/base/api/v1/query" || r.Header.Get("Authorization") != "Bearer tok" || r.Header.Get("X-Scope-OrgID") != "a" {
					t.Errorf("asked %s with %v", r.URL, r.Header)
				}
				r.ParseForm()
				if r.Form.Get("query") != "sum(x)" || r.Form.Get("time") != "1795262400.000" || r.Form.Get("timeout") == "" {
					t.Errorf("asked %v", r.Form)
				}
				reply := replyWith(c.code, c.body)
				if c.code == 302 {
					reply.Header.Set("Location", "http://evil.example/")
				}
				return reply, nil
			})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			a, err := s.remote.evaluate(ctx, "sum(x)", start)
			r := a.reading("", err)
			got := fmt.Sprint(r.Value)
			if r.Err != nil {
				got = KindOf(r.Err).String()
				if strings.Contains(r.Err.Error(), "secret") || strings.Contains(r.Err.Error(), "tok ") {
					t.Errorf("the error tells a secret: %v", r.Err)
				}
			}
			if got != c.want {
				t.Errorf("%d %.80s: %s (%v), want %s", c.code, c.body, got, r.Err, c.want)
			}
		})
	}
}

func TestRemoteServerGoesAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		var asked atomic.Int64
		s := openRemote(t, func(*http.Request) (*http.Response, error) {
			asked.Add(1)
			if down.Load() {
				return nil, errors.New("connection refused")
			}
			return replyWith(200, `{"status":"success","data":{"resultType":"scalar","result":[1,"7"]}}`), nil
		})
		q := subscribe(t, s, `x`, time.Second)
		step := func() Reading {
			s.Step(t.Context(), time.Now(), 900*time.Millisecond)
			time.Sleep(time.Second)
			return q.Reading()
		}
		if r := step(); r.Value != 7 || s.Status().Err != nil {
			t.Errorf("%+v %v", r, s.Status().Err)
		}
		down.Store(true)
		r := step()
		if KindOf(r.Err) != KindUnreachable || !strings.Contains(r.Err.Error(), "connection refused") || s.Status().Err == nil {
			t.Errorf("%+v %v", r, s.Status().Err)
		}
		before := asked.Load()
		for range 600 {
			step()
		}
		if n := asked.Load() - before; n > (600/15+5)*attempts {
			t.Errorf("%d requests to a server that is down for 10 minutes", n)
		}
		down.Store(false)
		for i := 0; q.Reading().Value != 7; i++ {
			if i > 16 {
				t.Fatal("a server that is back is not asked again within 15 s")
			}
			step()
		}
		if s.Status().Err != nil {
			t.Error(s.Status().Err)
		}
		// A server that hangs.
		if err := s.Collect(t.Context(), time.Now()); err != nil {
			t.Errorf("collecting with a remote server: %v", err)
		}
	})
}

func TestRemoteServerThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openRemote(t, func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		q := subscribe(t, s, `x`, time.Second)
		if late := s.Step(t.Context(), time.Now(), time.Second); late != 1 {
			t.Errorf("%d late", late)
		}
		time.Sleep(5 * time.Second)
		if r := q.Reading(); KindOf(r.Err) != KindTimeout || r.LastDuration != 5*time.Second {
			t.Errorf("%+v", r)
		}
		// Closing does not wait for it.
		s.Step(t.Context(), time.Now().Add(time.Hour), 0)
		begin := time.Now()
		s.Close()
		if d := time.Since(begin); d != 0 {
			t.Errorf("closing took %v", d)
		}
		if s.Step(t.Context(), time.Now().Add(2*time.Hour), time.Second) != 0 {
			t.Error("a closed service starts queries")
		}
	})
}

func TestConfigIsChecked(t *testing.T) {
	for want, change := range map[string]func(*Config){
		"no directory":       func(c *Config) { c.Dir = "" },
		"retention":          func(c *Config) { c.Retention = time.Second },
		"max_bytes":          func(c *Config) { c.MaxBytes = 5 },
		"max_series":         func(c *Config) { c.MaxSeries = 5 },
		"negative":           func(c *Config) { c.QueryTimeout = -1 },
		"remote_url":         func(c *Config) { c.Remote = &RemoteConfig{URL: "prometheus:9090"} },
		"scrape_config_file": func(c *Config) { c.Remote, c.ScrapeConfigFile = &RemoteConfig{URL: "http://x"}, "y" },
		"enforce_labels":     func(c *Config) { c.EnforceLabels = map[string]string{"a-b": "c"} },
	} {
		c := DefaultConfig()
		c.Dir = t.TempDir()
		change(&c)
		if _, err := Open(t.Context(), c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	if s := fmt.Sprintf("%v %+v %#v", RemoteConfig{BearerToken: "hush"}, Secret("hush"), Secret("hush")); strings.Contains(s, "hush") {
		t.Error(s)
	}
}
