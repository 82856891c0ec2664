// SPDX-License-Identifier: Apache-2.0

// Command search is the program of docs/guides/per-user-rate-limit.md: a service with an endpoint that
// is limited for each user. Try it with
//
//	curl -u ann:secret http://127.0.0.1:9090/search
package main

import (
	"fmt"
	"log"
	"net/http"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/sluicehttp"
)

func main() {
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		log.Fatal(err)
	}
	server := http.Server{Addr: "127.0.0.1:9090", Handler: routes(client), ReadHeaderTimeout: 10 * time.Second}
	log.Println(server.ListenAndServe(), client.Close())
}

func routes(client *sluice.Client) http.Handler {
	mux := http.NewServeMux()
	limit := sluicehttp.Middleware(client, "search", sluicehttp.WithLabels(func(r *http.Request) sluice.Labels {
		user := userOf(r)
		return sluice.Labels{"user_id": user.id, "tier": user.tier}
	}))
	mux.Handle("GET /search", limit(http.HandlerFunc(search)))
	return mux
}

func search(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "nothing found for %q\n", r.FormValue("q"))
}

type user struct{ id, tier string }

// paying users; yours are in a database.
var paying = map[string]bool{"pia": true}

// userOf stands in for your authentication, which would also check the password.
func userOf(r *http.Request) user {
	name, _, _ := r.BasicAuth()
	if paying[name] {
		return user{name, "paid"}
	}
	return user{name, "free"}
}
