// SPDX-License-Identifier: Apache-2.0

// Command model is the program of docs/guides/scarce-model.md: it prompts a model when it is the user's
// turn. The model is not there: generate stands in for it.
//
//	go run ./examples/model paid pat "Why is the sky blue?"
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("want three arguments: tier, user and prompt")
	}
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err = ask(ctx, client, os.Stdout, os.Args[1], os.Args[2], os.Args[3])
	stop()
	_ = client.Close() // the error of the prompt matters more
	if err != nil {
		log.Fatal(err)
	}
}

// ask waits for the user's turn, for a minute at most, and writes the answer as it comes.
func ask(ctx context.Context, client *sluice.Client, out io.Writer, tier, user, prompt string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	flow := client.StartFlow(ctx, "prompt", sluice.Labels{"tier": tier, "user_id": user})
	defer flow.End()
	if err := flow.Denied(); err != nil {
		return err
	}
	return generate(ctx, prompt, out)
}

// generate stands in for a model that streams its answer.
func generate(_ context.Context, prompt string, out io.Writer) error {
	_, err := fmt.Fprintf(out, "You ask: %s\nI have thought about it.\n", prompt)
	return err
}
