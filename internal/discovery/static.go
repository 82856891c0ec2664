// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-project/sluice/internal/fielderr"
)

// Static is a service whose addresses do not change.
type Static struct {
	// Service is its name.
	Service string
	// Addresses are IP addresses or prefixes such as 10.2.0.0/28.
	Addresses []string
	// Name of what has these addresses, for lists; may be empty.
	Name string
}

// Bounds on the configuration.
const (
	maxName    = 253
	maxNames   = 1_000  // of hosts in DNS
	maxStatics = 10_000 // services in the configuration
)

// Validate reports every mistake, each with its path below the section of discovery.
func (c Config) Validate() fielderr.List {
	var found fielderr.List
	add := func(path, got, want string) {
		found = append(found, &fielderr.Error{Path: path, Got: got, Want: want})
	}
	if c.MaxEntities < 0 || c.MaxEntities > 10_000_000 {
		add("max_entities", strconv.Itoa(c.MaxEntities), "1 to 10000000")
	}
	if len(c.Static) > maxStatics {
		add("static", fmt.Sprintf("%d services", len(c.Static)), fmt.Sprintf("at most %d", maxStatics))
		return found
	}
	for i := range c.Static {
		s, path := &c.Static[i], fmt.Sprintf("static[%d]", i)
		if want := checkName(s.Service); want != "" {
			add(path+".service", quoted(s.Service), want)
		}
		if s.Name != "" && checkName(s.Name) != "" {
			add(path+".name", quoted(s.Name), checkName(s.Name))
		}
		if len(s.Addresses) == 0 {
			add(path+".addresses", "none", "at least one IP address")
		}
		for j, a := range s.Addresses {
			if _, ok := parseAddress(a); !ok {
				add(fmt.Sprintf("%s.addresses[%d]", path, j), quoted(a), "an IP address such as 10.2.0.7, or a prefix such as 10.2.0.0/28")
			}
		}
	}
	return append(found, c.DNS.validate()...)
}

func quoted(s string) string {
	if s == "" {
		return "nothing"
	}
	return fmt.Sprintf("%.80q", s)
}

// checkName says what a name should be; "": it is.
func checkName(name string) string {
	switch {
	case name == "any":
		return `another name: "any" selects flows of all services`
	case name == "", len(name) > maxName, !utf8.ValidString(name), strings.ContainsFunc(name, unprintable):
		return fmt.Sprintf("a name of 1 to %d bytes without spaces and control characters", maxName)
	}
	return ""
}

func unprintable(r rune) bool { return !unicode.IsPrint(r) || unicode.IsSpace(r) }

// parseAddress reads an address or a prefix and writes it in its usual form.
func parseAddress(text string) (address string, ok bool) {
	if ip, err := netip.ParseAddr(text); err == nil && ip.Zone() == "" {
		return ip.Unmap().String(), true
	}
	if p, err := netip.ParsePrefix(text); err == nil {
		if p.Addr().Is4In6() { // ::ffff:10.2.0.0/124
			if p.Bits() < 96 {
				return "", false
			}
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		return p.Masked().String(), true
	}
	return "", false
}

// staticEntities are the entities of a valid configuration: one for each name and address.
func staticEntities(list []Static) []Entity {
	type key struct{ address, name string }
	at := make(map[key]int)
	var out []Entity
	for i := range list {
		for _, text := range list[i].Addresses {
			address, _ := parseAddress(text)
			k := key{address, list[i].Name}
			n, ok := at[k]
			if !ok {
				n = len(out)
				at[k] = n
				out = append(out, Entity{Address: address, Name: list[i].Name})
			}
			out[n].Services = union(out[n].Services, []string{list[i].Service})
		}
	}
	return out
}

// DNS are services whose addresses DNS knows.
type DNS struct {
	// Interval between two look-ups of a name, give or take a tenth; 0: DefaultInterval.
	Interval time.Duration
	// Timeout of one look-up; 0: DefaultTimeout.
	Timeout time.Duration
	// Keep is how long the last answer counts while look-ups fail; 0: DefaultKeep, negative: not at all.
	Keep time.Duration
	// Services by host name.
	Services []DNSService
	// Resolver to ask; nil: that of the system.
	Resolver Resolver
}

// DNSService is a service that has the addresses of a host name.
type DNSService struct {
	// Service is its name.
	Service string
	// Host is looked up; one that begins with an underscore as an SRV record, whose targets are looked up then.
	Host string
}

// What DNS has unless told.
const (
	DefaultInterval = 30 * time.Second
	DefaultTimeout  = 5 * time.Second
	DefaultKeep     = 10 * time.Minute
)

func (c DNS) validate() fielderr.List {
	var found fielderr.List
	add := func(path, got, want string) {
		found = append(found, &fielderr.Error{Path: path, Got: got, Want: want})
	}
	if c.Interval != 0 && (c.Interval < time.Second || c.Interval > 24*time.Hour) {
		add("dns.interval", c.Interval.String(), "1s to 24h")
	}
	if c.Timeout != 0 && (c.Timeout < 100*time.Millisecond || c.Timeout > time.Minute) {
		add("dns.timeout", c.Timeout.String(), "100ms to 1m")
	}
	if c.Keep > 24*time.Hour {
		add("dns.keep", c.Keep.String(), "at most 24h")
	}
	if len(c.Services) > maxNames {
		add("dns.services", fmt.Sprintf("%d services", len(c.Services)), fmt.Sprintf("at most %d", maxNames))
		return found
	}
	for i, s := range c.Services {
		path := fmt.Sprintf("dns.services[%d]", i)
		if want := checkName(s.Service); want != "" {
			add(path+".service", quoted(s.Service), want)
		}
		if want := checkHost(s.Host); want != "" {
			add(path+".host", quoted(s.Host), want)
		}
	}
	return found
}

// checkHost says what a host name should be; "": it is.
func checkHost(host string) string {
	if _, err := netip.ParseAddr(host); err == nil {
		return "a host name; addresses belong into discovery.static"
	}
	const want = "a host name such as checkout.internal, or _http._tcp.checkout.internal for SRV records"
	name := strings.TrimSuffix(host, ".")
	if name == "" || len(name) > maxName {
		return want
	}
	for part := range strings.SplitSeq(name, ".") {
		if part == "" || len(part) > 63 || strings.Trim(part, hostCharacters) != "" || part[0] == '-' || part[len(part)-1] == '-' {
			return want
		}
	}
	return ""
}

const hostCharacters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
