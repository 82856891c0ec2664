// SPDX-License-Identifier: Apache-2.0

package document

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// Config connects a Catalog and bounds it. Store, Compiler and Publisher are required.
type Config struct {
	Store      Store
	Compiler   Compiler
	Publisher  Publisher
	Logger     *slog.Logger          // nil: no log
	Registerer prometheus.Registerer // nil: no metrics

	// NoDirectory tells that no policy directory is watched: policies that once came from one, whose files
	// nobody reads any more, can be changed like the others.
	NoDirectory bool

	MaxDocumentBytes int // of one document; 0: 1 MiB
	MaxPolicies      int // in force at once; 0: 10,000
	KeptVersions     int // of each policy, the newest; 0: 1000
}

// DefaultConfig has every bound written out and nothing connected. A document of 1 MiB has some 20,000
// lines; 1000 versions are years of daily edits.
func DefaultConfig() Config {
	return Config{MaxDocumentBytes: 1 << 20, MaxPolicies: 10_000, KeptVersions: 1000}
}

// Validate reports every mistake at once.
func (c Config) Validate() error {
	var errs []error
	for _, part := range []struct {
		name    string
		missing bool
	}{{"Store", c.Store == nil}, {"Compiler", c.Compiler == nil}, {"Publisher", c.Publisher == nil}} {
		if part.missing {
			errs = append(errs, fmt.Errorf("policy catalog: %s is required", part.name))
		}
	}
	for _, bound := range []struct {
		name  string
		value int
	}{
		{"max_document_bytes", c.MaxDocumentBytes},
		{"max_policies", c.MaxPolicies},
		{"kept_versions", c.KeptVersions},
	} {
		if bound.value < 0 {
			errs = append(errs, fmt.Errorf("policy catalog: %s: got %d, want at least 1, or 0 for the default", bound.name, bound.value))
		}
	}
	return errors.Join(errs...)
}

// Catalog holds the policies in force. Make one with NewCatalog and call Load before use. All methods
// may be called concurrently; changes happen one after the other.
type Catalog struct {
	config  Config
	log     *slog.Logger
	metrics *metrics

	// change is held during a whole change, while compiled policies are checked, stored and published:
	// a change is rare and its order matters more than its speed. Readers do not need it. Lock order:
	// change, mu.
	change      sync.Mutex
	stale       bool // inForce may differ from the store: not loaded yet, or an append failed
	unpublished bool // the publisher has not seen inForce

	mu      sync.RWMutex
	inForce policies // replaced, never changed: may be read after unlocking
}

// policies are the policies in force, by name.
type policies struct {
	byName map[string]*policy
	names  []string // sorted
}

// policy is one policy in force. It never changes.
type policy struct {
	head     Version // without its document
	compiled *Compiled
}

// NewCatalog makes an empty catalog; Load fills it. It fails when config is not valid or its metrics
// are registered already.
func NewCatalog(config Config) (*Catalog, error) {
	if err := config.Validate(); err != nil {
		return nil, err
	}
	defaults := DefaultConfig()
	for value, fallback := range map[*int]int{
		&config.MaxDocumentBytes: defaults.MaxDocumentBytes,
		&config.MaxPolicies:      defaults.MaxPolicies,
		&config.KeptVersions:     defaults.KeptVersions,
	} {
		if *value == 0 {
			*value = fallback
		}
	}
	if config.Logger == nil {
		config.Logger = slog.New(slog.DiscardHandler)
	}
	m, err := newMetrics(config.Registerer)
	if err != nil {
		return nil, err
	}
	return &Catalog{config: config, log: config.Logger, metrics: m, stale: true}, nil
}

// Load reads what is in force from the store, compiles and publishes it. An error means that the
// server must not start: it would run without limits that somebody relies on. The error then lists
// every policy this release cannot run.
func (c *Catalog) Load(ctx context.Context) error {
	c.change.Lock()
	defer c.change.Unlock()
	if err := c.reloadLocked(ctx); err != nil {
		return err
	}
	set := c.current().compiled()
	if err := c.config.Publisher.Check(set); err != nil {
		return fmt.Errorf("put the stored policies into force: %w", err)
	}
	return c.publishLocked(set)
}

// reloadLocked makes inForce what the store says. REQUIRES change.
func (c *Catalog) reloadLocked(ctx context.Context) error {
	next := policies{byName: map[string]*policy{}}
	var failures []error
	for v, err := range c.config.Store.Active(ctx) {
		if err != nil {
			return fmt.Errorf("%w: read the policies in force: %w", ErrStore, err)
		}
		p, err := c.restore(v)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		next.byName[v.Name] = p
	}
	if len(failures) > 0 {
		return fmt.Errorf("%d stored policies cannot run in this release: %w\nStart the release that stored them and correct or delete them there",
			len(failures), errors.Join(failures...))
	}
	next.names = slices.Sorted(maps.Keys(next.byName))
	next.assign()
	c.setCurrent(next)
	c.stale, c.unpublished = false, true
	return nil
}

