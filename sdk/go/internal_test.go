// SPDX-License-Identifier: Apache-2.0

package sluice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

func end(i int) *flowv1.EndRequest { return &flowv1.EndRequest{Token: fmt.Append(nil, i)} }

func TestEndQueue(t *testing.T) {
	var q endQueue
	for i := range maxEnds + 10 {
		q.push(end(i))
	}
	if q.len() != maxEnds || q.dropped != 10 {
		t.Fatalf("len %d, dropped %d", q.len(), q.dropped)
	}
	first := q.pop(3)
	if len(first) != 3 || string(first[0].Token) != "10" {
		t.Fatalf("popped %v, want the oldest that is left", first)
	}
	q.push(end(-1))
	q.requeue(first) // one too many: the oldest goes
	if q.len() != maxEnds || q.dropped != 11 || string(q.pop(1)[0].Token) != "11" {
		t.Fatalf("len %d, dropped %d", q.len(), q.dropped)
	}
	for i := range 10 * maxEnds { // memory stays bounded while it is used
		q.push(end(i))
		q.pop(1)
	}
	if cap(q.items) > 4*maxEnds {
		t.Errorf("holds %d places for %d ends", cap(q.items), q.len())
	}
	if len(q.pop(2*maxEnds)) != maxEnds-1 || q.pop(1) != nil {
		t.Errorf("left %d", q.len())
	}
}

func TestShapesTellFlowsApart(t *testing.T) {
	table := newShapeTable()
	seen := make(map[*shape]int)
	cases := []struct {
		point  string
		labels Labels
		o      flowOptions
	}{
		{point: "a"},
		{point: "b"},
		{point: "a", labels: Labels{"x": "1"}},
		{point: "a", labels: Labels{"x": "1", "y": "2"}},
		{point: "a", o: flowOptions{noEnd: true}},
		{point: "a", o: flowOptions{rampMode: true}},
		{point: "a", o: flowOptions{services: []string{"s", "t"}}},
		{point: "a", o: flowOptions{services: []string{"t", "s"}}},
		{point: "a", o: flowOptions{services: []string{"st"}}},
	}
	for i, c := range cases {
		s, _, _, err := table.find(c.point, c.labels, c.o)
		if err != nil || s == nil {
			t.Fatalf("case %d: %v, %v", i, s, err)
		}
		if other, ok := seen[s]; ok {
			t.Errorf("cases %d and %d share a shape", other, i)
		}
		seen[s] = i
		if again, _, _, _ := table.find(c.point, c.labels, c.o); again != s {
			t.Errorf("case %d has two shapes", i)
		}
	}
	s, values, _, _ := table.find("a", Labels{"y": "2", "x": "1"}, flowOptions{})
	if !slices.Equal(s.keys, []string{"x", "y"}) || !slices.Equal(values, []string{"1", "2"}) {
		t.Errorf("keys %v, values %v", s.keys, values)
	}
	// A stranger with the same hash must not be taken for the shape.
	if _, ok := s.values("a", Labels{"x": "1", "z": "2"}, flowOptions{}); ok {
		t.Error("took other labels for the shape")
	}
}

func TestFullJitter(t *testing.T) {
	for attempt, ceiling := range map[int]time.Duration{0: 100, 1: 200, 3: 800, 4: 1000, 31: 1000, 32: 1000, 1 << 20: 1000} {
		longest := time.Duration(0)
		for range 10_000 {
			d := fullJitter(attempt, 100, 1000)
			if d <= 0 || d > ceiling {
				t.Fatalf("attempt %d: %d, want 1 to %d", attempt, d, ceiling)
			}
			longest = max(longest, d)
		}
		if longest < ceiling*9/10 {
			t.Errorf("attempt %d: at most %d, want up to %d", attempt, longest, ceiling)
		}
	}
}

