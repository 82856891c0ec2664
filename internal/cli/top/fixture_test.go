// SPDX-License-Identifier: Apache-2.0

package top

import (
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"
)

var update = flag.Bool("update", false, "write the golden files anew; commit only a difference you can explain")

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%s\nwant\n%s", file, got, want)
	}
}

// t0 is when the first overview of a test is read.
var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// overviewAt is the state of a plausible server, n seconds after t0.
func overviewAt(n uint64) *observev1.Overview {
	o := &observev1.Overview{
		Time: timestamppb.New(t0.Add(time.Duration(n) * time.Second)),
		ControlPoints: []*observev1.ControlPoint{
			{Name: "chat-completions", Admitted: 1000 + 20*n, Denied: 10 + 2*n, Waiting: 8},
			{Name: "checkout", Admitted: 52_000 + 1234*n, Denied: 7},
			{Name: "ingress", Admitted: 400 + 3*n, Unmatched: 400 + 3*n},
		},
		Limiters: []*observev1.Limiter{
			{
				Policy: "mistral", Component: "root.0", Kind: "concurrency_scheduler", ControlPoints: []string{"chat-completions"},
				Admitted: 1000 + 20*n, Denied: 10 + 2*n, InFlight: 2, Capacity: 2, Accounts: 1, Waiting: 8,
				Workloads: []*observev1.Workload{
					{Name: "paid", Waiting: 2, WaitingTokens: 2, Admitted: 800 + 15*n, WaitSecondsTotal: 80 + 1.5*float64(n), WaitSecondsMax: 0.42, Priority: 5},
					{Name: "open-source", Waiting: 6, WaitingTokens: 6.5, Admitted: 200 + 5*n, Denied: 10 + 2*n, WaitSecondsTotal: 600 + 6.2*float64(n), WaitSecondsMax: 75, Priority: 1},
					{Name: "batch", Priority: 0.1},
				},
			},
			{
				Policy: "per-user", Component: "root.1", Kind: "rate_limiter", ControlPoints: []string{"checkout"},
				Admitted: 52_000 + 1234*n, Denied: 7, Capacity: 40, FillPerSecond: 20, Accounts: 100_000,
			},
		},
		Accounts: []*observev1.Account{
			{Policy: "mistral", Component: "root.0", Kind: "concurrency_scheduler", Account: "default", Used: 2, Limit: 2, Waiting: 8},
			{Policy: "per-user", Component: "root.1", Kind: "rate_limiter", Account: "user_id:alice", Used: 31.25, Limit: 40},
			{Policy: "per-user", Component: "root.1", Kind: "rate_limiter", Account: "user_id:bob", Used: 1, Limit: 40},
		},
	}
	return o
}

// manyAt is a server with more of everything than a screen shows.
func manyAt(n uint64) *observev1.Overview {
	o := overviewAt(n)
	for i := range uint64(40) {
		o.ControlPoints = append(o.ControlPoints, &observev1.ControlPoint{Name: fmt.Sprintf("service-%02d", i), Admitted: i * n})
		o.Accounts = append(o.Accounts, &observev1.Account{
			Policy: "per-user", Component: "root.1", Kind: "rate_limiter",
			Account: fmt.Sprintf("tenant:a-rather-long-name-of-a-tenant-%02d", i), Used: float64(40 - i), Limit: 41,
		})
	}
	return o
}

// oddOverview is what a broken or hostile server, or a hostile client's labels, could make us show.
func oddOverview() *observev1.Overview {
	nan, inf := math.NaN(), math.Inf(1)
	return &observev1.Overview{
		Time: timestamppb.New(t0.Add(time.Second)),
		ControlPoints: []*observev1.ControlPoint{
			{Name: "", Admitted: math.MaxUint64, Denied: math.MaxUint64, Waiting: -3},
			{Name: "\x1b[2J\x1b]0;owned\aline\nbreak\ttab\u202eright"},
			{Name: "世界😀e\u0301", Admitted: 1},
		},
		Limiters: []*observev1.Limiter{
			{Policy: "a", Component: "b", Kind: "c", InFlight: nan, Capacity: -1, Accounts: -1, Workloads: []*observev1.Workload{
				{Name: "nan", WaitingTokens: nan, WaitSecondsTotal: nan, WaitSecondsMax: nan, Priority: nan, Admitted: 1},
				{Name: "inf", WaitingTokens: inf, WaitSecondsTotal: inf, WaitSecondsMax: inf, Priority: -inf, Admitted: 1},
				{Name: "negative", WaitSecondsTotal: -1, WaitSecondsMax: -1, Priority: -1, Waiting: -1},
			}},
			{Kind: "rate_limiter", Capacity: inf, FillPerSecond: nan},
			{Kind: "concurrency_limiter", Capacity: 1, InFlight: 7},
		},
		Accounts: []*observev1.Account{
			{Account: "over", Used: 50, Limit: 2},
			{Account: "none", Used: 5},
			{Account: "nan", Used: nan, Limit: 1},
			{Account: "inf", Used: inf, Limit: inf},
			{Account: "negative", Used: -5, Limit: 10},
		},
	}
}
