// SPDX-License-Identifier: Apache-2.0

package top

import (
	"fmt"
	"math"

	observev1 "github.com/sluice-project/sluice/api/gen/sluice/observe/v1"

	"github.com/sluice-project/sluice/internal/cli/screen"
)

// pane numbers the tables.
type pane int

const (
	pointsPane pane = iota
	limitersPane
	workloadsPane
	accountsPane
	panes
)

// longestKind is the width of the longest name of a kind; cut short, some of them look alike.
const longestKind = len("concurrency_scheduler")

// tables arranges a frame. The order of rows is the order of the server.
func tables(f frame) [panes]table {
	return [panes]table{pointTable(f), limiterTable(f), workloadTable(f), accountTable(f)}
}

func pointTable(f frame) table {
	t := table{
		title: "Control points", empty: "no flow has passed yet", sorts: []int{1, 2, 3},
		columns: []column{
			{head: "CONTROL POINT", least: 16},
			{head: "ADMIT/S", kind: numberColumn, least: 8},
			{head: "DENY/S", kind: numberColumn, least: 8},
			{head: "WAITING", kind: numberColumn, least: 8},
			{head: "UNMATCHED/S", kind: numberColumn, least: 8, drop: 3},
			{head: "ADMITTED", kind: numberColumn, least: 8, drop: 2},
			{head: "DENIED", kind: numberColumn, least: 8, drop: 1},
		},
	}
	for _, p := range f.points {
		t.rows = append(t.rows, []cell{
			text(p.GetName()), rateCell(p.admitRate, screen.Plain), rateCell(p.denyRate, screen.Bad),
			count(float64(p.GetWaiting()), screen.Warn), rateCell(p.unmatchedRate, screen.Plain),
			count(float64(p.GetAdmitted()), screen.Dim), count(float64(p.GetDenied()), screen.Dim),
		})
	}
	return t
}

func limiterTable(f frame) table {
	t := table{
		title: "Limiters", empty: "no policy is in force", sorts: []int{3, 4, 6, 8},
		columns: []column{
			{head: "POLICY", least: 10},
			{head: "COMPONENT", least: 9, drop: 3},
			{head: "KIND", least: longestKind, drop: 4},
			{head: "ADMIT/S", kind: numberColumn, least: 8},
			{head: "DENY/S", kind: numberColumn, least: 8},
			{head: "LIMIT", least: 16, drop: 1},
			{head: "IN FLIGHT", kind: barColumn, drop: 2},
			{head: "ACCOUNTS", kind: numberColumn, least: 6, drop: 5},
			{head: "WAITING", kind: numberColumn, least: 6},
		},
	}
	for _, l := range f.limiters {
		t.rows = append(t.rows, []cell{
			text(l.GetPolicy()), text(l.GetComponent()), text(l.GetKind()),
			rateCell(l.admitRate, screen.Plain), rateCell(l.denyRate, screen.Bad), limitCell(l.Limiter), inFlight(l.Limiter),
			count(float64(l.GetAccounts()), screen.Plain), count(float64(l.GetWaiting()), screen.Warn),
		})
	}
	return t
}

func workloadTable(f frame) table {
	t := table{
		title: "Workloads", empty: "no scheduler has seen a flow yet", sorts: []int{3, 5, 6, 7, 8, 9},
		columns: []column{
			{head: "POLICY", least: 8, drop: 1},
			{head: "COMPONENT", least: 9, drop: 5},
			{head: "WORKLOAD", least: 10},
			{head: "QUEUED", kind: numberColumn, least: 6},
			{head: "TOKENS", kind: numberColumn, least: 6, drop: 4},
			{head: "WAIT", kind: numberColumn, least: 6},
			{head: "MAX WAIT", kind: numberColumn, least: 6, drop: 2},
			{head: "ADMIT/S", kind: numberColumn, least: 8},
			{head: "DENY/S", kind: numberColumn, least: 7, drop: 3},
			{head: "PRIORITY", kind: numberColumn, least: 6, drop: 6},
			{head: "SHARE", kind: barColumn, drop: 7},
		},
	}
	for _, w := range f.workloads {
		longest := reading{w.GetWaitSecondsMax(), true}
		t.rows = append(t.rows, []cell{
			text(w.policy), text(w.component), text(w.GetName()),
			count(float64(w.GetWaiting()), screen.Warn), count(w.GetWaitingTokens(), screen.Plain),
			{formatSeconds(w.meanWait), known(w.meanWait), screen.Plain},
			{formatSeconds(longest), known(longest), screen.Plain},
			rateCell(w.admitRate, screen.Plain), rateCell(w.denyRate, screen.Bad),
			count(w.GetPriority(), screen.Plain),
			{formatShare(w.share), known(w.share), screen.Focus},
		})
	}
	return t
}