func TestRetryPolicy(t *testing.T) {
	errWork := errors.New("work")
	limited := func(after time.Duration) *DeniedError {
		return &DeniedError{Verdict: Verdict{Reason: "rate_limited"}, RetryAfter: after, HasRetryAfter: after > 0}
	}
	for _, test := range []struct {
		name     string
		policy   RetryPolicy
		deadline time.Duration
		denied   *DeniedError
		err      error
		attempts int
		min, max time.Duration
	}{
		{name: "success", attempts: 1},
		{name: "default attempts", denied: limited(0), attempts: 4, max: 700 * time.Millisecond},
		{name: "retry after", denied: limited(2 * time.Second), attempts: 4, min: 6 * time.Second, max: 6700 * time.Millisecond},
		{name: "caps", policy: RetryPolicy{MaxAttempts: 10, BaseDelay: time.Second, MaxDelay: 2 * time.Second}, denied: limited(0), attempts: 10, max: 17 * time.Second},
		{name: "retry after too long", policy: RetryPolicy{MaxRetryAfter: time.Second}, denied: limited(2 * time.Second), attempts: 1},
		{name: "deadline too near", deadline: time.Second, denied: limited(2 * time.Second), attempts: 1},
		{name: "lasting", denied: &DeniedError{Verdict: Verdict{Reason: "too_large"}}, attempts: 1},
		{name: "work fails", err: errWork, attempts: 1},
		{name: "work fails and may again", policy: RetryPolicy{MaxAttempts: 3, RetryError: func(err error) bool { return err == errWork }}, err: errWork, attempts: 3, max: 300 * time.Millisecond},
		{name: "work returns a denial of its own", err: limited(time.Second), attempts: 1},
		{name: "until the deadline", policy: RetryPolicy{MaxAttempts: -1, BaseDelay: time.Second, MaxDelay: time.Second}, deadline: time.Minute, denied: limited(0), attempts: -1, min: 50 * time.Second, max: time.Minute},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx := t.Context()
				if test.deadline > 0 {
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, test.deadline)
					defer cancel()
				}
				began, attempts := time.Now(), 0
				err := test.policy.run(ctx, func() (*DeniedError, error) {
					attempts++
					return test.denied, test.err
				})
				if took := time.Since(began); took < test.min || took > test.max {
					t.Errorf("took %v, want %v to %v", took, test.min, test.max)
				}
				if attempts != test.attempts && test.attempts > 0 {
					t.Errorf("%d attempts, want %d", attempts, test.attempts)
				}
				if test.denied != nil && err != test.denied || test.denied == nil && err != test.err {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestSeconds(t *testing.T) {
	for in, want := range map[float64]time.Duration{-1: 0, 0: 0, 1.5: 1500 * time.Millisecond, 1e300: 1<<63 - 1} {
		if got := seconds(in); got != want {
			t.Errorf("seconds(%v): got %v, want %v", in, got, want)
		}
	}
}

func TestOnThisMachine(t *testing.T) {
	for addr, want := range map[string]bool{
		"127.0.0.1:8080": true, "localhost:1": true, "http://localhost": true, "http://[::1]:8080/": true, "unix:///x": true,
		"10.0.0.1:8080": false, "sluice:8080": false, "http://localhost.evil.example:80": false, "dns:///a:1": false,
	} {
		if got := onThisMachine(addr); got != want {
			t.Errorf("%s: got %v, want %v", addr, got, want)
		}
	}
}

// FuzzFind: nothing a caller passes may panic, and what is accepted is valid UTF-8.
func FuzzFind(f *testing.F) {
	f.Add("checkout", "user", "alice", "web")
	f.Add("\xff", "", "\xfe", "")
	f.Fuzz(func(t *testing.T, point, key, value, service string) {
		table := newShapeTable()
		o := flowOptions{services: []string{service}}
		for range 2 {
			s, values, _, err := table.find(point, Labels{key: value}, o)
			if err != nil || s == nil {
				continue
			}
			if !slices.Equal(values, []string{validValue(value)}) || checkNames(s.controlPoint, Labels{s.keys[0]: ""}, s.services) != nil {
				t.Errorf("shape %+v, values %q", s, values)
			}
		}
	})
}
