// SPDX-License-Identifier: Apache-2.0

// Command bench measures the server against a floor and prints one table.
//
// The floor is a bare grpc-go server that answers the same messages with a constant, called by the same
// client, on the same machine, in the same run. Client and server are separate processes that share the
// machine. Timings on shared machines are noisy: the ratios are what to look at.
//
//	make bench                # everything, about three minutes
//	go run ./bench -only unary -seconds 1
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"
)

func main() {
	serve := flag.String("serve", "", "internal: run this server instead: echo, echo-vt or sluice")
	length := flag.Float64("seconds", 3, "length of each measurement in seconds")
	rounds := flag.Int("rounds", 3, "rounds; the servers take turns and the median counts")
	only := flag.String("only", "", "measure only rows whose name contains this")
	flag.Parse()
	if *serve != "" {
		if err := runServer(*serve); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	d := time.Duration(*length * float64(time.Second))
	if err := run(context.Background(), d, *rounds, *only); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// server is a server process.
type server struct {
	name, addr string
	cmd        *exec.Cmd
}

func startServer(name string) (*server, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self, "-serve", name)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line := make([]byte, 256)
	n, err := out.Read(line)
	if err != nil {
		return nil, fmt.Errorf("server %s did not say its address: %w", name, err)
	}
	return &server{name, strings.TrimSpace(string(line[:n])), cmd}, nil
}

func (s *server) stop() {
	s.cmd.Process.Kill()
	s.cmd.Wait()
}

// row is one line of the table.
type row struct {
	name    string
	servers []string // the first is the floor of the ratio
	measure func(ctx context.Context, addr string, d time.Duration) (float64, error)
	unit    string
	better  string
	target  string
}

func run(ctx context.Context, d time.Duration, rounds int, only string) error {
	fmt.Printf("%d CPUs, %s, %s per measurement, median of %d rounds\n\n", runtime.NumCPU(), runtime.Version(), d, rounds)
	servers := make(map[string]*server)
	for _, name := range serverNames {
		s, err := startServer(name)
		if err != nil {
			return err
		}
		defer s.stop()
		servers[name] = s
	}
	if err := limited(ctx, servers["sluice"].addr); err != nil {
		return err
	}
	fmt.Printf("%-44s %-9s %14s %8s   %s\n", "what", "server", "result", "ratio", "target")
	for _, r := range rows {
		if !strings.Contains(r.name, only) {
			continue
		}
		if err := r.run(ctx, servers, d, rounds); err != nil {
			return fmt.Errorf("%s: %w", r.name, err)
		}
	}
	if err := runMicros(only); err != nil || only != "" {
		return err
	}
	if err := headline(ctx, servers["sluice"].addr); err != nil {
		return err
	}
	return coldStart()
}

func (r *row) run(ctx context.Context, servers map[string]*server, d time.Duration, rounds int) error {
	results := make(map[string][]float64)
	for range rounds {
		for _, name := range r.servers {
			v, err := r.measure(ctx, servers[name].addr, d)
			if err != nil {
				return fmt.Errorf("server %s: %w", name, err)
			}
			results[name] = append(results[name], v)
		}
	}
	floor := median(results[r.servers[0]])
	for i, name := range r.servers {
		v := median(results[name])
		ratio := "floor"
		if i > 0 {
			ratio = fmt.Sprintf("%.2fx", v/floor)
		} else if len(r.servers) == 1 {
			ratio = ""
		}
		target := ""
		if i == len(r.servers)-1 {
			target = r.target
		}
		fmt.Printf("%-44s %-9s %14s %8s   %s\n", r.name, name, r.format(v), ratio, target)
	}
	return nil
}

func (r *row) format(v float64) string {
	if r.unit == "us" {
		return fmt.Sprintf("%.0f us", v)
	}
	return fmt.Sprintf("%s %s", thousands(v), r.unit)
}

func thousands(v float64) string {
	s := fmt.Sprintf("%.0f", v)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func median(v []float64) float64 {
	s := append([]float64(nil), v...)
	for i := range s {
		for j := i; j > 0 && cmp.Less(s[j], s[j-1]); j-- {
			s[j], s[j-1] = s[j-1], s[j]
		}
	}
	return s[len(s)/2]
}
