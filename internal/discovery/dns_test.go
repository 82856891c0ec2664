// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// fakeDNS answers from tables.
type fakeDNS struct {
	mu      sync.Mutex
	hosts   map[string][]string
	records map[string][]string
	fail    error         // of every look-up
	hang    bool          // until the look-up is given up
	takes   time.Duration // each look-up
	asked   map[string][]time.Time
	running int
	most    int
}

func (f *fakeDNS) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeDNS) begin(ctx context.Context, host string) error {
	f.mu.Lock()
	if f.asked == nil {
		f.asked = map[string][]time.Time{}
	}
	f.asked[host] = append(f.asked[host], time.Now())
	f.running++
	f.most = max(f.most, f.running)
	fail, hang, takes := f.fail, f.hang, f.takes
	f.mu.Unlock()
	defer f.set(func() { f.running-- })
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	time.Sleep(takes)
	return fail
}

func (f *fakeDNS) LookupNetIP(ctx context.Context, _, host string) ([]netip.Addr, error) {
	if err := f.begin(ctx, host); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []netip.Addr
	for _, a := range f.hosts[host] {
		out = append(out, netip.MustParseAddr(a))
	}
	if len(out) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, Server: "10.0.0.53:53", IsNotFound: true}
	}
	return out, nil
}

func (f *fakeDNS) LookupSRV(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if service != "" || proto != "" {
		return "", nil, errors.New("the name was not asked for as it is")
	}
	if err := f.begin(ctx, name); err != nil {
		return "", nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []*net.SRV
	for _, target := range f.records[name] {
		out = append(out, &net.SRV{Target: target, Port: 80})
	}
	if len(out) == 0 {
		return "", nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
	}
	return name, out, nil
}

// runDNS runs a directory in the bubble until the test is over.
func runDNS(t *testing.T, config DNS) *Directory {
	t.Helper()
	d := mustNew(t, Config{DNS: config})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := d.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	synctest.Wait()
	return d
}

func TestDNSFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{hosts: map[string][]string{"a.internal": {"10.0.0.2", "10.0.0.1", "10.0.0.1"}, "b.internal": {"10.0.0.1", "2001:db8::1"}}}
		d := runDNS(t, DNS{Interval: time.Minute, Resolver: f, Services: []DNSService{{"a", "a.internal"}, {"b", "b.internal"}}})
		if got := d.ByIP("10.0.0.1"); !cmp.Equal(got, []string{"a", "b"}) {
			t.Errorf("got %q, want both services", got)
		}
		if got := d.ByIP("2001:db8::1"); !cmp.Equal(got, []string{"b"}) {
			t.Errorf("got %q", got)
		}
		f.set(func() { f.hosts["a.internal"] = []string{"10.0.0.3"} })
		time.Sleep(54*time.Second - time.Millisecond)
		synctest.Wait()
		if got := d.ByIP("10.0.0.3"); got != nil {
			t.Errorf("got %q before the interval was over", got)
		}
		time.Sleep(12*time.Second + 2*time.Millisecond)
		synctest.Wait()
		if got := d.ByIP("10.0.0.3"); !cmp.Equal(got, []string{"a"}) {
			t.Errorf("got %q, want the new answer", got)
		}
		if got := d.ByIP("10.0.0.2"); got != nil {
			t.Errorf("got %q for an address that is no longer the answer", got)
		}
		if s := d.Sources()[0]; s.Problem != "" || s.Entities != 3 || time.Since(s.Updated) > 67*time.Second {
			t.Errorf("got source %+v", s)
		}
	})
}

// TestDNSJitter shows that look-ups do not come all at once.
func TestDNSJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{hosts: map[string][]string{"a": {"10.0.0.1"}}}
		runDNS(t, DNS{Interval: 100 * time.Second, Resolver: f, Services: []DNSService{{"a", "a"}}})
		time.Sleep(time.Hour)
		synctest.Wait()
		seen := map[time.Duration]bool{}
		f.mu.Lock()
		times := f.asked["a"]
		f.mu.Unlock()
		for i := 1; i < len(times); i++ {
			gap := times[i].Sub(times[i-1])
			if gap < 90*time.Second || gap > 110*time.Second {
				t.Errorf("a gap of %s between look-ups, want 90 to 110 s", gap)
			}
			seen[gap] = true
		}
		if len(times) < 32 || len(seen) < 20 {
			t.Errorf("%d look-ups in an hour with %d different gaps", len(times), len(seen))
		}
	})
}

func TestDNSKeeps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{hosts: map[string][]string{"a.internal": {"10.0.0.1"}}}
		d := runDNS(t, DNS{Interval: 30 * time.Second, Keep: 5 * time.Minute, Resolver: f, Services: []DNSService{{"a", "a.internal"}}})
		f.set(func() {
			f.fail = &net.DNSError{Err: "server misbehaving", Name: "a.internal", Server: "10.0.0.53:53", IsTemporary: true}
		})
		good := time.Now()
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if s := d.Sources()[0]; s.Problem != "a.internal: server misbehaving" || s.Failures == 0 || s.Updated != good {
			t.Errorf("got source %+v, want what went wrong", s)
		}
		time.Sleep(time.Until(good.Add(5*time.Minute - time.Millisecond)))
		synctest.Wait()
		if got := d.ByIP("10.0.0.1"); !cmp.Equal(got, []string{"a"}) {
			t.Errorf("got %q, want the last answer", got)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if got := d.ByIP("10.0.0.1"); got != nil {
			t.Errorf("got %q when it was kept long enough", got)
		}
		f.mu.Lock()
		n := len(f.asked["a.internal"])
		f.mu.Unlock()
		if n < 12 || n > 24 {
			t.Errorf("%d look-ups in 5 min of failure, want those of the interval and a few sooner ones", n)
		}
		f.set(func() { f.fail = nil })
		time.Sleep(34 * time.Second)
		synctest.Wait()
		if got := d.ByIP("10.0.0.1"); !cmp.Equal(got, []string{"a"}) || d.Sources()[0].Problem != "" {
			t.Errorf("got %q, %+v after DNS was back", got, d.Sources())
		}
	})
}

