// SPDX-License-Identifier: Apache-2.0

// Command llmquota is the program of docs/guides/llm-quota.md: it calls a language model within a quota
// of tokens. It reserves an estimate before each call and settles the true cost after it.
//
// The model is not there: complete stands in for the call of your provider.
package main

import (
	"context"
	"fmt"
	"log"
	"strconv"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

// maxTokens is the longest answer that calls ask for.
const maxTokens = 390

func main() {
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = client.Close() }() // delivers the last reports

	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range 5 {
		answer, err := ask(ctx, client, "Why is the sky blue, in one line, please?")
		if err != nil {
			log.Println(err)
			continue
		}
		fmt.Printf("call %d: %s\n", i+1, answer)
	}
}

// ask calls the model when the quota has room for the call.
func ask(ctx context.Context, client *sluice.Client, prompt string) (string, error) {
	flow := client.StartFlow(ctx, "llm", sluice.Labels{
		"api_key": "main", "call": "interactive",
		"estimated_tokens": strconv.Itoa(estimate(prompt)),
	})
	if err := flow.Denied(); err != nil {
		return "", err
	}
	answer, used, err := complete(ctx, prompt)
	flow.End(sluice.WithError(err), sluice.WithTokens(float64(used)))
	return answer, err
}

// estimate is the most that a call can cost; four letters are about one token.
func estimate(prompt string) int { return len(prompt)/4 + maxTokens }

// complete stands in for a model. It returns the answer and the tokens that the provider charged.
func complete(_ context.Context, _ string) (answer string, used int, err error) {
	return "Blue light scatters most.", 50, nil
}
