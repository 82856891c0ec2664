// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mustNew(t testing.TB, c Config) *Directory {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestByIP(t *testing.T) {
	d := mustNew(t, Config{Static: []Static{
		{Service: "checkout", Addresses: []string{"10.0.0.1", "10.0.0.2", "2001:db8::1"}},
		{Service: "billing", Addresses: []string{"10.0.0.2", "10.0.1.0/24"}, Name: "legacy"},
		{Service: "everything", Addresses: []string{"10.0.0.0/16", "2001:db8::/32"}},
		{Service: "mapped", Addresses: []string{"::ffff:10.9.0.1", "::ffff:10.8.0.0/120"}},
	}})
	for _, tt := range []struct {
		address string
		want    []string
	}{
		{"10.0.0.1", []string{"checkout", "everything"}},
		{"::ffff:10.0.0.1", []string{"checkout", "everything"}},
		{"10.0.0.2", []string{"billing", "checkout", "everything"}},
		{"10.0.1.255", []string{"billing", "everything"}},
		{"10.0.2.0", []string{"everything"}},
		{"10.1.0.0", nil},
		{"2001:db8::1", []string{"checkout", "everything"}},
		{"2001:DB8:0::1", []string{"checkout", "everything"}},
		{"2001:db8::2%eth0", []string{"everything"}},
		{"2001:db9::", nil},
		{"10.9.0.1", []string{"mapped"}},
		{"10.8.0.255", []string{"mapped"}},
		{"10.8.1.0", nil},
		{"", nil},
		{"@", nil},
		{"/run/checkout.sock", nil},
		{"checkout", nil},
		{"10.0.0.1:80", nil},
		{"010.0.0.1", nil},
		{strings.Repeat("1", 1000), nil},
	} {
		if got := d.ByIP(tt.address); !cmp.Equal(got, tt.want) {
			t.Errorf("ByIP(%q) = %q, want %q", tt.address, got, tt.want)
		}
	}
	if e, ok := d.EntityByIP("10.0.1.7"); !ok || e.Name != "legacy" || e.Address != "10.0.1.0/24" || e.Source != SourceStatic {
		t.Errorf("the entity of 10.0.1.7 is %+v, %v", e, ok)
	}
	if e, ok := d.EntityByName("legacy"); !ok || e.Address != "10.0.0.2" {
		t.Errorf("the entity named legacy is %+v, %v", e, ok)
	}
	if _, ok := d.EntityByName(""); ok {
		t.Error("there is an entity without a name")
	}
	if n := len(d.Entities()); n != 9 {
		t.Errorf("got %d entities, want 9", n)
	}
}

func TestNobodyKnowsAnything(t *testing.T) {
	d := mustNew(t, Config{})
	if got := d.ByIP("10.0.0.1"); got != nil {
		t.Errorf("got %q", got)
	}
	if got, more := d.Services(Query{}); len(got) != 0 || more {
		t.Errorf("got %v %v", got, more)
	}
	if _, ok := d.EntityByIP("10.0.0.1"); ok {
		t.Error("an entity is there")
	}
	if _, ok := d.EntityByName("a"); ok {
		t.Error("an entity is there")
	}
	if got := d.Sources(); len(got) != 0 {
		t.Errorf("got sources %v", got)
	}
}

// TestUnion compares a directory with the plain definition: an address has the services of all entities whose
// address or prefix has it in it.
func TestUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		address := rapid.Custom(func(t *rapid.T) netip.Addr {
			if rapid.Bool().Draw(t, "v6") {
				return netip.AddrFrom16([16]byte{0x20, 1, 15: byte(rapid.IntRange(0, 15).Draw(t, "last"))})
			}
			return netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 1).Draw(t, "third")), byte(rapid.IntRange(0, 15).Draw(t, "last"))})
		})
		var list []Static
		for i := range rapid.IntRange(1, 12).Draw(t, "services") {
			s := Static{Service: fmt.Sprintf("s%d", i%5)}
			for range rapid.IntRange(1, 3).Draw(t, "addresses") {
				a := address.Draw(t, "address")
				if bits := rapid.IntRange(0, 8).Draw(t, "shorter"); bits > 0 {
					s.Addresses = append(s.Addresses, netip.PrefixFrom(a, a.BitLen()-bits).String())
				} else {
					s.Addresses = append(s.Addresses, a.String())
				}
			}
			list = append(list, s)
		}
		d, err := New(Config{Static: list})
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			ip := address.Draw(t, "asked")
			var want []string
			for _, s := range list {
				for _, a := range s.Addresses {
					p, err := netip.ParsePrefix(a)
					if err != nil {
						p = netip.PrefixFrom(netip.MustParseAddr(a), ip.BitLen())
					}
					if p.Contains(ip) {
						want = append(want, s.Service)
					}
				}
			}
			slices.Sort(want)
			if want = slices.Compact(want); !cmp.Equal(d.ByIP(ip.String()), want) {
				t.Fatalf("%v: ByIP(%s) = %q, want %q", list, ip, d.ByIP(ip.String()), want)
			}
		}
	})
}

