// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
)

// snapshot is the directory at one moment. It never changes.
type snapshot struct {
	entities []Entity
	byIP     map[netip.Addr]found
	prefixes map[netip.Prefix]found
	lengths  []int // of prefixes, the longest first, as if all were IPv6 prefixes
	listed   func() *listing
}

// found is what an address leads to.
type found struct {
	services []string
	entity   int32 // the first with this address
}

func newSnapshot(lists [][]Entity) *snapshot {
	n := 0
	for _, l := range lists {
		n += len(l)
	}
	s := &snapshot{
		entities: make([]Entity, 0, n), byIP: make(map[netip.Addr]found, n), prefixes: map[netip.Prefix]found{},
	}
	for _, l := range lists {
		for i := range l {
			s.add(&l[i])
		}
	}
	s.widen()
	s.listed = sync.OnceValue(s.list)
	return s
}

// add takes an entity up, unless its address is none.
func (s *snapshot) add(e *Entity) {
	at := int32(len(s.entities))
	if ip, err := netip.ParseAddr(e.Address); err == nil {
		ip = canonical(ip)
		s.byIP[ip] = s.byIP[ip].with(e.Services, at)
	} else if p, err := netip.ParsePrefix(e.Address); err == nil {
		p = wide(p)
		if !slices.Contains(s.lengths, p.Bits()) {
			s.lengths = append(s.lengths, p.Bits())
		}
		s.prefixes[p] = s.prefixes[p].with(e.Services, at)
	} else {
		return
	}
	s.entities = append(s.entities, *e)
}

// with adds services; at is the entity that has them.
func (f found) with(services []string, at int32) found {
	if len(f.services) == 0 {
		if len(services) == 0 {
			services = []string{} // known, and of no service
		}
		if f.services != nil {
			at = f.entity
		}
		return found{services, at}
	}
	for _, name := range services {
		if _, ok := slices.BinarySearch(f.services, name); !ok {
			f.services = union(f.services, services)
			break
		}
	}
	return f
}

func union(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// widen gives every address the services of the prefixes around it, so that a look-up ends with the first
// match.
func (s *snapshot) widen() {
	slices.SortFunc(s.lengths, func(a, b int) int { return cmp.Compare(b, a) })
	for i := len(s.lengths) - 2; i >= 0; i-- { // the shortest have none around them
		for p, f := range s.prefixes {
			if p.Bits() != s.lengths[i] {
				continue
			}
			if around, ok := s.around(p.Addr(), s.lengths[i+1:]); ok {
				s.prefixes[p] = f.with(around.services, f.entity)
			}
		}
	}
	if len(s.lengths) == 0 {
		return
	}
	for ip, f := range s.byIP {
		if around, ok := s.around(ip, s.lengths); ok {
			s.byIP[ip] = f.with(around.services, f.entity)
		}
	}
}

// around finds the longest of the prefixes of these lengths that contains ip.
func (s *snapshot) around(ip netip.Addr, lengths []int) (found, bool) {
	ip = netip.AddrFrom16(ip.As16())
	for _, bits := range lengths {
		p, err := ip.Prefix(bits)
		if err != nil {
			continue
		}
		if f, ok := s.prefixes[p]; ok {
			return f, true
		}
	}
	return found{}, false
}

// canonical is the one form of an address under which it is kept.
func canonical(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

// wide is a prefix as one of IPv6: those of IPv4 are below ::ffff:0:0/96.
func wide(p netip.Prefix) netip.Prefix {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	return netip.PrefixFrom(netip.AddrFrom16(p.Addr().As16()), bits).Masked()
}

func (s *snapshot) empty() bool { return len(s.entities) == 0 }

func (s *snapshot) find(ip netip.Addr) (found, bool) {
	ip = canonical(ip)
	if f, ok := s.byIP[ip]; ok {
		return f, true
	}
	if len(s.lengths) == 0 {
		return found{}, false
	}
	return s.around(ip, s.lengths)
}

// services is nil when the address is not known.
func (s *snapshot) services(ip netip.Addr) []string {
	f, _ := s.find(ip)
	return f.services
}

// stripes keep the counters of different cores apart, mostly: an address has its stripe.
const stripes = 16

type lookups struct {
	known, unknown atomic.Uint64
	_              [48]byte
}

func stripeOf(ip netip.Addr) int {
	b := ip.As16()
	return int(b[15]^b[14]^b[13]) % stripes
}

func (l *lookups) count(known bool) {
	if known {
		l.known.Add(1)
	} else {
		l.unknown.Add(1)
	}
}
