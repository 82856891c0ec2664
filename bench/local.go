// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
)

// micro is a Go benchmark of one package whose metric becomes a line of the table.
type micro struct {
	what, pkg, bench, metric, target string
}

var micros = []micro{
	{"in process: Start+End, 1 rate limiter, 100k keys", "internal/flow", "BenchmarkStartEnd$", "flows/s", ">= 4,000,000/s"},
	{"in process: the same, allocations", "internal/flow", "BenchmarkStartEnd$", "allocs/op", "0"},
	{"in process: 100 policies, 5 match, median", "internal/flow", "BenchmarkMedian100Policies$", "p50-ns", "<= 1,500 ns"},
	{"weighted-fair queue: push+pop, 100k queued", "internal/wfq", "", "ns/op", "<= 300 ns"},
	{"bare hand-off to a goroutine and back", "internal/sched", "BenchmarkWake/channel$", "ns/op", "floor"},
	{"waking a waiting flow, and back", "internal/sched", "BenchmarkWake/scheduler$", "ns/op", "<= floor + 1,000 ns"},
	{"memory of an account", "internal/ledger", "BenchmarkAccountMemory$", "B/account", "<= 100 B"},
	{"memory of a waiting flow", "internal/flow", "BenchmarkWaitingFlowMemory$", "B/flow", "<= 1,500 B"},
}

// runMicros runs the benchmarks of each package once, in one go.
func runMicros(only string) error {
	fmt.Printf("\n%-52s %-34s %14s   %s\n", "what", "benchmark", "result", "target")
	output := make(map[string]string)
	for _, m := range micros {
		if !strings.Contains(m.what, only) {
			continue
		}
		if _, done := output[m.pkg]; !done {
			out, err := exec.Command("go", "test", "./"+m.pkg, "-run", "^$", "-bench", ".", "-benchmem", "-benchtime", "1s").CombinedOutput()
			if err != nil {
				return fmt.Errorf("benchmarks of %s: %w\n%s", m.pkg, err, out)
			}
			output[m.pkg] = string(out)
		}
		printMicro(m, output[m.pkg])
	}
	return nil
}

