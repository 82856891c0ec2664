// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestValidate(t *testing.T) {
	dns := func(service, host string) Config { return Config{DNS: DNS{Services: []DNSService{{service, host}}}} }
	static := func(service string, addresses ...string) Config {
		return Config{Static: []Static{{Service: service, Addresses: addresses}}}
	}
	for _, tt := range []struct {
		config Config
		want   string // "": valid
	}{
		{Config{}, ""},
		{static("a", "10.0.0.1", "10.0.0.0/8", "::1", "fe80::/10", "0.0.0.0/0"), ""},
		{static("", "10.0.0.1"), `static[0].service: got nothing, want a name of 1 to 253 bytes without spaces and control characters`},
		{static("any", "10.0.0.1"), `static[0].service: got "any", want another name: "any" selects flows of all services`},
		{static("a b", "10.0.0.1"), `static[0].service: got "a b"`},
		{static("a\x00", "10.0.0.1"), `static[0].service: got "a\x00"`},
		{static(strings.Repeat("a", 254), "10.0.0.1"), `static[0].service: got "aaa`},
		{static("a"), `static[0].addresses: got none, want at least one IP address`},
		{static("a", "10.0.0.1", "10.0.0.256"), `static[0].addresses[1]: got "10.0.0.256", want an IP address such as 10.2.0.7, or a prefix such as 10.2.0.0/28`},
		{static("a", "fe80::1%eth0"), `static[0].addresses[0]`},
		{static("a", "checkout"), `static[0].addresses[0]`},
		{static("a", "::ffff:10.0.0.0/64"), `static[0].addresses[0]`},
		{static("a", "10.0.0.1:80"), `static[0].addresses[0]`},
		{Config{Static: []Static{{Service: "a", Addresses: []string{"::1"}, Name: "a\nb"}}}, `static[0].name: got "a\nb"`},
		{Config{MaxEntities: -1}, `max_entities: got -1, want 1 to 10000000`},
		{Config{Static: make([]Static, 10_001)}, `static: got 10001 services, want at most 10000`},
		{dns("a", "a.internal"), ""},
		{dns("a", "a.internal."), ""},
		{dns("a", "_http._tcp.a.internal"), ""},
		{dns("a", "xn--bcher-kva.example"), ""},
		{dns("a", "localhost"), ""},
		{dns("", "a.internal"), `dns.services[0].service: got nothing`},
		{dns("a", ""), `dns.services[0].host: got nothing, want a host name such as checkout.internal, or _http._tcp.checkout.internal for SRV records`},
		{dns("a", "."), `dns.services[0].host`},
		{dns("a", "a..b"), `dns.services[0].host`},
		{dns("a", "-a.b"), `dns.services[0].host`},
		{dns("a", "a b"), `dns.services[0].host`},
		{dns("a", "a.internal:80"), `dns.services[0].host`},
		{dns("a", "http://a.internal"), `dns.services[0].host`},
		{dns("a", "bücher.example"), `dns.services[0].host`},
		{dns("a", strings.Repeat("a", 64)+".example"), `dns.services[0].host`},
		{dns("a", strings.Repeat("a.", 150)), `dns.services[0].host`},
		{dns("a", "10.0.0.1"), `dns.services[0].host: got "10.0.0.1", want a host name; addresses belong into discovery.static`},
		{Config{DNS: DNS{Interval: time.Millisecond}}, `dns.interval: got 1ms, want 1s to 24h`},
		{Config{DNS: DNS{Interval: -time.Hour}}, `dns.interval: got -1h0m0s, want 1s to 24h`},
		{Config{DNS: DNS{Timeout: time.Hour}}, `dns.timeout: got 1h0m0s, want 100ms to 1m`},
		{Config{DNS: DNS{Keep: 25 * time.Hour}}, `dns.keep: got 25h0m0s, want at most 24h`},
		{Config{DNS: DNS{Services: make([]DNSService, 1001)}}, `dns.services: got 1001 services, want at most 1000`},
	} {
		err := tt.config.Validate().Err()
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("got %v, want it valid", err)
		case tt.want != "" && (err == nil || !strings.HasPrefix(err.Error(), tt.want)):
			t.Errorf("got %v, want %s", err, tt.want)
		}
		if _, err2 := New(tt.config); (err2 == nil) != (err == nil) {
			t.Errorf("New says %v, Validate says %v", err2, err)
		}
	}
}

// FuzzAddress feeds addresses of the configuration and of flows: whatever is accepted can be looked up, in the form
// it was written and in the one it is kept.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "10.0.0.0/8", "::1", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0", "::/0", "0.0.0.0/0", "/", "1.2.3.4/33"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		empty, err := New(Config{Static: []Static{{Service: "other", Addresses: []string{"192.0.2.1"}}}})
		if err != nil {
			t.Fatal(err)
		}
		empty.ByIP(text) // must not panic
		d, err := New(Config{Static: []Static{{Service: "s", Addresses: []string{text}}}})
		if err != nil {
			return
		}
		all := d.Entities()
		if len(all) != 1 {
			t.Fatalf("%q makes %d entities", text, len(all))
		}
		for _, a := range []string{text, all[0].Address} {
			host, _, _ := strings.Cut(a, "/")
			if got := d.ByIP(host); !cmp.Equal(got, []string{"s"}) {
				t.Fatalf("%q: ByIP(%q) = %q", text, host, got)
			}
		}
	})
}

// FuzzHost checks host names of the configuration: what is accepted is what a DNS message can carry.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"a.internal", "_http._tcp.a", "a.", ".", "10.0.0.1", "-", "a-b.c", "ü"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, host string) {
		if checkHost(host) != "" {
			return
		}
		name := strings.TrimSuffix(host, ".")
		if len(name) > 253 {
			t.Fatalf("%q is too long", host)
		}
		for _, label := range strings.Split(name, ".") {
			if len(label) == 0 || len(label) > 63 {
				t.Fatalf("%q has a part of %d bytes", host, len(label))
			}
		}
		if strings.ContainsAny(fmt.Sprintf("%q", host), `\%/:@ `) {
			t.Fatalf("%q has characters that names do not have", host)
		}
	})
}
