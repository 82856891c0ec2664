// SPDX-License-Identifier: Apache-2.0

package sluicehttp_test

import (
	"errors"
	"fmt"
	"log"
	"net/http"

	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/sluicehttp"
)

func ExampleMiddleware() {
	client, err := sluice.NewClient("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	limit := sluicehttp.Middleware(client, "web",
		sluicehttp.WithIgnoredPaths("/healthz"),
		sluicehttp.WithLabels(func(r *http.Request) sluice.Labels {
			labels := sluicehttp.DefaultLabels(r)
			labels["user_id"] = r.Header.Get("X-User-Id")
			return labels
		}),
	)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /report", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, "expensive")
		sluice.FlowFrom(r.Context()).End(sluice.WithTokens(12)) // only if the true cost is known
	})
	server := &http.Server{Addr: "127.0.0.1:8000", Handler: limit(mux)}
	_ = server // server.ListenAndServe()
}

func ExampleRoundTripper() {
	client, err := sluice.NewClient("")
	if err != nil {
		log.Fatal(err)
	}
	defer client.Close()

	provider := http.Client{Transport: sluicehttp.RoundTripper(client, "openai", nil)}
	_, err = provider.Get("http://127.0.0.1:1/v1/models")
	var denied *sluice.DeniedError
	if errors.As(err, &denied) {
		fmt.Println("not sent:", denied)
	}
}