var benchLine = regexp.MustCompile(`(?m)^(Benchmark\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

func printMicro(m micro, out string) {
	pattern := regexp.MustCompile("^(" + m.bench + ")")
	for _, line := range benchLine.FindAllStringSubmatch(out, -1) {
		if m.bench != "" && !pattern.MatchString(line[1]) || m.bench == "" && !strings.Contains(line[1], "100k") && !strings.Contains(line[1], "Queued") && !strings.Contains(line[1], "PushPop") {
			continue
		}
		fields := strings.Fields(line[2])
		for i := 1; i < len(fields); i += 2 {
			if fields[i] == m.metric {
				v, _ := strconv.ParseFloat(fields[i-1], 64)
				fmt.Printf("%-52s %-34s %14s   %s\n", m.what, strings.TrimPrefix(line[1], "Benchmark"), thousands(v)+" "+m.metric, m.target)
			}
		}
	}
}

// headline is the reference of the concurrency scheduler, in real time, over gRPC: 2 slots, 5 paid and 5
// free users, 25 sequential calls of 100 ms each.
func headline(ctx context.Context, addr string) error {
	conn, err := dial(addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := flowv1.NewFlowServiceClient(conn)
	var mu sync.Mutex
	waits := map[string]float64{}
	running, peak := 0, 0
	var failed error
	began := time.Now()
	var wg sync.WaitGroup
	for i := range 10 {
		tier := []string{"paid", "free"}[i%2]
		wg.Go(func() {
			for range 25 {
				resp, err := c.Start(ctx, &flowv1.StartRequest{ControlPoint: "queue", Labels: map[string]string{"tier": tier}})
				mu.Lock()
				if err != nil || resp.Verdict != "admit" {
					failed = fmt.Errorf("start: %v: %w", resp, cmp.Or(err, errDenied))
					mu.Unlock()
					return
				}
				waits[tier] += resp.WaitedSeconds
				running++
				peak = max(peak, running)
				mu.Unlock()
				time.Sleep(100 * time.Millisecond)
				mu.Lock()
				running--
				mu.Unlock()
				c.End(ctx, &flowv1.EndRequest{Token: resp.Token})
			}
		})
	}
	wg.Wait()
	fmt.Printf("\n2 slots, 5 paid (priority 5) and 5 free users, 25 sequential calls of 100 ms each, over gRPC:\n")
	fmt.Printf("  makespan %.2f s (<= 12.7; work conserving 12.5), mean wait paid %.0f ms (<= 205), free %.1f ms (<= 395), peak in flight %d (2)\n",
		time.Since(began).Seconds(), waits["paid"]/125*1000, waits["free"]/125*1000, peak)
	return failed
}

// coldStart measures the product itself: from exec to the first limited decision, and its memory when
// idle.
func coldStart() error {
	binary := "bin/sluice"
	if _, err := os.Stat(binary); err != nil {
		fmt.Println("\nbin/sluice is not built: start-up time and memory not measured (make build)")
		return nil
	}
	var best time.Duration
	var rss string
	for range 5 {
		took, mem, err := startOnce(binary)
		if err != nil {
			return err
		}
		if best == 0 || took < best {
			best = took
		}
		rss = mem
	}
	fmt.Printf("\nsluice serve: exec to first limited decision %d ms, best of 5 (<= 300); idle RSS %s (<= 60 MiB)\n", best.Milliseconds(), rss)
	return nil
}

const coldPolicy = `blueprint: rate-limiting/base
policy:
  policy_name: cold
  rate_limiter:
    bucket_capacity: 5
    fill_amount: 5
    selectors: [{control_point: cold}]
    parameters: {interval: 60s, limit_by_label_key: user}
`

func startOnce(binary string) (time.Duration, string, error) {
	dir, err := os.MkdirTemp("", "sluice-cold")
	if err != nil {
		return 0, "", err
	}
	defer os.RemoveAll(dir)
	policies := filepath.Join(dir, "policies")
	if err := os.MkdirAll(policies, 0o755); err != nil {
		return 0, "", err
	}
	if err := os.WriteFile(filepath.Join(policies, "cold.yaml"), []byte(coldPolicy), 0o600); err != nil {
		return 0, "", err
	}
	const addr = "127.0.0.1:18089"
	began := time.Now()
	cmd := exec.Command(binary, "serve", "--listen", addr, "--data-dir", filepath.Join(dir, "data"), "--policy-dir", policies)
	if err := cmd.Start(); err != nil {
		return 0, "", err
	}
	defer func() {
		cmd.Process.Kill()
		cmd.Wait()
	}()
	for time.Since(began) < 10*time.Second {
		if decides(addr) {
			took := time.Since(began)
			time.Sleep(time.Second)
			return took, residentSet(cmd.Process.Pid), nil
		}
		time.Sleep(time.Millisecond)
	}
	return 0, "", fmt.Errorf("%s made no limited decision within 10 s", binary)
}

// decides asks for one flow and tells whether the policy decided it.
func decides(addr string) bool {
	resp, err := http.Post("http://"+addr+"/sluice.flow.v1.FlowService/Start", "application/json",
		bytes.NewReader([]byte(`{"controlPoint":"cold","labels":{"user":"u"},"noEnd":true}`)))
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var v struct{ Reason string }
	return json.NewDecoder(resp.Body).Decode(&v) == nil && (v.Reason == "admitted" || v.Reason == "rate_limited")
}

func residentSet(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "unknown"
	}
	for _, line := range strings.Split(string(b), "\n") {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.Atoi(strings.Fields(rest)[0])
			return fmt.Sprintf("%.1f MiB", float64(kb)/1024)
		}
	}
	return "unknown"
}
