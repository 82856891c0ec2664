// SPDX-License-Identifier: Apache-2.0

package kubernetes

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-project/sluice/internal/discovery"
)

// kept is what is known of the cluster.
type kept struct {
	max     int
	changed chan struct{} // holds one when there is something to publish

	mu     sync.Mutex
	tables map[string]*table // by resource
	total  int               // entities in all of them
	dirty  bool              // entities have changed since they were read
}

// table is what is known of one resource.
type table struct {
	objects   map[string][]discovery.Entity // by namespace/name
	leftOut   map[string]int                // entities for which there was no room, by object
	problem   string
	confirmed time.Time
}

func newKept(most int) *kept {
	return &kept{max: most, changed: make(chan struct{}, 1), tables: make(map[string]*table)}
}

func (k *kept) add(resource string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tables[resource] = &table{
		objects: make(map[string][]discovery.Entity), leftOut: make(map[string]int), problem: resource + ": the cluster has not answered yet",
	}
}

// put sets what an object says; no entities: it is gone. k.mu is held.
func (k *kept) put(t *table, key string, entities []discovery.Entity) {
	was := t.objects[key]
	k.total -= len(was)
	delete(t.leftOut, key)
	if room := k.max - k.total; len(entities) > room {
		t.leftOut[key] = len(entities) - room
		entities = slices.Clone(entities[:room])
	}
	if !slices.EqualFunc(was, entities, same) {
		k.dirty = true
	}
	k.total += len(entities)
	if len(entities) == 0 {
		delete(t.objects, key)
		return
	}
	t.objects[key] = entities
}

func same(a, b discovery.Entity) bool {
	return a.Address == b.Address && a.UID == b.UID && a.Name == b.Name && a.Namespace == b.Namespace && a.Node == b.Node &&
		slices.Equal(a.Services, b.Services)
}

// update changes a table, and notes that the cluster has answered; again tells that it did before, but not the
// last time.
func (k *kept) update(resource string, change func(*table)) (again bool) {
	k.mu.Lock()
	t := k.tables[resource]
	change(t)
	again = t.problem != "" && !t.confirmed.IsZero()
	t.confirmed, t.problem = time.Now(), ""
	k.mu.Unlock()
	k.notify()
	return again
}

// fail notes that the cluster did not answer as it should; first tells whether it did before.
func (k *kept) fail(resource, problem string) (first bool) {
	k.mu.Lock()
	t := k.tables[resource]
	first = t.problem == "" || t.confirmed.IsZero() && t.problem != problem
	t.problem = problem
	k.mu.Unlock()
	k.notify()
	return first
}

func (k *kept) notify() {
	select {
	case k.changed <- struct{}{}:
	default: // it is about to be read
	}
}

// starved tells whether entities are left out for which there is room by now.
func (k *kept) starved(resource string) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.tables[resource].leftOut) > 0 && k.total < k.max
}

// state is what a feed is told besides entities.
type state struct {
	dirty     bool
	confirmed time.Time
	problem   string
}

// read tells the state, and that entities are read next.
func (k *kept) read() state {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := state{dirty: k.dirty, confirmed: time.Now()}
	k.dirty = false
	var problems []string
	left := 0
	for _, t := range k.tables {
		if t.problem != "" {
			problems = append(problems, t.problem)
		}
		for _, n := range t.leftOut {
			left += n
		}
		if t.confirmed.Before(out.confirmed) {
			out.confirmed = t.confirmed
		}
	}
	slices.Sort(problems)
	if left > 0 {
		problems = append(problems, fmt.Sprintf("%d entities are left out because there are more than %d: raise discovery.max_entities", left, k.max))
	}
	out.problem = strings.Join(problems, "; ")
	return out
}

// entities puts together what all objects say: one entity for each pod and address, with all its services.
func (k *kept) entities() []discovery.Entity {
	type identity struct{ address, namespace, name string }
	k.mu.Lock()
	defer k.mu.Unlock()
	at := make(map[identity]int, k.total)
	out := make([]discovery.Entity, 0, k.total)
	for _, t := range k.tables {
		for _, entities := range t.objects {
			for _, e := range entities {
				id := identity{e.Address, e.Namespace, e.Name}
				i, ok := at[id]
				if !ok {
					at[id] = len(out)
					out = append(out, e)
					continue
				}
				out[i].Services = merge(out[i].Services, e.Services)
				if out[i].UID == "" {
					out[i].UID = e.UID
				}
				if out[i].Node == "" {
					out[i].Node = e.Node
				}
			}
		}
	}
	slices.SortFunc(out, compare)
	return out
}

func compare(a, b discovery.Entity) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Address, b.Address)
}

// merge is a new sorted list of what is in a or b, or a itself.
func merge(a, b []string) []string {
	for _, name := range b {
		if _, ok := slices.BinarySearch(a, name); !ok {
			all := slices.Concat(a, b)
			slices.Sort(all)
			return slices.Compact(all)
		}
	}
	return a
}