// TestDNSRetriesSoon: the first failure is followed by another try within a second or so.
func TestDNSRetriesSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{hosts: map[string][]string{"a": {"10.0.0.1"}}, fail: errors.New("no route to host")}
		d := runDNS(t, DNS{Interval: time.Hour, Resolver: f, Services: []DNSService{{"a", "a"}}})
		if s := d.Sources()[0]; s.Problem != "a: no route to host" || !s.Updated.IsZero() {
			t.Errorf("got source %+v", s)
		}
		f.set(func() { f.fail = nil })
		time.Sleep(1100 * time.Millisecond)
		synctest.Wait()
		if got := d.ByIP("10.0.0.1"); got == nil {
			t.Error("no second try within a second")
		}
	})
}

func TestDNSRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{
			hosts:   map[string][]string{"one.internal.": {"10.0.0.1"}, "two.internal.": {"10.0.0.2"}},
			records: map[string][]string{"_http._tcp.shop": {"one.internal.", "two.internal.", "one.internal.", "gone.internal."}, "_none._tcp.shop": {"."}},
		}
		d := runDNS(t, DNS{Resolver: f, Services: []DNSService{{"shop", "_http._tcp.shop"}, {"none", "_none._tcp.shop"}, {"missing", "_m._tcp.shop"}}})
		if !cmp.Equal(d.ByIP("10.0.0.1"), []string{"shop"}) || !cmp.Equal(d.ByIP("10.0.0.2"), []string{"shop"}) {
			t.Errorf("got %q %q", d.ByIP("10.0.0.1"), d.ByIP("10.0.0.2"))
		}
		const want = "_http._tcp.shop: target gone.internal.: there is no such name in DNS, or it has no address; _m._tcp.shop: there is no such name in DNS, or it has no address"
		if got := d.Sources()[0].Problem; got != want {
			t.Errorf("got the problem %q, want %q", got, want)
		}
		if n := len(f.asked["one.internal."]); n != 1 {
			t.Errorf("a target was looked up %d times in one round", n)
		}
	})
}

// TestDNSHangs: a server that does not answer costs the time-out, and the end of the process nothing.
func TestDNSHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{hang: true}
		d := mustNew(t, Config{DNS: DNS{Timeout: 3 * time.Second, Resolver: f, Services: []DNSService{{"a", "a"}}}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = d.Run(ctx) }()
		time.Sleep(3*time.Second + time.Millisecond)
		synctest.Wait()
		if got := d.Sources()[0].Problem; got != "a: DNS did not answer in time" {
			t.Errorf("got the problem %q", got)
		}
		time.Sleep(2 * time.Second) // in the middle of the second try
		at := time.Now()
		cancel()
		<-done
		if waited := time.Since(at); waited > 0 {
			t.Errorf("the end took %s", waited)
		}
	})
}

// TestDNSManyNames: no more than a few look-ups at a time, and all names get their turn.
func TestDNSManyNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{hosts: map[string][]string{}, takes: 10 * time.Millisecond}
		var services []DNSService
		for i := range 300 {
			host := fmt.Sprintf("h%d.internal", i)
			f.hosts[host] = []string{fmt.Sprintf("10.0.%d.%d", i/100, i%100)}
			services = append(services, DNSService{fmt.Sprintf("s%d", i), host})
		}
		d := runDNS(t, DNS{Resolver: f, Services: services})
		time.Sleep(time.Second)
		synctest.Wait()
		if list, _ := d.Services(Query{}); len(list) != 300 {
			t.Errorf("got %d services, want 300", len(list))
		}
		if f.most > maxLookups {
			t.Errorf("%d look-ups at the same time, want at most %d", f.most, maxLookups)
		}
		f.set(func() { f.fail = errors.New("broken") })
		time.Sleep(40 * time.Second)
		synctest.Wait()
		if got := d.Sources()[0].Problem; strings.Count(got, ";") != 3 || !strings.HasSuffix(got, "and 297 more") {
			t.Errorf("got the problem %q, want a few and how many more", got)
		}
	})
}

func TestDNSFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeDNS{hosts: map[string][]string{}}
		for i := range 2000 {
			f.hosts["a"] = append(f.hosts["a"], netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String())
		}
		d := runDNS(t, DNS{Resolver: f, Services: []DNSService{{"a", "a"}}})
		if s := d.Sources()[0]; s.Entities != maxAddresses || s.Problem != "a: it has 2000 addresses; only 1000 of them are used" {
			t.Errorf("got source %+v", s)
		}
	})
}
