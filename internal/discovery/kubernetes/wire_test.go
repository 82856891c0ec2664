// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/sluice-project/sluice/internal/discovery"
)

// apiServer speaks as much of the protocol of an API server as a reflector uses: watches that begin with all
// objects and a bookmark (Kubernetes 1.34 and later), or lists and watches (before).
type apiServer struct {
	t       *testing.T
	streams bool // watches may begin with all objects
	first   []*unstructured.Unstructured
	later   chan string // lines of watches of EndpointSlices, sent as they are
	mu      sync.Mutex
	seen    []string // requests, without what is random
}

func (a *apiServer) requests() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.seen, "\n")
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	a.mu.Lock()
	a.seen = append(a.seen, fmt.Sprintf("%s watch=%s initial=%s auth=%s", r.URL.Path, q.Get("watch"), q.Get("sendInitialEvents"), r.Header.Get("Authorization")))
	a.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	slices := strings.HasSuffix(r.URL.Path, "/endpointslices")
	objects := a.first
	kind := "EndpointSliceList"
	if !slices {
		objects, kind = nil, "ServiceList"
	}
	switch {
	case q.Get("watch") == "":
		items := []any{}
		for _, o := range objects {
			items = append(items, o.Object)
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"apiVersion": "v1", "kind": kind, "metadata": map[string]any{"resourceVersion": "5"}, "items": items})
		return
	case q.Get("sendInitialEvents") == "true" && !a.streams:
		w.WriteHeader(http.StatusUnprocessableEntity)
		fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422,"message":"sendInitialEvents is forbidden"}`)
		return
	case q.Get("sendInitialEvents") == "true":
		for _, o := range objects {
			_ = json.NewEncoder(w).Encode(map[string]any{"type": "ADDED", "object": o.Object})
		}
		version, name := "discovery.k8s.io/v1", "EndpointSlice"
		if !slices {
			version, name = "v1", "Service"
		}
		fmt.Fprintf(w, `{"type":"BOOKMARK","object":{"apiVersion":%q,"kind":%q,"metadata":{"resourceVersion":"5","annotations":{"k8s.io/initial-events-end":"true"}}}}`+"\n", version, name)
	}
	w.(http.Flusher).Flush()
	later := a.later
	if !slices {
		later = nil
	}
	for {
		select {
		case <-r.Context().Done():
			return
		case line := <-later:
			fmt.Fprintln(w, line)
			w.(http.Flusher).Flush()
		}
	}
}

// TestWire speaks the real protocol, in both of its forms, through the client that the product uses.
func TestWire(t *testing.T) {
	for _, streams := range []bool{true, false} {
		t.Run(fmt.Sprint("streams=", streams), func(t *testing.T) {
			first := slice("checkout-1", "checkout", endpoint("a", "n1", "10.1.0.1"))
			first.SetResourceVersion("4")
			a := &apiServer{t: t, streams: streams, first: []*unstructured.Unstructured{first}, later: make(chan string, 10)}
			server := httptest.NewTLSServer(a)
			t.Cleanup(server.Close)
			file := filepath.Join(t.TempDir(), "kubeconfig")
			text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority-data: %s}}]
users: [{name: u, user: {token: secret-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, server.URL, base64.StdEncoding.EncodeToString(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, err := New(Config{Kubeconfig: file})
			if err != nil {
				t.Fatal(err)
			}
			d, err := discovery.New(discovery.Config{})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.Run(ctx, d.Feed(discovery.SourceKubernetes)) }()
			until := func(address string, want ...string) {
				t.Helper()
				for deadline := time.Now().Add(10 * time.Second); !cmp.Equal(d.ByIP(address), want); {
					if time.Now().After(deadline) {
						t.Fatalf("%s has the services %q, want %q; the requests were\n%s\nand the sources are %+v", address, d.ByIP(address), want, a.requests(), d.Sources())
					}
					<-time.After(10 * time.Millisecond)
				}
			}
			until("10.1.0.1", checkout)
			moved := slice("checkout-1", "checkout", endpoint("a", "n1", "10.1.0.2"))
			moved.SetResourceVersion("6")
			line, err := json.Marshal(map[string]any{"type": "MODIFIED", "object": moved.Object})
			if err != nil {
				t.Fatal(err)
			}
			a.later <- string(line)
			until("10.1.0.2", checkout)
			until("10.1.0.1")
			a.later <- `{"type":"BOOKMARK","object":{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"resourceVersion":"7"}}}`
			line, err = json.Marshal(map[string]any{"type": "DELETED", "object": moved.Object})
			if err != nil {
				t.Fatal(err)
			}
			a.later <- string(line)
			until("10.1.0.2")
			if got := d.Sources()[0]; got.Problem != "" || got.Failures != 0 {
				t.Errorf("got source %+v, want no problem and no failure", got)
			}
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("it did not end")
			}
			if got := a.requests(); !strings.Contains(got, "/apis/discovery.k8s.io/v1/endpointslices watch=true") || !strings.Contains(got, "auth=Bearer secret-token") {
				t.Errorf("the requests were\n%s", got)
			}
		})
	}
}
