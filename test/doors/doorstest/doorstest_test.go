// SPDX-License-Identifier: Apache-2.0

package doorstest

import (
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

const policy = `blueprint: rate-limiting/base
policy:
  policy_name: one
  rate_limiter:
    bucket_capacity: 1
    fill_amount: 1
    parameters:
      interval: 3600s
    selectors:
      - control_point: door
`

func TestServerDecidesByItsPolicies(t *testing.T) {
	s := Sluice(t, Options{Policies: []string{policy}, Args: []string{"--log-level", "debug"}})
	start := func(want string) {
		t.Helper()
		resp, err := http.Post(s.URL+"/sluice.flow.v1.FlowService/Start", "application/json", strings.NewReader(`{"control_point": "door"}`))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = resp.Body.Close() }()
		body := new(strings.Builder)
		if _, err := io.Copy(body, resp.Body); err != nil || !strings.Contains(body.String(), want) {
			t.Errorf("got %s, %v, want %s", body, err, want)
		}
	}
	start("admit")
	start("deny")
	if got := s.Metric("sluice_limiter_decisions_total", "policy", "one"); got != 2 {
		t.Errorf("counted %v decisions, want 2", got)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if !s.Ended() || !strings.Contains(s.Log(), "is ready") {
		t.Errorf("ended: %v, log: %q", s.Ended(), s.Log())
	}
}

func TestExampleReplacesWhatIsThere(t *testing.T) {
	path := Example(t, "CONTRIBUTING.md", "# Contributing", "# Other")
	raw, err := os.ReadFile(path)
	if err != nil || !strings.HasPrefix(string(raw), "# Other\n") {
		t.Errorf("got %.20q, %v", raw, err)
	}
	r := &recorder{TB: t}
	func() {
		defer func() { _ = recover() }()
		Example(r, "CONTRIBUTING.md", "no such text", "")
	}()
	if !r.failed {
		t.Error("a text that the file lacks was not noticed")
	}
}

func TestEventuallyStopsAsSoonAsItCan(t *testing.T) {
	calls := 0
	Eventually(t, func() error {
		if calls++; calls < 3 {
			return errors.New("not yet")
		}
		return nil
	})
	if calls != 3 {
		t.Errorf("called %d times, want 3", calls)
	}
}

// recorder notices a failure instead of failing.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Fatalf(string, ...any) {
	r.failed = true
	panic("ended")
}
