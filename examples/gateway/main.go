// SPDX-License-Identifier: Apache-2.0

// Command gateway is the program of docs/guides/gateway.md: a reverse proxy that asks Sluice about every
// request, and answers those that are denied with the status and Retry-After of the verdict.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"time"

	sluice "github.com/sluice-project/sluice/sdk/go"
	"github.com/sluice-project/sluice/sdk/go/sluicehttp"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9090", "address to serve on")
	upstream := flag.String("upstream", "", "URL of the service behind the gateway")
	flag.Parse()
	if err := run(*listen, *upstream); err != nil {
		log.Fatal(err)
	}
}

func run(listen, upstream string) error {
	target, err := url.Parse(upstream)
	if err != nil || target.Host == "" {
		return errors.New("-upstream: want the URL of a service, such as http://127.0.0.1:8080")
	}
	client, err := sluice.NewClient("") // $SLUICE_SERVER, or 127.0.0.1:8080
	if err != nil {
		return err
	}
	defer func() { _ = client.Close() }() // delivers the last reports

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server := http.Server{Addr: listen, Handler: handler(client, target), ReadHeaderTimeout: 10 * time.Second}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// handler forwards what may pass.
func handler(client *sluice.Client, target *url.URL) http.Handler {
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.SetXForwarded()
	}}
	limit := sluicehttp.Middleware(client, "api",
		sluicehttp.WithIgnoredPaths("/healthz"),
		sluicehttp.WithLabels(func(r *http.Request) sluice.Labels {
			labels := sluicehttp.DefaultLabels(r)
			labels["api_key"] = r.Header.Get("X-Api-Key")
			return labels
		}),
		sluicehttp.WithFlowOptions(sluice.WithQueueTimeout(10*time.Second)),
	)
	return limit(proxy)
}
