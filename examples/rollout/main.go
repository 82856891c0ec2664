// SPDX-License-Identifier: Apache-2.0

// Command rollout is the program of docs/guides/load-ramping.md: a search with a new implementation that
// is on for as many users as the load ramp lets in. Try it with
//
//	curl -u ann:secret http://127.0.0.1:9090/search
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
)

func main() {
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /search", func(w http.ResponseWriter, r *http.Request) {
		user, _, _ := r.BasicAuth()
		fmt.Fprintln(w, search(r.Context(), client, user, r.FormValue("q")))
	})
	server := http.Server{Addr: "127.0.0.1:9090", Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	log.Println(server.ListenAndServe(), client.Close())
}

func search(ctx context.Context, client *sluice.Client, user, query string) string {
	flow := client.StartFlow(ctx, "new-search", sluice.Labels{"user_id": user}, sluice.WithRampMode())
	defer flow.End()
	if flow.ShouldRun() {
		return newSearch(ctx, query)
	}
	return oldSearch(ctx, query)
}

func newSearch(_ context.Context, query string) string {
	return fmt.Sprintf("new: nothing for %q", query)
}

func oldSearch(_ context.Context, query string) string {
	return fmt.Sprintf("old: nothing for %q", query)
}