// restore compiles a stored version.
func (c *Catalog) restore(v Version) (*policy, error) {
	compiled, err := c.compile(Source{Name: v.Name, File: v.File, Blueprint: v.Blueprint, Text: []byte(v.Document)})
	if err != nil {
		return nil, fmt.Errorf("policy %q version %d: %w", v.Name, v.Version, err)
	}
	if compiled.Name != v.Name {
		return nil, fmt.Errorf("policy %q version %d: its document names it %q", v.Name, v.Version, compiled.Name)
	}
	if compiled.Hash != v.Hash {
		c.log.Info("a stored policy means something else in this release, for example because of a new default",
			"policy", v.Name, "version", v.Version, "stored_hash", v.Hash, "hash", compiled.Hash)
	}
	v.Document = ""
	return &policy{head: v, compiled: compiled}, nil
}

// assign gives stored policies the identities they were stored with.
func (p policies) assign() {
	used := map[uint64]bool{}
	for _, name := range p.names {
		for _, l := range p.byName[name].head.Limiters {
			used[l.UID] = true
		}
	}
	for _, name := range p.names {
		policy := p.byName[name]
		stored := policy.head.Limiters
		for _, l := range stored {
			delete(used, l.UID)
		}
		adopt(&policy.head, policy.compiled, stored, used)
		for _, l := range slices.Concat(stored, policy.head.Limiters) {
			used[l.UID] = true
		}
	}
}

// adopt makes v the version of compiled and gives its limiters their identities.
func adopt(v *Version, compiled *Compiled, previous []LimiterRef, used map[uint64]bool) {
	v.Limiters = compiled.Limiters
	v.Limiters = assignIdentities(*v, previous, used)
	compiled.Limiters = slices.Clone(v.Limiters)
	compiled.Version = v.Version
	v.Components = compiled.Components
}

// compile checks a document by itself.
func (c *Catalog) compile(source Source) (*Compiled, error) {
	if len(source.Text) > c.config.MaxDocumentBytes {
		return nil, Invalid(Problem{File: source.File, Message: fmt.Sprintf(
			"the document has %d bytes, want at most %d: split it into several policies", len(source.Text), c.config.MaxDocumentBytes)})
	}
	if blank(source.Text) {
		return nil, Invalid(Problem{File: source.File, Message: "the document is empty: write a policy, or delete the policy if it is not wanted any more"})
	}
	out, err := c.config.Compiler.Compile(source)
	if err != nil {
		return nil, asInvalid(source.File, err)
	}
	if err := checkName(out.Name); err != nil {
		return nil, asInvalid(source.File, err)
	}
	return out, nil
}

// publishLocked hands a checked set to the publisher. REQUIRES change.
func (c *Catalog) publishLocked(set []*Compiled) error {
	if err := c.config.Publisher.Publish(set); err != nil {
		c.unpublished = true
		return fmt.Errorf("%w: the policies that ran before keep running; it is tried again with the next change and at the next start: %w",
			ErrNotPublished, err)
	}
	c.unpublished = false
	return nil
}

func (c *Catalog) current() policies {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return c.inForce
}

func (c *Catalog) setCurrent(next policies) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inForce = next
	c.metrics.policies.Set(float64(len(next.names)))
}

// with is p after one policy was put in or replaced.
func (p policies) with(added *policy) policies {
	next := policies{byName: maps.Clone(p.byName), names: p.names}
	if next.byName == nil {
		next.byName = map[string]*policy{}
	}
	next.byName[added.head.Name] = added
	if at, found := slices.BinarySearch(p.names, added.head.Name); !found {
		next.names = slices.Insert(slices.Clone(p.names), at, added.head.Name)
	}
	return next
}

// without is p after one policy was taken out.
func (p policies) without(name string) policies {
	next := policies{byName: maps.Clone(p.byName), names: p.names}
	delete(next.byName, name)
	if at, found := slices.BinarySearch(p.names, name); found {
		next.names = slices.Delete(slices.Clone(p.names), at, at+1)
	}
	return next
}

func (p policies) compiled() []*Compiled {
	set := make([]*Compiled, len(p.names))
	for i, name := range p.names {
		set[i] = p.byName[name].compiled
	}
	return set
}

// usedUIDs are the identities held by all policies but one.
func (p policies) usedUIDs(except string) map[uint64]bool {
	used := map[uint64]bool{}
	for name, policy := range p.byName {
		if name == except {
			continue
		}
		for _, l := range policy.head.Limiters {
			used[l.UID] = true
		}
	}
	return used
}