func TestFeeds(t *testing.T) {
	d := mustNew(t, Config{MaxEntities: 3, Static: []Static{{Service: "a", Addresses: []string{"10.0.0.1"}}}})
	k := d.Feed(SourceKubernetes)
	if d.Feed(SourceKubernetes) != k {
		t.Error("a source has two feeds")
	}
	k.Set([]Entity{
		{Address: "10.0.0.1", Name: "pod-1", Services: []string{"b"}},
		{Address: "10.0.0.2", Name: "pod-2"},
		{Address: "10.0.0.3", Name: "pod-3", Services: []string{"b"}},
	})
	if got := d.ByIP("10.0.0.1"); !cmp.Equal(got, []string{"a", "b"}) {
		t.Errorf("got %q, want the services of both sources", got)
	}
	if got := d.ByIP("10.0.0.2"); len(got) != 0 || got == nil {
		t.Errorf("got %#v, want no services of an address that is known", got)
	}
	if got := d.ByIP("10.0.0.3"); got != nil {
		t.Errorf("got %q for the fourth of three entities", got)
	}
	k.Problem("connection refused")
	k.Failed()
	s := d.Sources()
	if len(s) != 2 || s[1].Entities != 2 || s[1].LeftOut != 1 || s[1].Failures != 1 || s[1].Updated.IsZero() ||
		s[1].Problem != "connection refused; 1 entities are left out because there are more than 3: raise discovery.max_entities" {
		t.Errorf("got sources %+v", s)
	}
	before := d.snapshot.Load()
	k.Set(slices.Clone(k.entities))
	if d.snapshot.Load() != before {
		t.Error("a snapshot was built though nothing had changed")
	}
	at := time.Unix(1e9, 0)
	k.Confirm(at)
	if got := d.Sources()[1].Updated; got != at {
		t.Errorf("got %s, want %s", got, at)
	}
	k.Set(nil)
	if got := d.ByIP("10.0.0.1"); !cmp.Equal(got, []string{"a"}) {
		t.Errorf("got %q, want what is left", got)
	}
	k.Set([]Entity{{Address: "nonsense", Services: []string{"x"}}, {Address: "10.0.0.9", Services: []string{"x"}}})
	if got := d.ByIP("10.0.0.9"); !cmp.Equal(got, []string{"x"}) {
		t.Errorf("got %q, want that of the entity after the bad one", got)
	}
}

func TestServices(t *testing.T) {
	d := mustNew(t, Config{})
	var all []Entity
	for i := range 10 {
		all = append(all, Entity{Address: fmt.Sprintf("10.0.0.%d", i), Services: []string{"all", fmt.Sprintf("s%d", i%3)}})
	}
	d.Feed(SourceStatic).Set(all)
	names := func(q Query) (out []string, more bool) {
		list, more := d.Services(q)
		for _, s := range list {
			out = append(out, fmt.Sprintf("%s:%d", s.Name, len(s.Entities)))
		}
		return out, more
	}
	for _, tt := range []struct {
		query Query
		want  []string
		more  bool
	}{
		{Query{}, []string{"all:10", "s0:4", "s1:3", "s2:3"}, false},
		{Query{NameContains: "s"}, []string{"s0:4", "s1:3", "s2:3"}, false},
		{Query{NameContains: "nothing"}, nil, false},
		{Query{Most: 2}, []string{"all:10", "s0:4"}, true},
		{Query{Most: 2, After: "s0"}, []string{"s1:3", "s2:3"}, false},
		{Query{After: "s1x"}, []string{"s2:3"}, false},
		{Query{After: "zzz"}, nil, false},
		{Query{Address: netip.MustParseAddr("10.0.0.4")}, []string{"all:10", "s1:3"}, false},
		{Query{Address: netip.MustParseAddr("10.0.0.99")}, nil, false},
		{Query{MostEntities: 15}, []string{"all:10", "s0:4"}, true},
		{Query{MostEntities: 5}, []string{"all:5"}, true},
	} {
		got, more := names(tt.query)
		if !cmp.Equal(got, tt.want) || more != tt.more {
			t.Errorf("%+v: got %q %v, want %q %v", tt.query, got, more, tt.want, tt.more)
		}
	}
}