func accountTable(f frame) table {
	t := table{
		title: "Accounts closest to their limit", empty: "no account is in use", sorts: []int{0, 5, 6},
		columns: []column{
			{head: "ACCOUNT", least: 24},
			{head: "POLICY", least: 8, drop: 1},
			{head: "COMPONENT", least: 9, drop: 3},
			{head: "KIND", least: longestKind, drop: 4},
			{head: "USED/LIMIT", kind: numberColumn, least: 9, drop: 2},
			{head: "USE", kind: barColumn},
			{head: "WAITING", kind: numberColumn, least: 6},
		},
	}
	for _, a := range f.accounts {
		share := ratio(a.GetUsed(), a.GetLimit())
		t.rows = append(t.rows, []cell{
			text(a.GetAccount()), text(a.GetPolicy()), text(a.GetComponent()), text(a.GetKind()),
			{screen.Number(a.GetUsed()) + "/" + screen.Number(a.GetLimit()), known(share), screen.Plain},
			{formatShare(share), known(share), fullness(share)},
			count(float64(a.GetWaiting()), screen.Warn),
		})
	}
	return t
}

func text(s string) cell { return cell{text: screen.Clean(s)} }

// known is the value for sorting and bars.
func known(r reading) float64 {
	if !r.known {
		return math.NaN()
	}
	return r.value
}

// quiet gives a number its tone only when there is something to see.
func quiet(v float64, t screen.Tone) screen.Tone {
	if !(v > 0) {
		return screen.Dim
	}
	return t
}

func rateCell(r reading, t screen.Tone) cell {
	return cell{formatRate(r), known(r), quiet(r.value, t)}
}

func count(v float64, t screen.Tone) cell {
	return cell{screen.Number(v), v, quiet(v, t)}
}

// ratio is unknown when the whole is not positive.
func ratio(part, whole float64) reading {
	if !(whole > 0) || math.IsNaN(part) {
		return reading{}
	}
	return reading{max(0, part/whole), true}
}

// fullness warns from 70 %, where queues begin to grow, and is red from 90 %.
func fullness(r reading) screen.Tone {
	switch {
	case !r.known:
		return screen.Dim
	case r.value >= 0.9:
		return screen.Bad
	case r.value >= 0.7:
		return screen.Warn
	}
	return screen.Good
}

// fills reports a limiter made of token buckets; the others hold slots, or sample.
func fills(l *observev1.Limiter) bool {
	switch l.GetKind() {
	case "rate_limiter", "quota_scheduler", "load_scheduler":
		return true
	}
	return false
}

// samples reports a limiter without accounts.
func samples(l *observev1.Limiter) bool {
	return l.GetKind() == "sampler" || l.GetKind() == "load_ramp"
}

// unlimited reports a limiter that lets everything pass: one that a circuit moves, in a dry run or without
// overload. Such a limiter that denies everything has a capacity all the same.
func unlimited(l *observev1.Limiter) bool {
	switch l.GetKind() {
	case "load_scheduler", "adaptive_concurrency_scheduler":
		return l.GetCapacity() == 0
	}
	return false
}

// limitCell prints what one account may use: slots, or tokens per second and the size of the bucket.
func limitCell(l *observev1.Limiter) cell {
	switch {
	case samples(l):
		return cell{screen.Unknown, math.NaN(), screen.Dim}
	case unlimited(l):
		return cell{"none", math.NaN(), screen.Dim}
	}
	if !fills(l) {
		return text(screen.Number(l.GetCapacity()))
	}
	rate := formatRate(reading{l.GetFillPerSecond(), true})
	return text(fmt.Sprintf("%s/s, burst %s", rate, screen.Number(l.GetCapacity())))
}

// inFlight compares the tokens in flight, which the server sums over all accounts, with the capacity of
// all accounts. Buckets hold nothing in flight, nor do samplers.
func inFlight(l *observev1.Limiter) cell {
	if fills(l) || samples(l) {
		return cell{screen.Unknown, math.NaN(), screen.Dim}
	}
	if unlimited(l) {
		return cell{screen.Number(l.GetInFlight()), math.NaN(), screen.Plain}
	}
	whole := l.GetCapacity() * float64(max(1, l.GetAccounts()))
	share := ratio(l.GetInFlight(), whole)
	return cell{screen.Number(l.GetInFlight()) + "/" + screen.Number(whole), known(share), fullness(share)}
}
