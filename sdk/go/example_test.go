// SPDX-License-Identifier: Apache-2.0

package sluice_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"time"

	flowv1 "github.com/sluice-project/sluice/api/gen/sluice/flow/v1"
	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/internal/sluicetest"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// exampleClient stands for sluice.NewClient("") in the examples that run: a client of a server in memory
// that admits everybody but mallory.
func exampleClient() (client *sluice.Client, stop func()) {
	server := &sluicetest.Server{Slots: -1, Deny: func(in sluicetest.Start) *flowv1.StartResponse {
		if in.Labels["user_id"] != "mallory" {
			return nil
		}
		return &flowv1.StartResponse{
			Verdict: "deny", Reason: "rate_limited", Message: "10 requests a minute are used up", Policy: "checkout-limit",
			HttpStatus: 429, RetryAfterSeconds: proto.Float64(6),
		}
	}}
	server.Listen()
	client, err := sluice.NewClient(sluicetest.Addr,
		sluice.WithUnavailableTimeout(10*time.Second),
		sluice.WithDialOptions(grpc.WithContextDialer(server.Dial)))
	if err != nil {
		log.Fatal(err)
	}
	return client, func() { client.Close(); server.Vanish() }
}

func Example() {
	client, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	for _, user := range []string{"alice", "mallory"} {
		flow := client.StartFlow(ctx, "checkout", sluice.Labels{"user_id": user})
		if flow.ShouldRun() {
			fmt.Println(user, "checks out")
		} else {
			fmt.Println(user, "may not:", flow.Verdict().Reason)
		}
		flow.End()
	}
	// Output:
	// alice checks out
	// mallory may not: rate_limited
}

func ExampleNewClient() {
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		log.Fatal(err) // the address is wrong; a server that is away is no error
	}
	defer client.Close()
}

func ExampleNewClient_options() {
	client, err := sluice.NewClient("https://sluice.example:443",
		sluice.WithToken("secret"),
		sluice.WithFailClosed(),
		sluice.WithUnavailableTimeout(50*time.Millisecond),
	)
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()
}

func ExampleFlow_Verdict() {
	client, stop := exampleClient()
	defer stop()

	flow := client.StartFlow(context.Background(), "checkout", sluice.Labels{"user_id": "mallory"})
	if !flow.ShouldRun() {
		v := flow.Verdict()
		fmt.Println(flow.HTTPStatus(), v.Reason, v.Policy)
		fmt.Println(v.Message)
		if after, ok := flow.RetryAfter(); ok {
			fmt.Println("try again in", after)
		}
	}
	// Output:
	// 429 rate_limited checkout-limit
	// 10 requests a minute are used up
	// try again in 6s
}

func ExampleFlow_End() {
	client, stop := exampleClient()
	defer stop()

	flow := client.StartFlow(context.Background(), "prompt", sluice.Labels{"user_id": "alice", "tokens": "500"})
	if !flow.ShouldRun() {
		return
	}
	used, err := 317.0, error(nil) // what the model says it has used
	fmt.Println(flow.End(sluice.WithError(err), sluice.WithTokens(used)))
	// Output: ended
}

func ExampleFlow_Err() {
	client, err := sluice.NewClient("127.0.0.1:1", sluice.WithFailClosed()) // nobody listens there
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	flow := client.StartFlow(context.Background(), "checkout", nil)
	fmt.Println(flow.ShouldRun(), errors.Is(flow.Err(), sluice.ErrUnavailable))
	// Output: false true
}

func ExampleClient_StartFlow_wait() {
	client, stop := exampleClient()
	defer stop()

	// Wait in the queue for two seconds at most; the work may take longer.
	flow := client.StartFlow(context.Background(), "report", sluice.Labels{"tier": "free"},
		sluice.WithQueueTimeout(2*time.Second))
	defer flow.End()
	fmt.Println(flow.ShouldRun())
	// Output: true
}

func ExampleClient_Retry() {
	client, stop := exampleClient()
	defer stop()

	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	err := client.Retry(ctx, "checkout", sluice.Labels{"user_id": "mallory"}, sluice.RetryPolicy{MaxAttempts: 5},
		func(ctx context.Context) error {
			return nil // the work
		})
	var denied *sluice.DeniedError
	if errors.As(err, &denied) { // the six seconds to wait are more than the context has left
		fmt.Println("denied:", denied.Verdict.Reason)
	}
	// Output: denied: rate_limited
}

func ExampleClient_Stats() {
	client, stop := exampleClient()
	defer stop()

	mux := http.NewServeMux()
	mux.HandleFunc("/debug/sluice", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "%+v\n", client.Stats())
	})
}

func ExampleFlow_SetResult() {
	client, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	for range 2 {
		flow := client.StartFlow(ctx, "search", nil,
			sluice.WithResultKey("q=shoes"), sluice.WithCoalesce(sluice.CoalesceWait))
		switch cached := flow.CachedResult(); {
		case cached.Found:
			fmt.Printf("from the cache: %s\n", cached.Value)
		case flow.ShouldRun():
			answer := []byte("17 shoes") // the expensive part
			if err := flow.SetResult(ctx, answer, time.Minute); err != nil {
				fmt.Println("not stored:", err) // no reason to fail
			}
			fmt.Printf("computed: %s\n", answer)
		}
		flow.End()
	}
	// Output:
	// computed: 17 shoes
	// from the cache: 17 shoes
}

func ExampleClient_Cache() {
	client, stop := exampleClient()
	defer stop()
	ctx := context.Background()

	cache := client.Cache("") // the tenant; "" unless the server separates tenants
	if err := cache.SetGlobal(ctx, "exchange-rates", []byte("1.08"), time.Hour); err != nil {
		fmt.Println("not stored:", err)
	}
	fmt.Printf("%s\n", cache.Global(ctx, "exchange-rates").Value)
	err := cache.DeleteResult(ctx, "search", "q=shoes") // the shoes have changed
	fmt.Println(err)
	// Output:
	// 1.08
	// <nil>
}
