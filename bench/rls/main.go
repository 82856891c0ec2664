// SPDX-License-Identifier: Apache-2.0

// Command rls measures how many answers a second Sluice gives over the protocol of Envoy's rate limit service, against
// a floor and against envoyproxy/ratelimit.
//
// The floor is a bare grpc-go server that answers every request with OK. All are called by the same client, on the same
// machine, in the same run, in turns; each is a process of its own. Timings on shared machines are noisy: the ratios
// are what to look at.
//
//	go run ./bench/rls
//	go run ./bench/rls -peer path/to/ratelimit -redis path/to/redis-server
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"time"
)

func main() {
	serve := flag.String("serve", "", "internal: run this server instead")
	length := flag.Float64("seconds", 3, "length of each measurement in seconds")
	rounds := flag.Int("rounds", 5, "rounds; the servers take turns and the median counts")
	profile := flag.String("profile", "", "write a CPU profile of Sluice to this file")
	peer := flag.String("peer", "", "binary of envoyproxy/ratelimit")
	redis := flag.String("redis", "redis-server", "binary of its Redis")
	flag.Parse()
	var err error
	if *serve != "" {
		err = runServer(*serve, *profile)
	} else {
		err = run(time.Duration(*length*float64(time.Second)), *rounds, options{*profile, *peer, *redis})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench/rls:", err)
		os.Exit(1)
	}
}

type options struct{ profile, peer, redis string }

func run(d time.Duration, rounds int, o options) error {
	ctx := context.Background()
	fmt.Printf("%d CPUs, %s, %s per measurement, median of %d rounds; 1 descriptor of 2 entries, %d values, %d connections, %d calls each\n\n",
		runtime.NumCPU(), runtime.Version(), d, rounds, users, connections, inFlight)
	servers, stop, err := startAll(o)
	defer stop()
	if err != nil {
		return err
	}
	results := make([][]float64, len(servers))
	busy := make([][]float64, len(servers)) // microseconds of processor time an answer took the server
	for range rounds {
		for i, s := range servers {
			before := s.used()
			n, err := throughput(ctx, s.addr, d)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			results[i] = append(results[i], n)
			busy[i] = append(busy[i], float64((s.used()-before).Microseconds())/(n*d.Seconds()))
		}
	}
	floor := median(results[0])
	fmt.Printf("%-28s %12s %8s %16s   %s\n", "server", "answers/s", "ratio", "CPU per answer", "rounds")
	for i, s := range servers {
		fmt.Printf("%-28s %12.0f %7.2fx %13.1f us  ", s.name, median(results[i]), median(results[i])/floor, median(busy[i]))
		for _, n := range results[i] {
			fmt.Printf(" %.0f", n)
		}
		fmt.Println()
	}
	return nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}
