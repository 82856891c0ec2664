// SPDX-License-Identifier: Apache-2.0

// Command cache is the program of docs/guides/caching.md: ten readers ask for the same report at the same time, and
// it is computed once. Then the report changes, and one more asks.
//
// It asks the server of $SLUICE_SERVER, else 127.0.0.1:8080.
package main

import (
	"context"
	"fmt"
	"log"
	"sync"
	"sync/atomic"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

const (
	point = "report"
	key   = "sales/2026-11"
)

func main() {
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }() // delivers the last reports
	ctx := context.Background()
	forget(ctx, client)

	var readers sync.WaitGroup
	for range 10 {
		readers.Go(func() { read(ctx, client) })
	}
	readers.Wait()
	fmt.Printf("10 readers at the same time: computed %d times\n", computed.Load())

	forget(ctx, client)
	read(ctx, client)
	read(ctx, client)
	fmt.Printf("2 more after a change: computed %d times in all\n", computed.Load())
}

// forget is what a program does that changes the numbers behind the report.
func forget(ctx context.Context, client *sluice.Client) {
	if err := client.Cache("").DeleteResult(ctx, point, key); err != nil {
		log.Println("the old report may be shown for a while:", err)
	}
}

// read returns the report: the cached one, or a new one that the next readers get.
func read(ctx context.Context, client *sluice.Client) []byte {
	flow := client.StartFlow(ctx, point, nil,
		sluice.WithResultKey(key),
		sluice.WithCoalesce(sluice.CoalesceWait),
		sluice.WithQueueTimeout(5*time.Second))
	defer flow.End()
	if cached := flow.CachedResult(); cached.Found {
		return cached.Value
	}
	if !flow.ShouldRun() {
		return []byte("come back later")
	}
	report := compute()
	if err := flow.SetResult(ctx, report, 10*time.Minute); err != nil {
		log.Println("the next reader has to compute it again:", err)
	}
	return report
}

var computed atomic.Int64

// compute stands for a query that takes long.
func compute() []byte {
	computed.Add(1)
	time.Sleep(300 * time.Millisecond)
	return []byte("17 pairs of shoes")
}
