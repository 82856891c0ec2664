// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utilruntime "k8s.io/apimachinery/pkg/util/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sluice-project/sluice/internal/discovery"
)

func TestMain(m *testing.M) {
	// They sleep until a while after the last error of the process, which may be in the future in the bubble of
	// another test.
	utilruntime.ErrorHandlers = nil
	goleak.VerifyTestMain(m)
}

func object(apiVersion, kind, namespace, name string, rest map[string]any) *unstructured.Unstructured {
	meta := map[string]any{"namespace": namespace, "name": name}
	if labels, ok := rest["labels"]; ok {
		meta["labels"] = labels
		delete(rest, "labels")
	}
	o := map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": meta}
	for k, v := range rest {
		o[k] = v
	}
	return &unstructured.Unstructured{Object: o}
}

// pod is an endpoint "name@node=address".
func endpoint(name, node string, addresses ...string) map[string]any {
	var list []any
	for _, a := range addresses {
		list = append(list, a)
	}
	return map[string]any{
		"addresses": list, "nodeName": node, "conditions": map[string]any{"ready": true},
		"targetRef": map[string]any{"kind": "Pod", "name": name, "namespace": "shop", "uid": "uid-" + name},
	}
}

func slice(name, service string, endpoints ...map[string]any) *unstructured.Unstructured {
	list := []any{}
	for _, e := range endpoints {
		list = append(list, e)
	}
	return object("discovery.k8s.io/v1", "EndpointSlice", "shop", name, map[string]any{
		"labels": map[string]any{serviceLabel: service}, "addressType": "IPv4", "endpoints": list,
	})
}

func service(name string, spec map[string]any) *unstructured.Unstructured {
	return object("v1", "Service", "shop", name, map[string]any{"spec": spec})
}

func fakeClient(objects ...runtime.Object) *fake.FakeDynamicClient {
	return fake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), map[schema.GroupVersionResource]string{
		sliceResource: "EndpointSliceList", serviceResource: "ServiceList",
	}, objects...)
}

// cluster is a source that runs in a bubble.
type cluster struct {
	*testing.T
	client    *fake.FakeDynamicClient
	directory *discovery.Directory
	stop      func()
}

func start(t *testing.T, config Config, objects ...runtime.Object) *cluster {
	t.Helper()
	return startWith(t, config, fakeClient(objects...))
}

func startWith(t *testing.T, config Config, client *fake.FakeDynamicClient) *cluster {
	t.Helper()
	d, err := discovery.New(discovery.Config{MaxEntities: config.MaxEntities})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := newSource(config, client).Run(ctx, d.Feed(discovery.SourceKubernetes)); err != nil {
			t.Error(err)
		}
	}()
	stop := sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	c := &cluster{t, client, d, stop}
	c.settle()
	return c
}

// settle waits until what has happened is published.
func (c *cluster) settle() {
	time.Sleep(5 * time.Second)
	synctest.Wait()
}

func (c *cluster) want(address string, services ...string) {
	c.Helper()
	if got := c.directory.ByIP(address); !cmp.Equal(got, services) {
		c.Errorf("%s has the services %q, want %q", address, got, services)
	}
}

func (c *cluster) apply(o *unstructured.Unstructured, do string) {
	c.Helper()
	gvr := sliceResource
	if o.GetKind() == "Service" {
		gvr = serviceResource
	}
	r := c.client.Resource(gvr).Namespace(o.GetNamespace())
	var err error
	switch do {
	case "create":
		_, err = r.Create(context.Background(), o, metav1.CreateOptions{})
	case "update":
		_, err = r.Update(context.Background(), o, metav1.UpdateOptions{})
	case "delete":
		err = r.Delete(context.Background(), o.GetName(), metav1.DeleteOptions{})
	}
	if err != nil {
		c.Fatal(err)
	}
}

const (
	checkout = "checkout.shop.svc.cluster.local"
	cart     = "cart.shop.svc.cluster.local"
)

func TestFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{},
			slice("checkout-1", "checkout", endpoint("a", "n1", "10.1.0.1"), endpoint("b", "n2", "10.1.0.2")),
			slice("cart-1", "cart", endpoint("b", "n2", "10.1.0.2")),
			service("checkout", map[string]any{"type": "LoadBalancer", "clusterIP": "10.96.0.1", "clusterIPs": []any{"10.96.0.1", "fd00::1"}}),
			service("headless", map[string]any{"clusterIP": "None", "clusterIPs": []any{"None"}}),
			service("external", map[string]any{"type": "ExternalName", "externalName": "example.com"}),
			service("old", map[string]any{"clusterIP": "10.96.0.9"}),
		)
		c.want("10.1.0.1", checkout)
		c.want("10.1.0.2", cart, checkout)
		c.want("10.96.0.1", checkout)
		c.want("fd00::1", checkout)
		c.want("10.96.0.9", "old.shop.svc.cluster.local")
		want := discovery.Entity{
			Address: "10.1.0.2", UID: "uid-b", Name: "b", Namespace: "shop", Node: "n2",
			Source: discovery.SourceKubernetes, Services: []string{cart, checkout},
		}
		if e, ok := c.directory.EntityByIP("10.1.0.2"); !ok || !cmp.Equal(e, want) {
			t.Errorf("got %+v, want %+v", e, want)
		}
		if e, ok := c.directory.EntityByName("ClusterIP-shop-checkout-10.96.0.1"); !ok || e.UID != "10.96.0.1" {
			t.Errorf("got %+v", e)
		}
		if s := c.directory.Sources()[0]; s.Problem != "" || s.Entities != 5 || s.Updated.IsZero() {
			t.Errorf("got source %+v", s)
		}

		// An endpoint moves to another slice of its service, and is in both for a while.
		c.apply(slice("checkout-2", "checkout", endpoint("a", "n1", "10.1.0.1")), "create")
		c.settle()
		c.want("10.1.0.1", checkout)
		c.apply(slice("checkout-1", "checkout", endpoint("b", "n2", "10.1.0.2")), "update")
		c.settle()
		c.want("10.1.0.1", checkout)

		// A pod goes, and another service gets its address.
		c.apply(slice("checkout-2", "checkout"), "delete")
		c.settle()
		c.want("10.1.0.1")
		c.apply(slice("cart-1", "cart", endpoint("c", "n1", "10.1.0.1")), "update")
		c.settle()
		c.want("10.1.0.1", cart)
		c.want("10.1.0.2", checkout)
		c.apply(service("checkout", nil), "delete")
		c.settle()
		c.want("10.96.0.1")
	})
}

// TestOddEndpoints: endpoints need not be pods, and objects need not be what they should.
func TestOddEndpoints(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		odd := slice("odd", "odd", endpoint("x", "", "10.1.0.4", "not an address", "fd00::4"))
		odd.Object["endpoints"] = append(odd.Object["endpoints"].([]any), nil, "text", map[string]any{"addresses": "10.1.0.5"},
			map[string]any{"addresses": []any{int64(7), nil, "10.1.0.6"}, "targetRef": "nobody", "nodeName": 3.0},
			map[string]any{"addresses": []any{"::ffff:10.1.0.7"}, "targetRef": nil, "hostname": "db-0"})
		fqdn := slice("fqdn", "fqdn", endpoint("y", "n", "10.1.0.8"))
		fqdn.Object["addressType"] = "FQDN"
		none := slice("none", "")
		none.SetLabels(nil)
		c := start(t, Config{ClusterDomain: "prod.example."}, odd, fqdn, none,
			object("v1", "Service", "shop", "broken", map[string]any{"spec": "nothing"}),
			object("discovery.k8s.io/v1", "EndpointSlice", "shop", "broken", map[string]any{"labels": map[string]any{serviceLabel: "broken"}, "endpoints": "none"}))
		const name = "odd.shop.svc.prod.example"
		for _, a := range []string{"10.1.0.4", "fd00::4", "10.1.0.6", "10.1.0.7"} {
			c.want(a, name)
		}
		c.want("10.1.0.5")
		c.want("10.1.0.8")
		if e, _ := c.directory.EntityByIP("10.1.0.7"); e.Name != "db-0" || e.Namespace != "" {
			t.Errorf("got %+v", e)
		}
	})
}

func TestOwnNodeOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{Node: "n1"},
			slice("checkout-1", "checkout", endpoint("a", "n1", "10.1.0.1"), endpoint("b", "n2", "10.1.0.2"), endpoint("c", "", "10.1.0.3")),
			service("checkout", map[string]any{"clusterIP": "10.96.0.1"}))
		c.want("10.1.0.1", checkout)
		c.want("10.1.0.2")
		c.want("10.1.0.3")
		c.want("10.96.0.1", checkout)
	})
}

func TestOneNamespace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		other := slice("other", "other", endpoint("o", "n", "10.1.0.9"))
		other.SetNamespace("elsewhere")
		c := start(t, Config{Namespace: "shop"}, slice("checkout-1", "checkout", endpoint("a", "n1", "10.1.0.1")), other)
		c.want("10.1.0.1", checkout)
		c.want("10.1.0.9")
	})
}

// TestAway: while the API server is away what is known stays; then everything is listed anew, and what went away
// meanwhile goes.
func TestAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fakeClient(slice("checkout-1", "checkout", endpoint("a", "n1", "10.1.0.1")))
		var away atomic.Bool
		var calls atomic.Int64
		client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			calls.Add(1)
			return away.Load(), nil, errors.New("dial tcp 10.96.0.1:443: connect: connection refused")
		})
		watchers := &watched{}
		client.PrependWatchReactor("*", watchers.react(client, &away))
		c := startWith(t, Config{}, client)
		c.want("10.1.0.1", checkout)

		away.Store(true)
		watchers.drop()
		calls.Store(0)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := c.directory.Sources()[0]; !strings.Contains(s.Problem, "endpointslices: dial tcp 10.96.0.1:443: connect: connection refused") || s.Failures == 0 {
			t.Errorf("got source %+v, want the problem", s)
		}
		c.want("10.1.0.1", checkout)
		if n := calls.Load(); n < 10 || n > 200 {
			t.Errorf("%d calls in 10 min without an API server, want a few", n)
		}
		c.apply(slice("checkout-1", "checkout"), "delete")
		c.apply(slice("cart-1", "cart", endpoint("b", "n2", "10.1.0.2")), "create")
		away.Store(false)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		c.want("10.1.0.1")
		c.want("10.1.0.2", cart)
		if s := c.directory.Sources()[0]; s.Problem != "" {
			t.Errorf("got source %+v, want no problem any more", s)
		}
	})
}

// watched keeps the watches that were opened, to break them.
type watched struct {
	mu   sync.Mutex
	open []watch.Interface
}

func (w *watched) react(client *fake.FakeDynamicClient, away *atomic.Bool) clienttesting.WatchReactionFunc {
	return func(a clienttesting.Action) (bool, watch.Interface, error) {
		if away.Load() {
			return true, nil, errors.New("dial tcp 10.96.0.1:443: connect: connection refused")
		}
		one, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
		w.mu.Lock()
		defer w.mu.Unlock()
		w.open = append(w.open, one)
		return true, one, err
	}
}

func (w *watched) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, one := range w.open {
		one.Stop()
	}
	w.open = nil
}

// TestEndsWhileAway: the end does not wait for the next try.
func TestEndsWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fakeClient()
		client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, errors.New("no route to host")
		})
		c := startWith(t, Config{}, client)
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		at := time.Now()
		c.stop()
		if waited := time.Since(at); waited > time.Second {
			t.Errorf("the end took %s", waited)
		}
	})
}

// TestEndingClock: nobody waits for it any longer when the context has ended.
func TestEndingClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		c, begin := endingClock{ctx: ctx}, time.Now()
		<-c.After(time.Minute)
		if waited := time.Since(begin); waited != time.Minute {
			t.Errorf("waited %s, want a minute", waited)
		}
		later := c.After(time.Hour)
		cancel()
		<-later
		<-c.After(time.Hour)
		if waited := time.Since(begin); waited != time.Minute {
			t.Errorf("waited until %s, want no more than before", waited)
		}
	})
}

func TestNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fakeClient()
		client.PrependReactor("list", "endpointslices", func(clienttesting.Action) (bool, runtime.Object, error) {
			return true, nil, apierrors.NewForbidden(sliceResource.GroupResource(), "", errors.New("no"))
		})
		c := startWith(t, Config{}, client)
		const want = "the cluster does not let this server list and watch endpointslices: bind it to a ClusterRole that may (docs/guides/discovery.md has one)"
		if got := c.directory.Sources()[0].Problem; got != want {
			t.Errorf("got the problem %q, want %q", got, want)
		}
	})
}

// TestTooMany: what does not fit is left out and comes back when there is room.
func TestTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{MaxEntities: 3}, slice("first", "checkout", endpoint("a", "n", "10.1.0.1"), endpoint("b", "n", "10.1.0.2")))
		c.apply(slice("second", "cart", endpoint("c", "n", "10.1.0.3"), endpoint("d", "n", "10.1.0.4")), "create")
		c.settle()
		c.want("10.1.0.3", cart)
		c.want("10.1.0.4")
		if s := c.directory.Sources()[0]; s.Problem != "1 entities are left out because there are more than 3: raise discovery.max_entities" {
			t.Errorf("got source %+v", s)
		}
		c.apply(slice("first", "checkout"), "delete")
		time.Sleep(relistAfter + 10*time.Second)
		synctest.Wait()
		c.want("10.1.0.3", cart)
		c.want("10.1.0.4", cart)
		if s := c.directory.Sources()[0]; s.Problem != "" {
			t.Errorf("got source %+v", s)
		}
	})
}

// TestChurn publishes at a bounded pace, and ends with what is there.
func TestChurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := start(t, Config{}, slice("s", "checkout"))
		for i := range 500 {
			c.apply(slice("s", "checkout", endpoint(fmt.Sprint("p", i), "n", fmt.Sprintf("10.1.%d.%d", i/250, i%250))), "update")
			time.Sleep(time.Millisecond)
		}
		c.settle()
		if n := len(c.directory.Entities()); n != 1 {
			t.Errorf("got %d entities, want the last one", n)
		}
		c.want("10.1.1.249", checkout)
	})
}

func TestAccess(t *testing.T) {
	dir := t.TempDir()
	good, bad := filepath.Join(dir, "good"), filepath.Join(dir, "bad")
	write := func(path, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(good, `apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: secret-token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`)
	write(bad, "apiVersion: v1\nkind: Config\ncurrent-context: nowhere\n")
	if _, err := New(Config{Kubeconfig: good}); err != nil {
		t.Errorf("a good file: %v", err)
	}
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{Kubeconfig: bad}, "discovery.kubernetes.kubeconfig: " + bad},
		{Config{Kubeconfig: filepath.Join(dir, "missing")}, "discovery.kubernetes.kubeconfig: open "},
		{Config{Namespace: "No Space"}, `kubernetes.namespace: got "No Space", want a lowercase RFC 1123 label`},
		{Config{Node: "a/b"}, `kubernetes.node: got "a/b"`},
		{Config{ClusterDomain: "a..b"}, `kubernetes.cluster_domain: got "a..b"`},
	} {
		if _, err := New(tt.config); err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %s", tt.config, err, tt.want)
		}
	}
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := New(Config{}); err == nil || !strings.Contains(err.Error(), "this is not a pod of a cluster: set discovery.kubernetes.kubeconfig") {
		t.Errorf("outside of a cluster: got %v", err)
	}
}

func BenchmarkEntities100k(b *testing.B) {
	k := newKept(200_000)
	k.add("endpointslices")
	for i := range 1000 {
		var list []discovery.Entity
		for j := range 100 {
			list = append(list, discovery.Entity{
				Address: fmt.Sprintf("10.%d.%d.%d", i/250, i%250, j), Name: fmt.Sprintf("pod-%d-%d", i, j),
				Namespace: "shop", Services: []string{fmt.Sprintf("s%d.shop.svc.cluster.local", i)},
			})
		}
		k.put(k.tables["endpointslices"], fmt.Sprint("shop/s", i), list)
	}
	b.ReportAllocs()
	for b.Loop() {
		if len(k.entities()) != 100_000 {
			b.Fatal("entities are missing")
		}
	}
}
