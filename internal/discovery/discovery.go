// SPDX-License-Identifier: Apache-2.0

// Package discovery knows which services have which IP addresses.
//
// Sources tell what they know through a Feed each: the configuration and DNS from this package, Kubernetes from the
// package kubernetes below it, so that whoever needs only the directory does not build its client. A Directory
// puts them together into one immutable snapshot behind an atomic pointer. Looking up an address takes no lock
// and allocates nothing; a change builds a new snapshot, so sources collect changes before they publish them.
//
// A service is nothing but a name that policies select by; an entity is something with an address, for example
// a pod, that belongs to any number of services.
package discovery

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// The names of sources.
const (
	SourceStatic     = "static"
	SourceDNS        = "dns"
	SourceKubernetes = "kubernetes"
)

// Entity is something with an address. It must not be changed once a Feed has it.
type Entity struct {
	// Address is an IP address or, from the configuration, a prefix such as 10.2.0.0/28.
	Address string
	// UID identifies the entity, if its source has identities; may be empty.
	UID string
	// Name, Namespace and Node tell people what it is; may be empty.
	Name, Namespace, Node string
	// Source that told.
	Source string
	// Services that it belongs to, sorted.
	Services []string
}

// Config says what a Directory takes from the configuration. The zero Config has no sources.
type Config struct {
	// MaxEntities bounds the entities of all sources together; 0: DefaultMaxEntities. More are left out.
	MaxEntities int
	// Static are services whose addresses do not change.
	Static []Static
	// DNS are services whose addresses DNS knows.
	DNS DNS
	// Logger; nil: no log.
	Logger *slog.Logger
}

// DefaultMaxEntities is the bound on entities unless told.
const DefaultMaxEntities = 100_000

// Directory answers which services have an address. All methods may be called concurrently.
type Directory struct {
	max      int
	log      *slog.Logger
	dns      *dnsSource // nil: none
	snapshot atomic.Pointer[snapshot]
	lookups  [stripes]lookups

	mu    sync.Mutex // guards feeds and what is in them; held while a snapshot is built
	feeds []*Feed
}

// New makes a directory that has the static services of the configuration; Run adds what takes time. The
// error is that of Config.Validate.
func New(config Config) (*Directory, error) {
	if err := config.Validate().Err(); err != nil {
		return nil, err
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	d := &Directory{max: config.MaxEntities, log: config.Logger}
	if d.max == 0 {
		d.max = DefaultMaxEntities
	}
	d.snapshot.Store(&snapshot{})
	if len(config.Static) > 0 {
		d.Feed(SourceStatic).Set(staticEntities(config.Static))
	}
	if len(config.DNS.Services) > 0 {
		d.dns = newDNS(config.DNS, d.Feed(SourceDNS), d.log)
	}
	return d, nil
}

// Run keeps the services of DNS up to date until ctx ends, which is no error. Call it once.
func (d *Directory) Run(ctx context.Context) error {
	if d.dns != nil {
		d.dns.run(ctx)
	}
	return nil
}

// ByIP is which services have an address, sorted; nil: none, or the text is no IP address. The answer is
// shared and must not be changed. It takes no lock and, for addresses without a zone, allocates nothing.
func (d *Directory) ByIP(address string) []string {
	s := d.snapshot.Load()
	if s.empty() || !mayBeAddress(address) {
		return nil
	}
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return nil
	}
	services := s.services(ip)
	d.lookups[stripeOf(ip)].count(services != nil)
	return services
}

// mayBeAddress sorts out the paths of Unix sockets and other text quickly.
func mayBeAddress(s string) bool {
	return len(s) > 1 && len(s) <= 64 && (s[0] <= '9' && s[0] >= '0' || s[0] == ':' || s[0]|0x20 <= 'f' && s[0]|0x20 >= 'a')
}

// Feed is how a source tells what it knows; the first call makes it. Sources that are asked first, when there
// are more entities than fit, are those whose feed was made first.
func (d *Directory) Feed(source string) *Feed {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, f := range d.feeds {
		if f.source == source {
			return f
		}
	}
	f := &Feed{directory: d, source: source}
	d.feeds = append(d.feeds, f)
	return f
}

// Feed takes what one source knows. Its methods may be called concurrently.
type Feed struct {
	directory *Directory
	source    string

	// Guarded by directory.mu.
	entities []Entity
	kept     int // of them, in the snapshot
	updated  time.Time
	problem  string
	failures uint64
}

// Set replaces the entities of the source and takes the list over. It builds a snapshot, which takes about a
// microsecond for each entity of all sources, unless nothing has changed.
func (f *Feed) Set(entities []Entity) {
	for i := range entities {
		entities[i].Source = f.source
	}
	d := f.directory
	d.mu.Lock()
	defer d.mu.Unlock()
	f.updated = time.Now()
	if slices.EqualFunc(f.entities, entities, Entity.equal) {
		return
	}
	f.entities = entities
	d.rebuild()
}

func (e Entity) equal(o Entity) bool {
	return e.Address == o.Address && e.UID == o.UID && e.Name == o.Name && e.Namespace == o.Namespace &&
		e.Node == o.Node && e.Source == o.Source && slices.Equal(e.Services, o.Services)
}

// Confirm tells that what Set told last is up to date at a time.
func (f *Feed) Confirm(at time.Time) {
	f.directory.mu.Lock()
	defer f.directory.mu.Unlock()
	f.updated = at
}

// Problem tells what goes wrong, in words; "": nothing any more. What is known stays as it is.
func (f *Feed) Problem(text string) {
	f.directory.mu.Lock()
	defer f.directory.mu.Unlock()
	f.problem = text
}

// Failed counts an attempt to bring the source up to date that failed.
func (f *Feed) Failed() {
	f.directory.mu.Lock()
	defer f.directory.mu.Unlock()
	f.failures++
}

// rebuild publishes a snapshot of all feeds. d.mu is held.
func (d *Directory) rebuild() {
	room := d.max
	lists := make([][]Entity, 0, len(d.feeds))
	for _, f := range d.feeds {
		f.kept = min(room, len(f.entities))
		room -= f.kept
		lists = append(lists, f.entities[:f.kept])
	}
	d.snapshot.Store(newSnapshot(lists))
}