// TestConcurrent looks up while sources change; the race detector and the invariant watch.
func TestConcurrent(t *testing.T) {
	d := mustNew(t, Config{})
	var all sync.WaitGroup
	for _, source := range []string{SourceDNS, SourceKubernetes} {
		all.Go(func() {
			for i := range 200 {
				d.Feed(source).Set([]Entity{{Address: "10.0.0.1", Services: []string{source}}, {Address: fmt.Sprintf("10.0.1.%d", i), Services: []string{"x"}}})
			}
		})
	}
	for range 2 {
		all.Go(func() {
			for range 1000 {
				for _, s := range d.ByIP("10.0.0.1") {
					if s != SourceDNS && s != SourceKubernetes {
						t.Errorf("got service %q", s)
					}
				}
				d.Services(Query{})
				d.Sources()
			}
		})
	}
	all.Wait()
	if got := d.ByIP("10.0.0.1"); !cmp.Equal(got, []string{SourceDNS, SourceKubernetes}) {
		t.Errorf("got %q at the end", got)
	}
}

func TestMetrics(t *testing.T) {
	d := mustNew(t, Config{Static: []Static{{Service: "a", Addresses: []string{"10.0.0.1"}}}})
	d.ByIP("10.0.0.1")
	d.ByIP("10.0.0.1")
	d.ByIP("10.0.0.2")
	const want = `
# HELP sluice_discovery_lookups_total Addresses of flows that were looked up, by result: known or unknown. Nothing is looked up, nor counted, while there are no entities.
# TYPE sluice_discovery_lookups_total counter
sluice_discovery_lookups_total{result="known"} 2
sluice_discovery_lookups_total{result="unknown"} 1
# HELP sluice_discovery_source_working 1 when nothing is wrong with a source; else 0, and sluice discover --services says what.
# TYPE sluice_discovery_source_working gauge
sluice_discovery_source_working{source="static"} 1
`
	if err := testutil.CollectAndCompare(d.Collector(), strings.NewReader(want), "sluice_discovery_lookups_total", "sluice_discovery_source_working"); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(d.Collector()); err != nil || len(problems) > 0 {
		t.Errorf("%v %v", problems, err)
	}
}

// many is a directory of n pods.
func many(t testing.TB, n int) (*Directory, []Entity) {
	d := mustNew(t, Config{MaxEntities: n})
	all := make([]Entity, n)
	services := []string{"checkout.shop.svc.cluster.local"}
	for i := range all {
		all[i] = Entity{
			Address: netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String(), UID: fmt.Sprintf("uid-%d", i),
			Name: fmt.Sprintf("pod-%d", i), Namespace: "shop", Node: "node", Services: services,
		}
	}
	return d, all
}

func TestByIPAllocates(t *testing.T) {
	d, all := many(t, 1000)
	d.Feed(SourceKubernetes).Set(all)
	for _, address := range []string{"10.0.0.1", "10.99.0.1", "2001:db8::1", "/run/a.sock", ""} {
		if n := testing.AllocsPerRun(100, func() { d.ByIP(address) }); n != 0 {
			t.Errorf("ByIP(%q) allocates %g times", address, n)
		}
	}
}

func BenchmarkByIP(b *testing.B) {
	for _, tt := range []struct {
		name string
		n    int
		list []Static
		ip   string
	}{
		{"known of 100k", 100_000, nil, "10.0.200.17"},
		{"unknown of 100k", 100_000, nil, "10.99.0.1"},
		{"IPv6 unknown", 100_000, nil, "2001:db8:1:2:3:4:5:6"},
		{"nobody", 0, nil, "10.0.0.1"},
	} {
		b.Run(tt.name, func(b *testing.B) {
			d, all := many(b, tt.n)
			d.Feed(SourceKubernetes).Set(all)
			b.ReportAllocs()
			for b.Loop() {
				d.ByIP(tt.ip)
			}
		})
	}
	b.Run("in a prefix of three lengths", func(b *testing.B) {
		d := mustNew(b, Config{Static: []Static{{Service: "a", Addresses: []string{"10.0.0.0/8", "11.0.0.0/16", "11.1.1.0/24"}}}})
		b.ReportAllocs()
		for b.Loop() {
			d.ByIP("10.200.3.4")
		}
	})
	b.Run("parallel", func(b *testing.B) {
		d, all := many(b, 100_000)
		d.Feed(SourceKubernetes).Set(all)
		b.RunParallel(func(pb *testing.PB) {
			ip := all[rand.IntN(len(all))].Address
			for pb.Next() {
				d.ByIP(ip)
			}
		})
	})
}

func BenchmarkSet100k(b *testing.B) {
	d, all := many(b, 100_000)
	f := d.Feed(SourceKubernetes)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		all = slices.Clone(all)
		all[0].UID = fmt.Sprint(i)
		f.Set(all)
	}
}
