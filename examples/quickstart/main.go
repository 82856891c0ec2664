// SPDX-License-Identifier: Apache-2.0

// Command quickstart is the program of docs/quick-start.md: three users greet, as often as they may.
//
// It asks the server of $SLUICE_SERVER, else 127.0.0.1:8080, before each greeting.
package main

import (
	"context"
	"fmt"
	"log"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

func main() {
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }() // delivers the last reports

	for _, user := range []string{"dora", "dora", "dora", "erik"} {
		greet(context.Background(), client, user)
	}
}

func greet(ctx context.Context, client *sluice.Client, user string) {
	flow := client.StartFlow(ctx, "hello", sluice.Labels{"user": user})
	defer flow.End()

	if !flow.ShouldRun() {
		fmt.Printf("%s has to wait: %s\n", user, flow.Verdict().Message)
		return
	}
	fmt.Printf("Hello, %s!\n", user)
}
