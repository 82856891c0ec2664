// SPDX-License-Identifier: Apache-2.0

package discovery

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Service is a name with the entities behind it.
type Service struct {
	Name     string
	Entities []Entity
}

// listing is a snapshot as people read it. It is made when somebody does.
type listing struct {
	names  []string           // of services, sorted
	behind map[string][]int32 // entities by service
	byName map[string]int32   // the first entity with a name
}

func (s *snapshot) list() *listing {
	l := &listing{behind: make(map[string][]int32), byName: make(map[string]int32)}
	for i := range s.entities {
		e := &s.entities[i]
		for _, name := range e.Services {
			if _, ok := l.behind[name]; !ok {
				l.names = append(l.names, name)
			}
			l.behind[name] = append(l.behind[name], int32(i))
		}
		if _, ok := l.byName[e.Name]; !ok && e.Name != "" {
			l.byName[e.Name] = int32(i)
		}
	}
	slices.Sort(l.names)
	return l
}

// Query says which services to list. The zero Query lists all.
type Query struct {
	// NameContains is a part of the name; "": any.
	NameContains string
	// Address of an entity; the zero Addr: any.
	Address netip.Addr
	// After leaves out names up to and including this one.
	After string
	// Most services to list; 0: no bound. MostEntities bounds the entities behind them all; 0: no bound. At
	// least one service is listed if there is one, with no more entities than that.
	Most, MostEntities int
}

// Services lists services by name; more tells that there are others after the last.
func (d *Directory) Services(q Query) (services []Service, more bool) {
	s := d.snapshot.Load()
	if s.empty() {
		return nil, false
	}
	l := s.listed()
	names, room := l.names, q.MostEntities
	if q.Address.IsValid() {
		names = s.services(q.Address)
	}
	from, ok := slices.BinarySearch(names, q.After)
	if ok {
		from++
	}
	for _, name := range names[from:] {
		if !strings.Contains(name, q.NameContains) {
			continue
		}
		behind := l.behind[name]
		if q.Most > 0 && len(services) == q.Most {
			return services, true
		}
		if q.MostEntities > 0 {
			if len(behind) > room && len(services) > 0 {
				return services, true
			}
			behind = behind[:min(len(behind), room)]
			room -= len(behind)
		}
		one := Service{Name: name, Entities: make([]Entity, len(behind))}
		for i, at := range behind {
			one.Entities[i] = s.entities[at]
		}
		services = append(services, one)
	}
	return services, false
}

// Entities lists all entities. The list is shared and must not be changed.
func (d *Directory) Entities() []Entity { return d.snapshot.Load().entities }

// EntityByIP finds the entity that has an address; of several, that of the first source. Its services are
// its own: ByIP has those of all of them.
func (d *Directory) EntityByIP(address string) (e Entity, ok bool) {
	s := d.snapshot.Load()
	ip, err := netip.ParseAddr(address)
	if err != nil || s.empty() {
		return Entity{}, false
	}
	f, ok := s.find(ip)
	if !ok {
		return Entity{}, false
	}
	return s.entities[f.entity], true
}

// EntityByName finds the entity that has a name; of several, that of the first source.
func (d *Directory) EntityByName(name string) (e Entity, ok bool) {
	s := d.snapshot.Load()
	if s.empty() || name == "" {
		return Entity{}, false
	}
	at, ok := s.listed().byName[name]
	if !ok {
		return Entity{}, false
	}
	return s.entities[at], true
}

// Source tells how a source does.
type Source struct {
	// Name of the source.
	Name string
	// Entities of it that are in the directory, and those that are left out because there are too many.
	Entities, LeftOut int
	// Updated is when it was up to date last; zero: never.
	Updated time.Time
	// Problem in words; "": none.
	Problem string
	// Failures since start.
	Failures uint64
}

// Sources lists the sources in the order of their feeds.
func (d *Directory) Sources() []Source {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]Source, 0, len(d.feeds))
	for _, f := range d.feeds {
		one := Source{
			Name: f.source, Entities: f.kept, LeftOut: len(f.entities) - f.kept, Updated: f.updated,
			Problem: f.problem, Failures: f.failures,
		}
		if one.LeftOut > 0 {
			text := fmt.Sprintf("%d entities are left out because there are more than %d: raise discovery.max_entities",
				one.LeftOut, d.max)
			if one.Problem != "" {
				text = one.Problem + "; " + text
			}
			one.Problem = text
		}
		out = append(out, one)
	}
	return out
}
