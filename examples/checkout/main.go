// SPDX-License-Identifier: Apache-2.0

// Command checkout is the program of docs/guides/load-scheduling.md: a service that can work on four
// requests at a time, for 20 ms each, and has no idea how to say no. The example policy shop protects it.
// Try it with
//
//	curl -X POST -H 'X-User-Type: subscriber' http://127.0.0.1:9090/checkout
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
	protect := sluicehttp.Middleware(client, "checkout", sluicehttp.WithLabels(func(r *http.Request) sluice.Labels {
		return sluice.Labels{"user_type": userOf(r).kind}
	}))
	mux.Handle("POST /checkout", protect(http.HandlerFunc(checkout)))
	return mux
}

// connections stands in for what is scarce, such as connections to a database.
var connections = make(chan struct{}, 4)

func checkout(w http.ResponseWriter, _ *http.Request) {
	connections <- struct{}{}
	time.Sleep(20 * time.Millisecond)
	<-connections
	fmt.Fprintln(w, "thank you")
}

type user struct{ kind string }

// userOf stands in for your authentication: nobody should say for himself that he is a subscriber.
func userOf(r *http.Request) user {
	if r.Header.Get("X-User-Type") == "subscriber" {
		return user{"subscriber"}
	}
	return user{"guest"}
}
